"""components.evaluate as a step of a pipeline, with what the Kubeflow UI shows: metrics, curves, summary, report."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import cli
from components.artifacts.folders import Manifest
from components.artifacts.names import METRICS, REPORT, SUMMARY
from components.artifacts.provenance import Tracking
from components.evaluate.settings import Evaluating
from components.evaluate.stage import evaluate, flat, plan
from components.tasks.table import Task
from components.tracking.steps import begun, recorded

if TYPE_CHECKING:
    from components.tracking.runs import StageRun


def evaluate_step(
    settings: str, trained: Any, dataset: Any, evaluation: Any, metrics: Any, confusion: Any, summary: Any, report: Any
) -> float:
    folder, data_dir = Path(evaluation.path), Path(dataset.path)
    with begun(evaluation.path):
        evaluating, tracking = cli.parts(settings, Evaluating, Tracking)

        def make(run: "StageRun", _: object) -> Manifest:
            manifest = evaluate(model_dir=Path(trained.path), data_dir=data_dir, output_dir=folder, **vars(evaluating))
            results = json.loads((folder / METRICS).read_text())
            data = run.log_dataset(results["task"], dataset.uri, manifest["inputs"]["data"], "evaluation")
            run.log_metrics(flat(results), data)
            run.log_folder(folder, REPORT, SUMMARY)
            return manifest

        artifact = plan(Path(trained.path), data_dir, folder, evaluating)
        recorded(artifact, tracking, evaluation, make, iteration=trained.metadata.get("iteration", ""))
        results = json.loads((folder / METRICS).read_text())
        for name, value in flat(results).items():
            metrics.log_metric(name, value)
        Path(metrics.path).write_text(json.dumps(flat(results)))  # KFP's local cache wants a file of every artifact
        show_curves(confusion, results, list(Task.read(data_dir).label_names))
        shutil.copyfile(folder / SUMMARY, summary.path)
        shutil.copyfile(folder / REPORT, report.path)
        return float(results["score"])


def show_curves(confusion: Any, results: dict[str, Any], labels: list[str]) -> None:
    """Confusion matrix on the first validation split, and its ROC curve where there are two labels."""
    first = next(iter(results["splits"].values()))
    if labels:
        confusion.log_confusion_matrix(labels, first["confusion_matrix"])
    if len(labels) == 2 and "curves" in first:  # the UI has room for one curve
        roc = first["curves"][labels[1]]["roc"]
        confusion.log_roc_curve(roc["false_positive_rate"], roc["true_positive_rate"], roc["threshold"])
    Path(confusion.path).write_text(json.dumps(confusion.metadata))
