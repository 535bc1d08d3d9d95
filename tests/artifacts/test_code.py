"""What of this project's source decides the results of a stage."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from components.artifacts.code import sources_of
from components.artifacts.folders import Artifact, code_digest

STAGES = ("tokenize", "train", "evaluate", "suite", "register")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project's source, to be changed."""
    shutil.copytree(ROOT / "components", tmp_path / "components", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "components"


def digests(copy: Path) -> dict[str, str]:
    """Stage -> its digest there."""
    code = f"from components.artifacts.folders import code_digest; print(*map(code_digest, {STAGES}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy.parent, capture_output=True, text=True, check=True)
    return dict(zip(STAGES, done.stdout.split(), strict=True))


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("training/update.py", {"train"}),
        ("training/methods/scala.py", {"train"}),
        ("modeling/packing.py", {"train", "evaluate"}),
        ("registry/gate.py", {"register"}),
        ("registry/card.md.j2", {"register"}),
        ("registry/serving.py", {"register"}),
        ("registry/__init__.py", {"register"}),
        ("evaluate/report.html.j2", {"evaluate"}),
        ("tokenize/rows.py", {"tokenize"}),
        ("artifacts/folders.py", set(STAGES)),
        ("doctor/stage.py", set()),
        ("train/component.py", set()),
    ],
)
def test_a_change_makes_anew_what_it_decides_and_nothing_else(copy: Path, file: str, stages: set[str]) -> None:
    before = digests(copy)
    assert before == {stage: code_digest(stage) for stage in STAGES}
    comment = "{# changed #}" if file.endswith(".j2") else "\n# changed\n"
    (copy / file).write_text((copy / file).read_text() + comment)
    after = digests(copy)
    assert {stage for stage in STAGES if after[stage] != before[stage]} == stages


@pytest.mark.parametrize("stage", STAGES)
def test_all_that_python_loads_of_this_project_is_among_the_sources(stage: str) -> None:
    names = "name for name in sys.modules if name.partition('.')[0] == 'components'"
    code = f"import sys, components.{stage}.stage; print(*(sys.modules[name].__file__ for name in [{names}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert {Path(file).resolve() for file in done.stdout.split()} <= sources_of(f"components.{stage}.stage")


def test_imports_are_found_wherever_they_stand_but_for_those_of_the_type_checker(copy: Path) -> None:
    (copy / "suite" / "stage.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "import os, components.doctor.finding as finding\n"
        "from . import table\n"
        "if TYPE_CHECKING:\n    from components.launch.watch import Watch\n"
        "else:\n    from components.lineage import events\n"
        "def later():\n    from components.tasks.metrics import score\n    return 'submission.py'\n"
    )
    code = (
        "from components.artifacts.code import *\n"
        "print(*(path.relative_to(PROJECT) for path in sources_of('components.suite.stage')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=copy.parent, capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert found >= {"doctor/finding.py", "doctor/__init__.py", "suite/table.py", "lineage/events.py", "tasks/metrics.py"}
    assert "suite/submission.py" in found
    assert "launch/watch.py" not in found


def test_an_artifact_has_the_code_of_the_stage_that_writes_it(tmp_path: Path) -> None:
    written_by = {"tokenize": "tokenize", "tokenize --part": "tokenize", "train": "train", "checkpoint": "train"}
    for name, stage in written_by.items():
        assert Artifact(tmp_path, name, {}, {}).key["code"] == code_digest(stage)
    with pytest.raises(ModuleNotFoundError, match=r"components\.nothing\.stage"):
        code_digest("nothing")
