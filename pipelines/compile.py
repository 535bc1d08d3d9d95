"""Write build/PIPELINE.yaml for each pipeline, and each component by itself for use in other pipelines.

python pipelines/compile.py [--output-dir build] [--image REPOSITORY@sha256:... --train-image REPOSITORY@sha256:...]
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kfp.compiler.pipeline_spec_builder import write_pipeline_spec_to_file
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.graph_component import GraphComponent
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

from components import cli
from components.clean_up.component import clean_up
from components.corpus.component import corpus
from components.errors import UserError
from components.evaluate.component import evaluate
from components.image import IMAGE, TRAIN_IMAGE
from components.pretrain.component import pretrain
from components.promote.component import promote
from components.register.component import register
from components.resolve.component import resolve, resolve_pretraining
from components.suite import component as collect
from components.tokenize import parts
from components.tokenize.component import tokenize
from components.train.component import train
from pipelines.cluster import (
    cache_digests_alone,
    for_cluster,
    platform_of,
    set_default,
    set_images,
    set_pull_secrets,
    set_retries,
    slim,
)
from pipelines.doctor import doctor
from pipelines.resources import asked, set_resources
from pipelines.table import PIPELINES

COMPONENTS = (
    *(resolve, tokenize, parts.plan_parts, parts.tokenize_part, parts.merge_parts),
    *(train, evaluate, register, promote, clean_up),
    *(collect.runs, collect.suite, collect.suite_of_runs),
    *(resolve_pretraining, corpus, pretrain),
)
REFERENCE = re.compile(r"[\w.-]+(:\d+)?(/[\w.-]+)+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?|[\w.-]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")


def compile_all(
    *,
    output_dir: Path = Path("build"),
    image: str = IMAGE,
    train_image: str = TRAIN_IMAGE,
    image_pull_secrets: Sequence[str] = (),
    resources: Sequence[str] = (),
) -> list[Path]:
    """Compile the pipelines and their components.

    Args:
        output_dir: Folder for PIPELINE.yaml and components/COMPONENT.yaml.
        image: What resolve, tokenize, corpus, suite and clean_up run in, as REPOSITORY@sha256:DIGEST.
        train_image: What train, pretrain, evaluate, register, promote and the training job's pods run in, likewise.
        image_pull_secrets: Names of the Secrets, in the namespace of the runs, that the images are pulled with.
        resources: What a step asks for in place of the default, as evaluate.memory_limit=8Gi or evaluate.gpus=1.
    """
    images = {IMAGE: image, TRAIN_IMAGE: train_image}
    check_images(*images.values())
    named: dict[str, BaseComponent] = {f"{name}.yaml": pipeline for name, pipeline in PIPELINES.items()}
    named |= {f"components/{component.name}.yaml": component for component in COMPONENTS}
    for name, component in named.items():
        path = output_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        spec, platform = compiled(component, images, image_pull_secrets, resources)
        write_pipeline_spec_to_file(spec, component.description, platform, str(path))
        print(path)
    return [output_dir / name for name in named]


def compiled(
    component: BaseComponent, images: Mapping[str, str], image_pull_secrets: Sequence[str] = (), resources: Sequence[str] = ()
) -> tuple[PipelineSpec, PlatformSpec]:
    """What is compiled of a pipeline or component, which stays as it is. A component alone has no more than its image."""
    spec, of_steps = PipelineSpec(), asked(resources)
    if not isinstance(component, GraphComponent):
        spec.CopyFrom(component.pipeline_spec)
        set_images(spec, images)
        return spec, PlatformSpec()
    # The doctor starts no job and has no run in MLflow.
    spec.CopyFrom(component.pipeline_spec if component is doctor else for_cluster(component).pipeline_spec)
    set_images(spec, images)
    cache_digests_alone(spec)
    set_default(spec, "train_image", images[TRAIN_IMAGE])  # the doctor's
    set_pull_secrets(spec, image_pull_secrets)
    set_retries(spec, "train")
    set_retries(spec, "pretrain")
    set_resources(spec, of_steps)
    slim(spec)
    return spec, platform_of(spec, image_pull_secrets)


def check_images(*images: str) -> None:
    """Warn, in one line, where KFP could not tell that an image has changed.

    Raises:
        UserError: a name that no registry takes.
    """
    for image in images:
        if not REFERENCE.fullmatch(image):
            raise UserError(f"{image!r} is not an image: give REGISTRY/REPOSITORY@sha256:DIGEST, as `make push` prints it")
    if tagged := [image for image in images if "@" not in image]:
        mend = "the tag may move, and KFP's cache would not see it; `make push` prints digests"
        print(f"warning: {' and '.join(tagged)} by tag: {mend}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(compile_all, "python pipelines/compile.py")
