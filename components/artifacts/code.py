"""The source files that a module's results depend on."""

import ast
import functools
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def imported_by(module: str) -> set[str]:
    """The top-level names of others' modules that a module of this project imports, in functions too, and so do the modules of
    this project that it imports.
    """
    return {
        name.partition(".")[0]
        for path in sources_of(module)
        for name in _imported(ast.parse(path.read_text()), "")
        if not name.startswith(f"{PROJECT.name}.")
    }


@functools.cache
def sources_of(module: str) -> frozenset[Path]:
    """The files of a module, of the modules of this project that it imports, in functions too, and so on; and of the packages
    that these are in.

    A module that is named as a file ("serving.py") beside the one that names it counts as imported.

    Raises:
        ModuleNotFoundError: there is none of that name.
    """
    found: dict[str, Path] = {}
    todo = {module}
    while todo:
        name = todo.pop()
        if path := _file(name):
            found[name] = path
            package = name if path.stem == "__init__" else name.rpartition(".")[0]
            todo |= {package, *_imported(ast.parse(path.read_text()), package)} - found.keys()
    if module not in found:
        raise ModuleNotFoundError(module)
    return frozenset(found.values())


def _file(module: str) -> Path | None:
    """None where that is no module of this project: another's, or a name in a module."""
    top, _, rest = module.partition(".")
    path = PROJECT / rest.replace(".", "/")
    places = (path.with_suffix(".py"), path / "__init__.py") if top == PROJECT.name else ()
    return next((place for place in places if place.is_file()), None)


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    """What may be the names of modules."""
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children: Iterable[ast.AST] = node.orelse
    else:
        children = ast.iter_child_nodes(node)
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        origin = resolve_name("." * node.level + (node.module or ""), package)
        yield from (origin, *(f"{origin}.{alias.name}" for alias in node.names))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".py"):
        yield f"{package}.{node.value.removesuffix('.py')}"
    for child in children:
        yield from _imported(child, package)
