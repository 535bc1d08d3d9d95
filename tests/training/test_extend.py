"""A method, an optimizer and a recipe come in by a file and a row each: shown in a copy of the code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support import ROOT, run_module

METHOD = '''"""Twice the task's loss.

    perturbation_weight   The factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from components.parameters import check_fields
from components.training.budget import Progress
from components.training.method import Loss, Passes

if TYPE_CHECKING:
    from torch import nn

    from components.training.data import Batch
    from components.training.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class Scaled:
    part_names: ClassVar[tuple[str, ...]] = ("task_loss",)

    perturbation_weight: float = 2.0

    def __post_init__(self) -> None:
        check_fields(self)

    def passes(self, progress: Progress) -> Passes:
        return Passes(forwards=1, input_backwards=0, backwards=1)

    def losses(self, objective: Objective, model: nn.Module, batch: Batch, progress: Progress) -> Iterator[Loss]:
        loss = objective.losses(objective.outputs(model, batch), batch).sum()
        yield Loss(self.perturbation_weight * loss, {"task_loss": loss})
'''
OPTIMIZER = '''
def build_sgd(groups: list[dict[str, Any]], learning_rate: float) -> TorchOptimizer:
    """Gradient descent with momentum."""
    import torch

    return torch.optim.SGD(groups, learning_rate, momentum=0.9)


OPTIMIZERS: '''
RECIPE = """    "short": Recipe({**PLAIN, "num_epochs": 0.5, "global_batch_size": 25}, "tests", source="nowhere"),
"""


SHORT = ("--num-updates", "6")


def edited(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1, before
    path.write_text(text.replace(before, after))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "components", folder / "components", ignore=shutil.ignore_patterns("__pycache__"))
    training = folder / "components" / "training"
    (training / "methods" / "scaled.py").write_text(METHOD)
    methods = training / "methods" / "__init__.py"
    edited(methods, "\nMETHODS: ", "from components.training.methods.scaled import Scaled\n\nMETHODS: ")
    edited(methods, '    "plain": Plain,\n', '    "plain": Plain,\n    "scaled": Scaled,\n')
    optimizers = training / "optimizers" / "__init__.py"
    edited(optimizers, "\nOPTIMIZERS: ", OPTIMIZER)
    edited(optimizers, '"adamw": Optimizer(', '"sgd": Optimizer(0.05, build_sgd), "adamw": Optimizer(')
    edited(folder / "components" / "recipes.py", '    "plain": Recipe(\n', f'{RECIPE}    "plain": Recipe(\n')
    return folder


@pytest.mark.parametrize(
    ("option", "said", "updates"),
    [
        (
            ("--method", "scaled", "--perturbation-weight", "3", *SHORT),
            "but for method\ntrain: scaled, adamw, 200 examples, 0.4615 epochs, 6",
            6,
        ),
        (("--optimizer", "sgd", *SHORT), "updates of 16, learning rate 0.0354 after 1 updates of warm-up", 6),
        (
            ("--recipe", "short"),
            "train: recipe short (it was asked for)\ntrain: plain, adamw, 200 examples, 0.5 epochs, 4 updates of 25",
            4,
        ),
    ],
    ids=["method", "optimizer", "recipe"],
)
def test_a_new_one_trains_by_its_name(
    tokenized: Callable[[str], Path], copy: Path, tmp_path: Path, option: tuple[str, ...], said: str, updates: int
) -> None:
    """With a checkpoint an update, which a state that it could not hold would stop."""
    folders = ("--data-dir", tokenized("sst2"), "--output-dir", tmp_path / "m")
    arguments = (*folders, "--model", "tiny", *option, "--checkpoint-minutes", "1e-9")
    done = run_module("components.train", *arguments, PYTHONPATH=str(copy), PYTHONSAFEPATH="1")
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert "no checkpoint" not in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "m" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == updates
    assert load_file(tmp_path / "m" / "model.safetensors")["classifier.bias"].abs().min() > 0  # where it was 0 at first
    if "--method" in option:
        assert all(line["loss"] == pytest.approx(3 * line["task_loss"], rel=1e-6) for line in lines)
    settled = json.loads((tmp_path / "m" / "manifest.json").read_text())["parameters"]
    assert settled[option[0].removeprefix("--")] == option[1]


@pytest.mark.parametrize(
    ("option", "known"), [("method", "plain, scaled, "), ("optimizer", "sgd, adamw"), ("recipe", "short, pl")]
)
def test_a_new_one_is_named_among_those_that_can_be_taken(copy: Path, tmp_path: Path, option: str, known: str) -> None:
    folders = ("--data-dir", tmp_path, "--output-dir", tmp_path / "m")
    done = run_module("components.train", *folders, f"--{option}", "none", PYTHONPATH=str(copy), PYTHONSAFEPATH="1")
    assert done.returncode == 2
    assert f"{option} is 'none': give one of {known}" in done.stderr
