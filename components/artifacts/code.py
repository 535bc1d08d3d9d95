"""The source files that a module's results depend on."""

import ast
import functools
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path

PROJECT = Path(__file__).parents[1]


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
            todo |= {_package(path), *_imported(path)} - found.keys()
    if module not in found:
        raise ModuleNotFoundError(module)
    return frozenset(found.values())


def imported_by(module: str) -> dict[str, set[Path]]:
    """What the sources of a module import that is not of this project: top-level name -> which of them do."""
    found: dict[str, set[Path]] = {}
    for path in sources_of(module):
        for name in _imported(path):
            if (top := name.partition(".")[0]) != PROJECT.name:
                found.setdefault(top, set()).add(path)
    return found


def _package(path: Path) -> str:
    """That a file of this project is in; of an __init__.py, its own."""
    return ".".join(path.relative_to(PROJECT.parent).parts[:-1])


def _file(module: str) -> Path | None:
    """None where that is no module of this project: another's, or a name in a module."""
    top, _, rest = module.partition(".")
    path = PROJECT / rest.replace(".", "/")
    places = (path.with_suffix(".py"), path / "__init__.py") if top == PROJECT.name else ()
    return next((place for place in places if place.is_file()), None)


@functools.cache
def _imported(path: Path) -> frozenset[str]:
    """What may be the names of modules."""
    return frozenset(_names_in(ast.parse(path.read_text()), _package(path)))


def _names_in(node: ast.AST, package: str) -> Iterator[str]:
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
        yield from _names_in(child, package)
