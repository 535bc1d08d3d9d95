"""Write build/PIPELINE.yaml for each pipeline, and each component by itself for use in other pipelines.

python pipelines/compile.py [--output-dir build]
"""

from pathlib import Path

from kfp.compiler import Compiler

from components import cli
from components.evaluate.component import evaluate
from components.promote.component import promote
from components.register.component import register
from components.suite import component as collect
from components.tokenize import parts
from components.tokenize.component import tokenize
from components.train.component import train
from pipelines.adapt import adapt
from pipelines.in_parts import adapt_in_parts
from pipelines.suite import suite

PIPELINES = (adapt, adapt_in_parts, suite)
COMPONENTS = (
    *(tokenize, parts.plan_parts, parts.tokenize_part, parts.merge_parts),
    *(train, evaluate, register, promote),
    *(collect.runs, collect.suite),
)


def compile_all(*, output_dir: Path = Path("build")) -> list[Path]:
    """Compile the pipelines and their components.

    Args:
        output_dir: Folder for PIPELINE.yaml and components/COMPONENT.yaml.
    """
    named = {f"{pipeline.name}.yaml": pipeline for pipeline in PIPELINES}
    named |= {f"components/{component.name}.yaml": component for component in COMPONENTS}
    for name, component in named.items():
        path = output_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Compiler().compile(component, str(path))
        print(path)
    return [output_dir / name for name in named]


if __name__ == "__main__":
    cli.run(compile_all, "python pipelines/compile.py")
