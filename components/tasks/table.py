"""TASKS: one row per GLUE task. What differs from task to task is data in this table, never an `if task ==`."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.errors import UserError

FILE = "task.json"
UNLABELLED = -1
GENERATED = "sample-"
"""What the names of generated tasks begin with."""
TRAIN_DEV_TEST: Mapping[str, str] = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}


@dataclass(frozen=True)
class Task:
    """One task: its columns, labels and metrics, and where GLUE's official files keep them.

    The first six fields travel with the data as task.json. Column names are those of the Hugging Face schema (nyu-mll/glue).
    """

    name: str
    text_columns: tuple[str, ...]
    label_names: tuple[str, ...]
    """In the order of the label numbers; empty for a regression."""
    metrics: tuple[str, ...]
    """As GLUE reports them; the score is their mean."""
    label_range: tuple[float, float] | None = None
    """Regression only."""
    generated: str = ""
    """What made the texts, where nobody wrote them: the generator and its seed. Empty for real data."""

    folder: str = ""
    """The task's folder in the official layout."""
    files: Mapping[str, str] = field(default_factory=lambda: TRAIN_DEV_TEST)
    """Split -> official file."""
    official_text: tuple[str, ...] = ()
    """The official names of the text columns, where they differ."""
    official_label: str = "label"
    header: tuple[str, ...] = ()
    """The columns of labelled official files that have no header line."""
    borrowed: Mapping[str, str] = field(default_factory=dict)
    """Split -> the task whose test split it is: one without training data, which a model of this task is to answer."""

    submission: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Test split -> the file that GLUE's server wants of it, and the rows that GLUE's split has."""
    submits_names: bool = False
    """Whether that file has label names; else it has numbers."""
    train_rows: int = 0
    """Rows of GLUE's training split."""

    @property
    def is_regression(self) -> bool:
        return not self.label_names

    @property
    def num_outputs(self) -> int:
        return len(self.label_names) or 1

    def write(self, folder: Path) -> None:
        row = dataclasses.asdict(self)
        kept = {key: row[key] for key in ("name", "text_columns", "label_names", "metrics", "label_range", "generated")}
        (folder / FILE).write_text(json.dumps(kept, indent=1) + "\n")

    @staticmethod
    def read(folder: Path) -> "Task":
        row = json.loads((folder / FILE).read_text())
        fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        return Task(**fields)


_MNLI_FILES = {
    "train": "train.tsv",
    "validation_matched": "dev_matched.tsv",
    "validation_mismatched": "dev_mismatched.tsv",
    "test_matched": "test_matched.tsv",
    "test_mismatched": "test_mismatched.tsv",
}
_MNLI_SUBMISSION = {
    "test_matched": ("MNLI-m.tsv", 9796),
    "test_mismatched": ("MNLI-mm.tsv", 9847),
    "test_ax": ("AX.tsv", 1104),
}
_MNLI_LABELS = ("entailment", "neutral", "contradiction")
_RTE_LABELS = ("entailment", "not_entailment")
_SENTENCES = ("sentence1", "sentence2")
_PREMISE = ("premise", "hypothesis")

TASKS: Mapping[str, Task] = {
    row.name: row
    for row in (
        Task(
            "cola", ("sentence",), ("unacceptable", "acceptable"), ("matthews_correlation",),
            folder="CoLA", header=("source", "label", "mark", "sentence"), submission={"test": ("CoLA.tsv", 1063)},
            train_rows=8_551,
        ),
        Task(
            "sst2", ("sentence",), ("negative", "positive"), ("accuracy",),
            folder="SST-2", submission={"test": ("SST-2.tsv", 1821)}, train_rows=67_349,
        ),
        Task(
            "mrpc", _SENTENCES, ("not_equivalent", "equivalent"), ("f1", "accuracy"),
            folder="MRPC", official_text=("#1 String", "#2 String"), official_label="Quality",
            submission={"test": ("MRPC.tsv", 1725)}, train_rows=3_668,
        ),
        Task(
            "stsb", _SENTENCES, (), ("pearson", "spearman"), label_range=(0.0, 5.0),
            folder="STS-B", official_label="score", submission={"test": ("STS-B.tsv", 1379)}, train_rows=5_749,
        ),
        Task(
            "qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), ("f1", "accuracy"),
            folder="QQP", official_label="is_duplicate", submission={"test": ("QQP.tsv", 390_965)}, train_rows=363_846,
        ),
        Task(
            "mnli", _PREMISE, _MNLI_LABELS, ("accuracy",),
            folder="MNLI", files=_MNLI_FILES, official_text=_SENTENCES, official_label="gold_label",
            borrowed={"test_ax": "ax"}, submission=_MNLI_SUBMISSION, submits_names=True, train_rows=392_702,
        ),
        Task(
            "qnli", ("question", "sentence"), _RTE_LABELS, ("accuracy",),
            folder="QNLI", submission={"test": ("QNLI.tsv", 5463)}, submits_names=True, train_rows=104_743,
        ),
        Task(
            "rte", _SENTENCES, _RTE_LABELS, ("accuracy",),
            folder="RTE", submission={"test": ("RTE.tsv", 3000)}, submits_names=True, train_rows=2_490,
        ),
        Task(
            "wnli", _SENTENCES, ("not_entailment", "entailment"), ("accuracy",),
            folder="WNLI", submission={"test": ("WNLI.tsv", 146)}, train_rows=635,
        ),
        Task(
            "ax", _PREMISE, _MNLI_LABELS, ("matthews_correlation",),
            folder="diagnostic", files={"test": "diagnostic.tsv"}, official_text=_SENTENCES,
        ),
    )
}  # fmt: skip


def of_glue(name: str, generated: str) -> str:
    """The GLUE task in whose schema a task is; a real one is its own."""
    return name.removeprefix(GENERATED) if generated else name


def find_task(name: str) -> Task:
    """The row of TASKS called `name`; UserError with the known names where there is none."""
    if name not in TASKS:
        raise UserError(f"unknown task '{name}': choose one of {', '.join(TASKS)}, or give a file with --text-columns")
    return TASKS[name]
