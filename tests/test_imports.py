"""What stands on what: rooms in an order, no circles. And what may not be loaded where: a cluster's API server compiles
components without torch, a training image has no kfp.
"""

import ast
import functools
import graphlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

import pytest
from support import ROOT, run_module

STAGES = ("tokenize", "corpus", "train", "pretrain", "evaluate", "register", "suite")
LOOSE = {"__init__", "errors", "cli", "image", "parameters", "recipes"}
ORDER = (
    {"errors", "image"},
    {"parameters"},
    {"cli"},
    {"artifacts"},
    {"storage"},
    {"tasks"},
    {"modeling"},
    {"training"},
    {"recipes"},
    {"launch", "tracking", "registry"},
    {"tokenize", "corpus", "train", "pretrain", "evaluate", "register"} | {"promote", "suite", "clean_up", "doctor", "lineage"},
    {"resolve"},
    {"pipelines"},
)
"""Rooms from the ground up: each stands on those below it, and beside it."""
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
ROOMS_OF_STAGES = ORDER[-3] | ORDER[-2]
ENGINE = {"modeling", "training"}
LONGEST_FUNCTION, LONGEST_FILE = 80, 300
LONGER: dict[str, int] = {}
TABLES = {"components.parameters"}


# --- who imports whom ---


@functools.cache
def trees() -> Mapping[str, ast.Module]:
    """Module -> its code."""
    paths = [path for folder in ("components", "pipelines") for path in sorted((ROOT / folder).rglob("*.py"))]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    return {name: ast.parse(path.read_text()) for name, path in names.items()}


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All below it but for what only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield child
        yield from statements(child)


@functools.cache
def imported(module: str) -> frozenset[str]:
    """The modules that it imports, in functions too; ours by the module that a name is from."""
    found = set()
    for node in statements(trees()[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports by a relative name"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in trees() else str(node.module) for name in names}
    return frozenset(found)


def room_of(module: str) -> str:
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "components" else first


def test_every_import_is_seen() -> None:
    assert len(trees()) > 100
    assert "components.training.loop" in imported("components.train.stage")  # in a function
    assert "components.tracking.runs" not in imported("components.tokenize.stage")
    assert {"torch", "components.training.run"} <= set().union(*map(imported, trees()))
    code = "if TYPE_CHECKING:\n    import a\nelse:\n    pass\ndef f():\n    from b import c\n"
    seen = [node for node in statements(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in seen] == ["from b import c"]


def test_every_module_has_a_place() -> None:
    assert {path.stem for path in (ROOT / "components").glob("*.py")} == LOOSE
    rooms = {path.name for path in (ROOT / "components").iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert rooms | LOOSE - {"__init__"} | {"pipelines"} == set(LEVEL)


def circle_in(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_and_no_room_stands_on_itself() -> None:
    modules = {module: {other for other in imported(module) if other in trees()} for module in trees()}
    assert circle_in(modules) == []
    rooms: dict[str, set[str]] = {}
    for module, others in modules.items():
        rooms.setdefault(room_of(module), set()).update({room_of(other) for other in others} - {room_of(module)})
    assert circle_in(rooms) == []


def test_no_arrow_points_up() -> None:
    up = [
        f"{module} -> {other}"
        for module in trees()
        for other in imported(module)
        if other in trees() and room_of(module) and LEVEL[room_of(other)] > LEVEL[room_of(module)]
    ]
    assert up == []


def test_the_engine_knows_no_stage_no_mlflow_and_no_kfp() -> None:
    for module in trees():
        tops = {name.partition(".")[0] for name in imported(module)}
        if room_of(module) in ENGINE:
            assert not tops & {"mlflow", "kfp", "kubernetes", "kubernetes_asyncio"}, module
            assert not {room_of(other) for other in imported(module) if other in trees()} & ROOMS_OF_STAGES, module


def test_launch_names_no_stage() -> None:
    for module in trees():
        if room_of(module) == "launch":
            texts = {node.value for node in ast.walk(trees()[module]) if isinstance(node, ast.Constant)}
            assert not texts & (ROOMS_OF_STAGES | {f"components.{stage}" for stage in ROOMS_OF_STAGES}), module
            assert not {room_of(other) for other in imported(module) if other in trees()} & ROOMS_OF_STAGES, module


def test_no_function_and_no_file_is_too_long_to_read() -> None:
    too_long = {}
    for module, tree in trees().items():
        if module in TABLES:
            continue
        path = ROOT.joinpath(*module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if (length := len(file.read_text().splitlines())) > LONGEST_FILE:
            too_long[module] = length
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                name, length = f"{module}.{node.name}", node.end_lineno - node.lineno + 1
                if length > LONGER.get(name, LONGEST_FUNCTION):
                    too_long[name] = length
    assert too_long == {}


# --- what is loaded where ---


@functools.cache
def loaded_by(module: str) -> frozenset[str]:
    """Top-level names, and our own modules."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120)
    names = done.stdout.split()
    return frozenset({name.partition(".")[0] for name in names} | {name for name in names if name.startswith("components.")})


@pytest.mark.parametrize("stage", [*STAGES, "resolve", "promote", "clean_up"])
def test_a_component_loads_no_torch(stage: str) -> None:
    loaded = loaded_by(f"components.{stage}.component")
    assert not loaded & {"torch", "transformers", "mlflow", "kubernetes_asyncio"}
    assert f"components.{stage}.stage" not in loaded  # its steps may run in an image without the others' libraries


@pytest.mark.parametrize("stage", [*STAGES, "resolve", "promote", "clean_up"])
def test_a_stage_loads_no_kfp_no_mlflow_and_no_torch(stage: str) -> None:
    slow = {"kfp", "kubernetes", "mlflow", "torch", "transformers"}
    assert not loaded_by(f"components.{stage}.stage") & slow


@pytest.mark.parametrize("stage", [*STAGES, "promote", "resolve"])
def test_a_step_loads_no_kfp_no_mlflow_and_no_torch(stage: str) -> None:
    assert not loaded_by(f"components.{stage}.step") & {"kfp", "kubernetes", "mlflow", "torch", "transformers"}


@pytest.mark.parametrize(
    "module",
    [
        "components.training.methods",
        "components.training.optimizers",
        "components.train.settings",
        "components.tokenize.settings",
        "components.registry.criteria",
        "components.recipes",
        "components.launch.placement",
    ],
)
def test_what_parameters_are_checked_with_loads_nothing_slow(module: str) -> None:
    assert not loaded_by(module) & {"kfp", "kubernetes", "mlflow", "torch", "transformers", "sklearn", "pandas"}


@pytest.mark.parametrize("module", ["pipelines.adapt", "pipelines.in_parts", "pipelines.suite", "pipelines.compile"])
def test_a_pipeline_loads_no_torch_and_no_mlflow(module: str) -> None:
    assert not loaded_by(module) & {"torch", "transformers", "mlflow"}


@pytest.mark.parametrize("stage", STAGES)
def test_help_starts_in_under_two_seconds(stage: str) -> None:
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        done = run_module(f"components.{stage}", "--help")
        seconds.append(time.monotonic() - started)
        assert done.returncode == 0
        assert "--output-dir" in done.stdout or "--model-dir" in done.stdout
    assert statistics.median(seconds) < 2
    assert not loaded_by(f"components.{stage}.stage") & {"torch", "transformers"}
