"""How good the model is: GLUE's metrics on every validation split, beside what any model should beat."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from components import cli, parameters
from components.artifacts.folders import Artifact, Manifest, origin, read_manifest
from components.artifacts.names import (
    ERRORS,
    EXAMPLES,
    FIGURES,
    METRICS,
    PREDICTIONS,
    REPORT,
    SUMMARY,
    TEST_PREDICTIONS,
    TEXTS,
    TOKENIZER,
    TRAINED_ON,
    TRAINING,
    TRAINING_LOG,
)
from components.artifacts.provenance import Tracking
from components.artifacts.splits import find_split
from components.errors import UserError
from components.evaluate.settings import Evaluating
from components.evaluate.wording import caveats
from components.modeling.load import load_tokenizer, tokenizer_digest
from components.tasks.table import Task

ASIDE = {METRICS: "timings", REPORT: "", SUMMARY: ""}
"""What tells of times, or shows them."""
OF_THE_TRAINING = ("model", "method", "seed")


@cli.taking(Evaluating)
def evaluate(
    *, model_dir: Path, data_dir: Path, output_dir: Path, settings: str = parameters.settings, **given: Any
) -> Manifest:
    """Measure a model that components.train wrote.

    Writes metrics.json (task, what generated its data, model, method, seed, recipe, score, every metric, their 95 % intervals,
    confusion matrices, ROC and precision-recall curves, calibration, slices, the score under noise and without the texts that
    also stand in training, baselines), predictions.parquet (split, idx, label, prediction, scores: class probabilities, or the
    one score of a regression, text_digest, texts), trained_on.parquet (the text digests of the training split),
    test_predictions.parquet (of the test splits, if any, without labels and texts), errors.json (the surest wrong answers with
    their texts), report.html, summary.md, figures/*.svg, examples.json and manifest.json.
    """
    evaluating = cli.made(Evaluating, settings, given, Tracking)
    artifact = plan(model_dir, data_dir, output_dir, evaluating)
    if manifest := artifact.cached():
        return manifest
    task = Task.read(data_dir)
    if Task.read(model_dir).label_names != task.label_names:
        raise UserError(f"{model_dir} has the labels {Task.read(model_dir).label_names}, {data_dir} has {task.label_names}")
    tokenizer = load_tokenizer(str(model_dir))
    if tokenizer_digest(tokenizer) != tokenizer_digest(load_tokenizer(str(data_dir / TOKENIZER))):
        raise UserError(f"{data_dir} was tokenized for another model than {model_dir}")
    splits = sorted({path.stem.partition("-")[0] for path in data_dir.glob("validation*.parquet")})
    if not splits:
        raise UserError(f"{data_dir} has no validation split: nothing to measure on")
    if any(TEXTS not in pq.read_schema(path).names for path in find_split(data_dir, splits[0])):
        raise UserError(f"{data_dir} was written by an earlier version of components.tokenize: tokenize again")
    model_manifest, data_manifest = (artifact.origins[name]["manifest"] for name in ("model", "data"))
    if "effective" not in model_manifest:
        raise UserError(f"{model_dir} was written by an earlier version of components.train: train again")

    # Seconds to import: `--help`, the checks above and what is cached need not wait.
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    from components.evaluate.baselines import baselines
    from components.evaluate.figures import draw, write_figures
    from components.evaluate.markdown import write_summary
    from components.evaluate.measuring import answered, measure_splits
    from components.evaluate.overlap import trained_on, write_trained_on
    from components.evaluate.predict import arithmetic, possible
    from components.evaluate.report import write_report
    from components.evaluate.unlabelled import write_test_predictions
    from components.modeling.packed import pack

    logging.disable_progress_bar()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForSequenceClassification.from_pretrained(model_dir, dtype="float32").to(device)
    pack(model.eval().requires_grad_(False))
    with artifact.building() as folder:
        trained = model_manifest["parameters"]
        results: dict[str, Any] = {"task": task.name, "generated": task.generated}
        results |= {"text_columns": task.text_columns, "labels": task.label_names}
        recipe = json.loads((model_dir / TRAINING).read_text())["recipe"]
        results |= {**{name: trained[name] for name in OF_THE_TRAINING}, "recipe": recipe}
        results |= {"training": model_manifest["effective"], "timings": model_manifest["timings"]}
        results["precision"] = precision = possible(evaluating.evaluation_precision, device)
        knows = trained_on(data_dir) if model_manifest["inputs"]["data"] == data_manifest["digest"] else None
        with arithmetic(precision, device):
            measured = measure_splits(model, tokenizer, task, data_dir, splits, evaluating.robustness_rows, knows)
            if evaluating.predict_test:
                write_test_predictions(folder / TEST_PREDICTIONS, model, data_dir, tokenizer.pad_token_id, task)
        results |= {**measured.results, **baselines(task, data_dir, splits)}
        predicted, errors = measured.predicted, measured.errors
        pq.write_table(predicted, folder / PREDICTIONS, compression="zstd")
        if knows is not None:
            write_trained_on(folder / TRAINED_ON, knows)
        (folder / METRICS).write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
        (folder / ERRORS).write_text(json.dumps(errors, indent=1) + "\n")
        examples = answered(json.loads((data_dir / EXAMPLES).read_text()), model, tokenizer, task, data_dir, splits[0])
        (folder / EXAMPLES).write_text(json.dumps(examples, indent=1) + "\n")
        training = [json.loads(line) for line in (model_dir / TRAINING_LOG).read_text().splitlines()]
        plots = draw(task, results, predicted, training)
        write_figures(folder / FIGURES, plots)
        write_report(folder / REPORT, task, results, plots, examples, errors, model_manifest, data_manifest)
        write_summary(folder / SUMMARY, task, results, errors, model_manifest, data_manifest)
    for line in summary(results):
        print(line, flush=True)
    return artifact.manifest()


def plan(model_dir: Path, data_dir: Path, output_dir: Path, evaluating: Evaluating) -> Artifact:
    """What `evaluate` will write with these arguments; nothing slow is imported to say so."""
    model, data = read_manifest(model_dir, "train"), read_manifest(data_dir, "tokenize")
    inputs = {"model": model["digest"], "data": data["digest"]}
    origins = {"model": origin(model_dir, model), "data": origin(data_dir, data)}
    return Artifact(output_dir, "evaluate", vars(evaluating), inputs, origins, aside=ASIDE)


def flat(results: dict[str, Any]) -> dict[str, float]:
    """Every number of metrics.json by one name: score, score_low, score_high, SPLIT_METRIC and baseline_NAME."""
    low, high = results["interval"]
    numbers = {"score": results["score"], "score_low": low, "score_high": high}
    for split, result in results["splits"].items():
        numbers |= {f"{split}_{name}": value for name, value in result["metrics"].items()}
        noisy = result.get("robustness", {})
        numbers |= {f"{split}_{name.replace(' ', '_')}": value for name, value in noisy.items() if name != "clean"}
        numbers |= {f"{split}_{name}": result[name] for name in ("auc", "average_precision") if name in result}
        if "calibration" in result:
            numbers[f"{split}_ece"] = result["calibration"]["ece"]
        if "without" in result.get("also_in_training", {}):
            numbers[f"{split}_score_without_training_texts"] = result["also_in_training"]["without"]["score"]
    return numbers | {f"baseline_{name}": value for name, value in results["baselines"].items()}


def summary(results: dict[str, Any]) -> list[str]:
    """The result in a few lines of text."""
    lines = []
    for split, result in results["splits"].items():
        numbers = [f"{name} {value:.4f} ({_range(result['intervals'][name])})" for name, value in result["metrics"].items()]
        lines.append(f"{split} ({result['rows']} rows): {', '.join(numbers)}")
    return [*lines, *caveats(results), f"score {scored(results)}"]


def scored(results: dict[str, Any]) -> str:
    """The score, its interval, the baselines, and a word where it is of generated data."""
    rivals = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in results["baselines"].items())
    return f"{results['score']:.4f} ({_range(results['interval'])}; {rivals}){', generated data' * bool(results['generated'])}"


def _range(interval: list[float]) -> str:
    low, high = interval
    return f"95 % {low:.4f} to {high:.4f}"
