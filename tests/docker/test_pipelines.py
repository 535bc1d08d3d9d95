"""Whole pipelines, each step with the Python of the image that it is compiled for, through every branch there is."""

import csv
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from images import components, run_in
from servers import mlflow_server

from components.registry.versions import BEST, CHAMPION

PYTHON = """#!/bin/sh
case "$*" in
{cases}
*) echo "no component: $*" >&2; exit 1 ;;
esac
echo "$component" >>{log}
exec "$python" "$@"
"""
"""What kfp's local runner starts as Python: that of the component's image."""

START = "import sys; sys.executable = {python!r}; from pipelines import command, local; command.run(local.app)"
OF_CLUSTERS = {"clean_up", "doctor", "verdict"}
"""Components that speak to Kubernetes alone: their imports are checked in test_images.py, their work in their own tests."""
TRAIN = ["--num-epochs", 12, "--learning-rate", 3e-3, "--global-batch-size", 16, "--robustness-rows", 20]
OWN = ["--task", "moods", "--text-columns", "text", "--label-column", "mood", "--model", "tiny", "--name", "moods"]
WORDS = {"good": "glad", "fine": "glad", "nice": "glad", "bad": "sad", "poor": "sad", "grim": "sad"}


def write_rows(file: Path, count: int, seed: int, wrong: tuple[str, ...] = ()) -> None:
    """A row is of a mood as its one word is; those with the words `wrong`, of the other one."""
    draw = random.Random(seed)
    other = {"glad": "sad", "sad": "glad"}
    rows = []
    for row in range(count):
        word = draw.choice(list(WORDS))
        mood = WORDS[word]
        rows.append((f"{word} {seed} {row}", other[mood] if word in wrong else mood))
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("text", "mood"), *rows])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with mlflow_server(tmp_path / "mlflow") as uri:
        yield uri


@pytest.mark.slow
def test_every_branch_runs_in_the_images_of_its_steps(image_python: Callable[[str], Path], tmp_path: Path, server: str) -> None:
    log, python = tmp_path / "ran.log", tmp_path / "python3"
    pythons = {image: image_python(image) for image in ("stage", "train")}
    assert run_in(pythons["stage"], "-c", "import sklearn").returncode
    assert run_in(pythons["stage"], "-c", "import torch").returncode
    cases = [
        f"*'--function_to_execute {name}') component={name} python={pythons[image]} ;;"
        for name, (image, _) in {it.replace("-", "_"): of for it, of in components().items()}.items()
    ]
    python.write_text(PYTHON.format(cases="\n".join(cases), log=log))
    python.chmod(0o755)

    def ran(name: str, *arguments: object) -> tuple[str, Counter[str]]:
        """What the pipeline printed, and how often each component ran."""
        log.write_text("")
        code = START.format(python=str(python))
        done = run_in(
            Path(sys.executable),
            "-c",
            code,
            name,
            *arguments,
            "--runs-dir",
            tmp_path / "runs",
            timeout=900,
            MLFLOW_TRACKING_URI=server,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, Counter(log.read_text().split())

    def adapted(name: str, source: str, *arguments: object) -> tuple[str, Counter[str]]:
        return ran(name, *OWN, "--source", tmp_path / source, *TRAIN, *arguments)

    client = mlflow.MlflowClient(server)

    def aliases() -> dict[str, str]:
        return {str(alias): str(version) for alias, version in client.get_registered_model("moods").aliases.items()}

    for folder, wrong in (("first", ()), ("worse", ("fine", "grim")), ("grown", ())):
        write_rows(tmp_path / folder / "train.csv", 240, seed=1, wrong=wrong)
        write_rows(tmp_path / folder / "validation.csv", 300 if folder == "grown" else 150, seed=2)

    said, components_ran = adapted("adapt", "first")
    assert "may be champion: there is no champion yet" in said
    assert components_ran == Counter(["resolve", "tokenize", "train", "evaluate", "register", "promote"])
    assert aliases() == {"challenger": "1", CHAMPION: "1", BEST: "1"}

    said, components_ran = adapted("adapt", "first")
    assert re.findall(r"^  (\w+): cached, from", said, re.MULTILINE) == ["tokenize", "train", "evaluate"]
    assert components_ran == Counter(["resolve", "tokenize", "train", "evaluate", "register"])

    said, components_ran = adapted("adapt", "first", "--seed", 1)  # there is a champion, on the same rows
    assert components_ran["promote"] == 1
    assert aliases()[CHAMPION] == "2"

    said, components_ran = adapted("adapt", "worse")
    assert "worse" in said
    assert components_ran["promote"] == 0
    assert aliases() | {"challenger": ""} == {"challenger": "", CHAMPION: "2", BEST: aliases()[BEST]}
    assert client.get_model_version("moods", "3").tags["gate"] != "passed"

    # The champion answers the challenger's rows, which are others; and the data come in parts.
    said, components_ran = adapted("adapt-in-parts", "grown", "--seed", 2, "--num-parts", 2, "--champion-margin", 0.05)
    in_parts = ["plan_parts", "tokenize_part", "tokenize_part", "merge_parts"]
    assert components_ran == Counter(["resolve", *in_parts, "train", "evaluate", "register", "promote"]), said
    assert "on these validation rows anew" in said
    assert aliases()[CHAMPION] == "4"

    few = ["--source", "sample", "--num-sample-rows", 100, "--model", "tiny", "--num-epochs", 1, "--robustness-rows", 0]
    said, of_suite = ran("suite", "--tasks", "rte", "--seeds", 0, *few)
    assert {"runs", "suite"} < set(of_suite)
    everything = {name.replace("-", "_") for name in components()}
    assert everything == OF_CLUSTERS | set(components_ran) | set(of_suite) | {"tokenize"}
