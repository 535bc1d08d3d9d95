"""The table against metrics computed anew from the predictions, and the zip against what GLUE's server wants."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from sklearn import metrics

from components.errors import UserError
from components.evaluate.stage import evaluate
from components.suite.stage import flat, runs, suite
from components.suite.submission import WANTED, submitted, write_submission
from components.suite.table import AVERAGES
from components.tasks.published import PUBLISHED
from components.tasks.sample import generate
from components.tasks.table import TASKS
from components.tokenize.stage import tokenize
from components.train.stage import train

CHOSEN = ("cola", "stsb", "mnli", "qnli", "wnli")
SEEDS = (0, 1)
NAMES = {"mnli": {"entailment", "neutral", "contradiction"}, "qnli": {"entailment", "not_entailment"}}
FILES = {
    "CoLA.tsv": ("cola", "test"),
    "STS-B.tsv": ("stsb", "test"),
    "MNLI-m.tsv": ("mnli", "test_matched"),
    "MNLI-mm.tsv": ("mnli", "test_mismatched"),
    "AX.tsv": ("mnli", "test_ax"),
    "QNLI.tsv": ("qnli", "test"),
    "WNLI.tsv": ("wnli", "test"),
}


def measured(data: Path, folder: Path, seed: int) -> Path:
    """The evaluation of a tiny model that was trained on the data with the seed."""
    model, evaluation = folder / f"{data.name}-{seed}-model", folder / f"{data.name}-{seed}"
    train(data_dir=data, model="tiny", output_dir=model, num_epochs=1, learning_rate=1e-3, seed=seed)
    evaluate(model_dir=model, data_dir=data, output_dir=evaluation, robustness_rows=0)
    return evaluation


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Task -> tokenized files, as real data come."""
    raw, folder = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("written")
    for name in (*CHOSEN, "ax"):
        (raw / name).mkdir()
        for split, rows in generate(TASKS[name], 200, 0).items():
            texts, labels = zip(*rows, strict=True)
            columns = dict(zip(TASKS[name].text_columns, zip(*texts, strict=True), strict=True))
            pq.write_table(pa.table({**columns, "label": labels}), raw / name / f"{split}.parquet")

    def make(task: str) -> Path:
        tokenize(task=task, source=str(raw), model="tiny", output_dir=folder / task)
        return folder / task

    return make


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory, written: Callable[[str], Path]) -> Callable[[str, int], Path]:
    """Task, seed -> the evaluation of a tiny model that was trained with it."""
    folder = tmp_path_factory.mktemp("seeds")
    return lambda task, seed: measured(written(task), folder, seed)


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory, evaluations: Callable[[str, int], Path]) -> Path:
    folder = tmp_path_factory.mktemp("suite") / "glue"
    suite(evaluation_dirs=[evaluations(task, seed) for task in CHOSEN for seed in SEEDS], output_dir=folder)
    return folder


def score_of(task: str, evaluation: Path) -> float:
    """GLUE's score of a task, by the libraries alone."""
    predictions = pq.read_table(evaluation / "predictions.parquet").to_pandas()
    scores = []
    for _, rows in predictions.groupby("split", observed=True):
        if task == "cola":
            scores.append(metrics.matthews_corrcoef(rows["label"], rows["prediction"]))
        elif task == "stsb":
            correlations = (stats.pearsonr, stats.spearmanr)
            scores.append(np.mean([correlation(rows["label"], rows["prediction"])[0] for correlation in correlations]))
        else:
            scores.append((rows["label"] == rows["prediction"]).mean())
    return float(np.mean(scores))


def test_means_spreads_and_averages_are_those_of_the_predictions(glue: Path, evaluations: Callable[[str, int], Path]) -> None:
    table = json.loads((glue / "table.json").read_text())
    expected = np.array([[score_of(task, evaluations(task, seed)) for seed in SEEDS] for task in CHOSEN])
    for task, scores in zip(CHOSEN, expected, strict=True):
        row = table["tasks"][task]
        assert list(row["scores"].values()) == pytest.approx(scores)
        assert (row["mean"], row["sd"]) == pytest.approx((scores.mean(), scores.std(ddof=1)))
        assert (row["min"], row["max"]) == pytest.approx((scores.min(), scores.max()))
        assert row["best_seed"] == SEEDS[int(scores.argmax())]
    assert set(table["tasks"]["mnli"]["metrics"]) == {"accuracy matched", "accuracy mismatched"}
    every, most = table["averages"]["average"], table["averages"]["average without wnli"]
    assert (every["mean"], every["sd"]) == pytest.approx((expected.mean(), expected.mean(0).std(ddof=1)))
    assert most["mean"] == pytest.approx(expected[:-1].mean())
    assert table["missing"] == ["sst2", "mrpc", "qqp", "rte"]
    large = table["published"]["BERT-large"]
    assert set(large["averages"]) == {"average without wnli"}  # its paper has no WNLI
    assert large["averages"]["average without wnli"] == pytest.approx(np.mean([0.606, 0.900, 0.866, 0.923]))
    assert flat(table)["average_mean"] == every["mean"]


def test_the_table_reads_the_same_as_text_and_as_a_page(glue: Path) -> None:
    table = json.loads((glue / "table.json").read_text())
    text, page = (glue / "table.md").read_text(), (glue / "table.html").read_text()
    for shown in (*(f"{100 * row['mean']:.2f}" for row in table["tasks"].values()), "average without wnli", "RoBERTa-large"):
        assert shown in text
        assert shown in page
    assert "7 of the 11 files" in text
    assert "MRPC.tsv, QQP.tsv, RTE.tsv, SST-2.tsv" in text
    assert "CoLA.tsv 50 instead of 1063" in text
    assert "src=" not in page
    assert "http" not in page
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1  # aligned


def test_the_zip_has_glues_names_headers_and_labels(glue: Path, evaluations: Callable[[str, int], Path]) -> None:
    table = json.loads((glue / "table.json").read_text())
    with zipfile.ZipFile(glue / "submission.zip") as archive:
        assert archive.namelist() == sorted(FILES)
        for file, (task, split) in FILES.items():
            header, *lines = archive.read(file).decode().splitlines()
            assert header == "index\tprediction"
            indices, answers = zip(*(line.split("\t") for line in lines), strict=True)
            assert [int(index) for index in indices] == list(range(50))
            predictions = pq.read_table(evaluations(task, table["tasks"][task]["best_seed"]) / "test_predictions.parquet")
            rows = (
                predictions.to_pandas().loc[lambda table, split=split: table["split"] == split].sort_values("idx")["prediction"]
            )
            if task == "stsb":
                assert [float(answer) for answer in answers] == pytest.approx(rows.clip(0, 5), abs=6e-4)
                assert all(len(answer) == 5 for answer in answers)
            elif task in NAMES:
                assert set(answers) <= NAMES[task]
                assert [TASKS[task].label_names.index(answer) for answer in answers] == rows.tolist()
            else:
                assert set(answers) <= {"0", "1"}
                assert [int(answer) for answer in answers] == rows.tolist()


def test_the_server_wants_eleven_files() -> None:
    names = "CoLA SST-2 MRPC STS-B MNLI-m MNLI-mm QNLI QQP RTE WNLI AX"
    assert set(WANTED) == {f"{name}.tsv" for name in names.split()}
    assert len(AVERAGES["average"]) == 9


def test_scores_are_cut_to_the_range_and_rows_sorted() -> None:
    lines = submitted(TASKS["stsb"], np.array([2, 0, 1]), np.array([5.0004, -0.2, 3.14159]))
    assert lines == ["index\tprediction", "0\t0.000", "1\t3.142", "2\t5.000"]


def test_the_same_predictions_make_the_same_bytes(tmp_path: Path, evaluations: Callable[[str, int], Path]) -> None:
    predictions = {task: evaluations(task, 0) / "test_predictions.parquet" for task in ("stsb", "cola")}
    for name, order in (("a.zip", ("stsb", "cola")), ("b.zip", ("cola", "stsb"))):
        written = write_submission(tmp_path / name, {task: predictions[task] for task in order})
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert len(written["missing"]) == 9


def test_one_seed_has_no_spread(tmp_path: Path, evaluations: Callable[[str, int], Path]) -> None:
    suite(evaluation_dirs=[evaluations("cola", 1)], output_dir=tmp_path / "glue")
    row = json.loads((tmp_path / "glue" / "table.json").read_text())["tasks"]["cola"]
    assert row["sd"] is None
    assert row["best_seed"] == 1


def test_published_averages_are_those_that_were_published() -> None:
    """79.5 in DistilBERT's Table 1; 84.0 and 88.9 for these figures in ELECTRA (arXiv 2003.10555), Table 3."""
    for row, average in zip(PUBLISHED, (0.795, 0.840, 0.889), strict=True):
        assert np.mean(list(row.scores.values())) == pytest.approx(average, abs=6e-4)


def test_generated_data_stand_beside_nothing_published_and_make_no_submission(
    tmp_path: Path, tokenized: Callable[[str], Path], evaluations: Callable[[str, int], Path]
) -> None:
    generated = [measured(tokenized(task), tmp_path, 0) for task in ("cola", "wnli")]
    suite(evaluation_dirs=generated, output_dir=tmp_path / "glue")
    assert not (tmp_path / "glue" / "submission.zip").exists()
    table = json.loads((tmp_path / "glue" / "table.json").read_text())
    assert list(table["tasks"]) == ["sample-cola", "sample-wnli"]
    assert table["averages"]["average without wnli"]["tasks"] == ["sample-cola"]
    assert "sample-cola_mean" in flat(table)
    text, page = (tmp_path / "glue" / "table.md").read_text(), (tmp_path / "glue" / "table.html").read_text()
    assert text.startswith("# Generated data in the form of GLUE, fine-tuned from tiny")
    for shown in (text, page):
        assert re.search(r"sample generator \d+, seed 0", shown)
        assert not [row.name for row in PUBLISHED if row.name in shown]
        assert "submission" not in shown
    with pytest.raises(UserError, match=r"cola-0 is of generated data, .*wnli-0 is not") as refused:
        suite(evaluation_dirs=[evaluations("wnli", 0), generated[0]], output_dir=tmp_path / "both")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize(
    ("tasks", "seeds", "message"),
    [
        (["rte", "sst3"], [0], r"tasks has 'sst3'.*choose from cola, sst2"),
        (["ax"], [0], "tasks has 'ax'"),
        ([], [0], "tasks is empty: give at least one"),
        (["rte"], [], "seeds is empty: give at least one"),
        (["rte", "rte"], [0], "tasks has rte more than once"),
        (["rte"], [3, 4, 3], "seeds has 3 more than once"),
    ],
)
def test_what_cannot_be_run_is_refused(tasks: list[str], seeds: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        runs(tasks, seeds)


def test_evaluations_that_do_not_belong_together_are_refused(
    tmp_path: Path,
    evaluations: Callable[[str, int], Path],
    written: Callable[[str], Path],
) -> None:
    one = evaluations("cola", 0)
    with pytest.raises(UserError, match="second evaluation of cola-0"):
        suite(evaluation_dirs=[one, one], output_dir=tmp_path / "glue")
    with pytest.raises(UserError, match=r"written by components\.tokenize"):
        suite(evaluation_dirs=[written("cola")], output_dir=tmp_path / "glue")
    with pytest.raises(UserError, match="evaluation_dirs is empty"):
        suite(evaluation_dirs=[], output_dir=tmp_path / "glue")
    train(data_dir=written("cola"), model="tiny", output_dir=tmp_path / "pgd", method="pgd", num_updates=1, seed=1)
    evaluate(model_dir=tmp_path / "pgd", data_dir=written("cola"), output_dir=tmp_path / "other", robustness_rows=0)
    with pytest.raises(UserError, match="is of another method"):
        suite(evaluation_dirs=[one, tmp_path / "other"], output_dir=tmp_path / "glue")
    assert not (tmp_path / "glue").exists()
