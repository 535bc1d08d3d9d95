"""components.corpus as a step of a pipeline."""

from pathlib import Path
from typing import Any

from components import cli
from components.artifacts.folders import Manifest
from components.artifacts.provenance import Tracking
from components.corpus.settings import Corpus
from components.corpus.stage import corpus, plan
from components.tracking.steps import begun, recorded


def corpus_step(settings: str, output: Any) -> None:
    with begun(output.path):
        wanted, tracking = cli.parts(settings, Corpus, Tracking)
        artifact, _ = plan(wanted, Path(output.path))

        def make(*_: object) -> Manifest:
            return corpus(output_dir=artifact.path, settings=settings)

        recorded(artifact, tracking, output, make)
