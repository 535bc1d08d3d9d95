"""A finished run stays small enough for Kubeflow to tell how it stands."""

from pathlib import Path

import pytest
import workflow_size

from components.suite.stage import FITS
from pipelines.compile import compile_all


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    compile_all(output_dir=folder)
    return folder


def test_a_run_of_adapt_weighs_at_most_400_kilobytes(build: Path) -> None:
    sizes = workflow_size.weigh(build / "adapt.yaml")
    steps = {name.rpartition("/")[2] for name in sizes if not name.endswith("/")}
    assert steps == {"resolve", "tokenize", "train", "evaluate", "register", "promote", "clean-up"}
    assert 100_000 < sum(sizes.values()) < 400_000


def test_a_run_of_a_suite_weighs_at_most_185_kilobytes(build: Path) -> None:
    iteration = workflow_size.iteration_of(workflow_size.weigh(build / "suite.yaml"))
    steps = {name.rpartition("/")[2] for name in iteration if not name.endswith("/")}
    assert steps == {"tokenize", "train", "evaluate", "register", "promote"}
    assert 90_000 < workflow_size.of_steps(iteration) < 185_000


def test_as_many_runs_of_a_suite_are_let_through_as_fit(build: Path) -> None:
    assert 1 <= FITS <= workflow_size.runs_below_limit(workflow_size.weigh(build / "suite.yaml"))


def test_a_step_weighs_what_kubeflow_keeps_of_it(tmp_path: Path) -> None:
    """Twice component, task, container, settings and patch, and the patch four times more: longer source counts eight times."""
    text = (Path(__file__).parent / "one_step.yaml").read_text()
    sizes = []
    for source in ("pass", "pass" + "x" * 1000):
        (tmp_path / "one.yaml").write_text(text.replace("SOURCE", source))
        sizes.append(workflow_size.weigh(tmp_path / "one.yaml")["step"])
    assert sizes[1] - sizes[0] == 8 * 1000
