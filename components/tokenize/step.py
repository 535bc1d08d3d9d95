"""components.tokenize as a step of a pipeline: in one, or in parts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components import cli
from components.artifacts.folders import Manifest, artifact_metadata
from components.artifacts.provenance import Tracking
from components.errors import UserError
from components.tasks.table import Task
from components.tokenize.merge import merge
from components.tokenize.settings import Tokenizing
from components.tokenize.stage import plan, tokenize
from components.tracking.steps import begun, recorded


def tokenize_step(settings: str, dataset: Any, of_run: Mapping[str, Any]) -> None:
    with begun(dataset.path):
        settings = cli.with_changes(settings, of_run)
        tokenizing, tracking = cli.parts(settings, Tokenizing, Tracking)
        artifact, _ = plan(tokenizing, Path(dataset.path))
        # In a loop not below an iteration: the seeds of a task share its data.
        told = {name: getattr(tokenizing, name) for name in sorted(of_run, key=lambda name: name != "task") if name != "model"}
        names = [value if name == "task" else f"{name} {value}" for name, value in told.items()]
        run_name = f"tokenize {', '.join(names)}" if of_run else ""

        def make(*_: object) -> Manifest:
            return tokenize(output_dir=artifact.path, settings=settings)

        recorded(artifact, tracking, dataset, make, run_name=run_name)
        dataset.metadata["task"] = Task.read(artifact.path).name


def plan_step(settings: str, num_parts: int, source_files: Any) -> list[int]:
    """Find the source's digests, once for all parts; what cannot be tokenized in parts is refused. Returns the parts."""
    with begun(source_files.path):
        if num_parts < 1:
            raise UserError(f"num_parts is {num_parts}: give 1 or more")
        tokenizing, _ = cli.parts(settings, Tokenizing, Tracking)
        _, found = plan(tokenizing, Path(), 0, num_parts)
        Path(source_files.path).write_text(json.dumps(found.inputs))
        return list(range(num_parts))


def part_step(settings: str, part: int, num_parts: int, source_files: Any, tokenized_part: Any) -> None:
    with begun(tokenized_part.path):
        manifest = tokenize(
            output_dir=Path(tokenized_part.path),
            part=part,
            num_parts=num_parts,
            source_files=Path(source_files.path),
            settings=settings,
        )
        tokenized_part.metadata.update(artifact_metadata(manifest), task=Task.read(Path(tokenized_part.path)).name)


def merge_step(settings: str, parts: Sequence[Any], dataset: Any) -> None:
    with begun(dataset.path):
        _, tracking = cli.parts(settings, Tokenizing, Tracking)
        from components.tracking.runs import stage_run

        with stage_run("tokenize", tracking) as run:
            manifest = merge(part_dirs=[Path(part.path) for part in parts], output_dir=Path(dataset.path))
            run.log_manifest(manifest)
            task = Task.read(Path(dataset.path))
            dataset.metadata.update(artifact_metadata(manifest), task=task.name, mlflow_run_id=run.run_id)
