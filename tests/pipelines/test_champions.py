"""A CSV that grows by a fifth each time, through the pipeline: who becomes champion, who is the best, what lineage says."""

import csv
import random
from pathlib import Path

import mlflow
import pytest
from support import run_module

OWN = ["--task", "reviews", "--text-columns", "text", "--label-column", "verdict", "--model", "tiny", "--robustness-rows", 0]
PLAIN = ["--recipe", "plain", "--global-batch-size", 32, "--dropout", 0, "--precision", "fp32", "--champion-margin", 0.05]
STRONG = ["--learning-rate", 3e-3, "--num-epochs", 6]
WEAK = [*STRONG, "--max-length", 8]  # which leaves the verdict in one of two texts
NAME = "glue-reviews"
GOOD, BAD = "good great fine lovely".split(), "bad poor weak awful".split()


def reviews(count: int) -> list[tuple[str, str]]:
    """The first so many of one endless list; in one of two the verdict comes first."""
    drawn = random.Random(0)
    rows = []
    for row in range(count):
        words = drawn.choices("plot cast script music ending dialogue".split(), k=3)
        verdict = drawn.choice((GOOD, BAD)[row % 2])
        rest = f"the {words[0]} and the {words[1]} of {row}"
        text = f"{verdict} {words[2]} : {rest}" if row % 4 < 2 else f"{rest} : {verdict} {words[2]}"
        rows.append((text, ("good", "bad")[row % 2]))
    return rows


def adapted(folder: Path, count: int, how: list[object]) -> str:
    """What the pipeline says of a training on so many rows."""
    source = folder / f"reviews-{count}.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "verdict"), *reviews(count)])
    where = ("--source", source, "--runs-dir", folder / "runs")
    done = run_module("pipelines.local", "adapt", *OWN, *PLAIN, *how, *where, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_is_trained_on_more_rows_is_compared_with_the_champion_on_its_own(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs/mlflow.db"

    def aliases() -> tuple[str, str]:
        mlflow.set_tracking_uri(store)
        client = mlflow.MlflowClient()
        champion, best = (str(client.get_model_version_by_alias(NAME, alias).version) for alias in ("champion", "best"))
        return champion, best

    assert "there is no champion yet" in adapted(tmp_path, 1000, WEAK)
    assert aliases() == ("1", "1")
    better = adapted(tmp_path, 1200, STRONG)
    assert "not worse than version 1 by 0.05 or more: difference +0." in better
    assert "on these validation rows anew" in better
    assert aliases() == ("2", "2")
    assert "not worse than version 2 by 0.05 or more" in adapted(tmp_path, 1440, [*STRONG, "--seed", 1])
    assert aliases() == ("3", "2")
    worse = adapted(tmp_path, 1728, WEAK)
    assert "shown to be worse than version 3" in worse
    assert "version 2, the best champion so far" in worse
    assert aliases() == ("3", "2")

    again = adapted(tmp_path, 1728, WEAK)
    assert f"models:/{NAME}/4" in again
    assert aliases() == ("3", "2")
    assert len(mlflow.MlflowClient().search_model_versions(f"name = '{NAME}'")) == 4
    for version in (1, 2, 3, 4):
        checked = run_module("components.lineage", "verify", f"models:/{NAME}/{version}", MLFLOW_TRACKING_URI=store)
        assert checked.returncode == 0, checked.stdout
