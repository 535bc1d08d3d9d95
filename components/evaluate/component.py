"""components.evaluate as a KFP component, with what the Kubeflow UI shows: metrics, confusion matrix, ROC, summary, report."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

from components.image import TRAIN_IMAGE
from components.parameters import documented


@dsl.component(base_image=TRAIN_IMAGE, install_kfp_package=False)
@documented
def evaluate(
    trained: Input[Model],
    dataset: Input[Dataset],
    evaluation: Output[Artifact],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    summary: Output[Markdown],
    report: Output[HTML],
    robustness_rows: int,
    experiment: str,
    tracking_uri: str,
    pipeline_run_id: str,
    pipeline_task_id: str,
) -> float:
    """Measure the model on the task's validation splits. The output is the score: the mean of the task's GLUE metrics."""
    import json
    import shutil
    from pathlib import Path
    from typing import Any

    from components.artifacts.folders import artifact_metadata
    from components.artifacts.names import METRICS, REPORT, SUMMARY
    from components.artifacts.provenance import set_run
    from components.errors import exit_codes
    from components.evaluate.stage import evaluate, flat, plan
    from components.tasks.table import Task

    folder = Path(evaluation.path)
    arguments: dict[str, Any] = {
        "model_dir": Path(trained.path),
        "data_dir": Path(dataset.path),
        "output_dir": folder,
        "robustness_rows": robustness_rows,
    }
    set_run(pipeline_run_id, pipeline_task_id)
    with exit_codes(beside=evaluation.path):
        manifest = plan(**arguments).cached()
        if manifest:
            evaluation.metadata["cached"] = True
        else:
            from components.tracking import stage_run  # seconds to import

            with stage_run(
                "evaluate", pipeline_run_id=pipeline_run_id, experiment=experiment, tracking_uri=tracking_uri
            ) as run:
                manifest = evaluate(**arguments)
                run.log_manifest(manifest)
                results = json.loads((folder / METRICS).read_text())
                data = run.log_dataset(results["task"], dataset.uri, manifest["inputs"]["data"], "evaluation")
                run.log_metrics(flat(results), data)
                run.log_folder(folder, REPORT, SUMMARY)
                evaluation.metadata["mlflow_run_id"] = run.run_id
        evaluation.metadata.update(artifact_metadata(manifest))
        results = json.loads((folder / METRICS).read_text())
        for name, value in flat(results).items():
            metrics.log_metric(name, value)
        Path(metrics.path).write_text(json.dumps(flat(results)))  # KFP's local cache wants a file of every artifact
        first = next(iter(results["splits"].values()))
        labels = list(Task.read(Path(dataset.path)).label_names)
        if labels:
            confusion.log_confusion_matrix(labels, first["confusion_matrix"])
        if len(labels) == 2 and "curves" in first:  # the UI has room for one curve
            roc = first["curves"][labels[1]]["roc"]
            confusion.log_roc_curve(roc["false_positive_rate"], roc["true_positive_rate"], roc["threshold"])
        Path(confusion.path).write_text(json.dumps(confusion.metadata))
        shutil.copyfile(folder / SUMMARY, summary.path)
        shutil.copyfile(folder / REPORT, report.path)
        return float(results["score"])
