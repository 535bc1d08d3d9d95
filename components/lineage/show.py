"""The tree as text and as a page."""

from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from mlflow.entities.model_registry import ModelVersion

from components.lineage.tree import Node

TEMPLATE = "tree.html.j2"
SHORT = 12


def as_text(version: ModelVersion, tree: Node) -> str:
    """One line a node, what it was made of below it."""
    names = "".join(f" @{alias}" for alias in version.aliases)
    lines = [f"{tree.uri}{names}  {tree.digest[:SHORT]}"]
    lines += [f"  {key.removeprefix('kfp.')} {value}" for key, value in sorted(version.tags.items()) if key.startswith("kfp.")]
    shown: set[str] = set()
    for child in tree.children:
        lines += _lines(child, "", "└─ ", "   ", shown)
    return "\n".join(lines)


def as_page(version: ModelVersion, tree: Node) -> str:
    """One self-contained page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(TEMPLATE).render(version=version, tree=tree, said=said)


def said(node: Node) -> list[str]:
    """What is worth a line about a node besides its digest and place."""
    if made := node.generator:
        return [f"generated: {made['by']}", f"task={made['task']} num_rows={made['num_rows']}", f"code {made['code'][:SHORT]}"]
    if not node.manifest:
        return [f"{len(node.files)} file(s)"] if node.files else []
    made, parameters = node.manifest["made_by"], node.manifest["parameters"]
    kept = ("task", "method", "optimizer", "model", "seed", "max_length")
    facts = [" ".join(f"{key}={parameters[key]}" for key in kept if key in parameters)]
    facts += [f"{key} {made[key]}" for key in ("pipeline_run_id", "job_name", "image") if key in made]
    facts += [f"commit {made['commit'][:SHORT]}"] if "commit" in made else []
    return [fact for fact in [*facts, f"code {node.manifest['code'][:SHORT]}", made["created"]] if fact]


def _lines(node: Node, indent: str, corner: str, below: str, shown: set[str]) -> Iterator[str]:
    cached = "  (cached)" if node.cached else ""
    yield f"{indent}{corner}{node.kind} {node.digest[:SHORT] or 'no digest'}  {node.uri}{cached}"
    if node.manifest and node.digest in shown:
        yield f"{indent}{below}   as above"
        return
    shown.add(node.digest)
    if facts := said(node):
        yield f"{indent}{below}{'│  ' if node.children else '   '}{', '.join(facts)}"
    for number, child in enumerate(node.children):
        last = number == len(node.children) - 1
        yield from _lines(child, indent + below, "└─ " if last else "├─ ", "   " if last else "│  ", shown)
