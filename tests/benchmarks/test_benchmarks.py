"""The benchmarks run from their command lines, resume, and add up their reference time rightly."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from adaptation import Bench, adaptation
from arms import ARMS, PROTOCOLS, QUICK
from reference import reference_seconds
from support import ROOT

from components.errors import UserError
from components.training.methods import build_method


def benchmark(name: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "MPLCONFIGDIR": "/tmp"})
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SST-2's schema, 600 rows."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "sst2").mkdir()
    sentences = [f"{'fine' if number % 2 else 'dull'} film number {number}" for number in range(600)]
    table = pa.table({"sentence": sentences, "label": [number % 2 for number in range(600)], "idx": list(range(600))})
    pq.write_table(table, folder / "sst2" / "train.parquet")
    return folder


def test_every_methods_cost_is_measured_beside_its_card(tmp_path: Path) -> None:
    sizes = ("--batch-size", 8, "--micro-batch-tokens", 100, "--rounds", 2)
    done = benchmark("methods", "--model", "tiny", "--output-dir", tmp_path, *sizes)
    written = json.loads((tmp_path / "methods.json").read_text())["methods"]
    assert written["plain"]["ratio"] == 1.0
    assert written["scala"]["model"] == pytest.approx(8 / 3)
    assert written["scala, mean over a run"]["model"] == pytest.approx(11 / 6)
    assert all(result["low"] <= result["ratio"] <= result["high"] for result in written.values())
    assert all(name in done.stdout for name in written)
    assert (tmp_path / "methods.png").stat().st_size > 1000


def test_what_dropped_layers_save_is_measured_beside_what_they_should(tmp_path: Path) -> None:
    sizes = ("--layers", 4, "--hidden", 64, "--vocabulary-size", 50, "--batch-size", 2, "--updates", 6, "--depth-keep", 0.1)
    done = benchmark("depth", "--output-dir", tmp_path, *sizes)
    written = json.loads((tmp_path / "depth.json").read_text())
    assert 0 < written["layers_computed"] < 4
    assert written["layers_share"] == pytest.approx(0.996, abs=1e-3)
    assert written["predicted"] == pytest.approx(written["layers_share"] * (1 - written["layers_computed"] / 4))
    assert written["measured"] > 0
    assert f"measured {100 * written['measured']:.1f} %" in done.stdout


@pytest.mark.slow
def test_adaptation_runs_every_arm_once_and_resumes(tmp_path: Path, source: Path) -> None:
    arguments = ("--source", source, "--output-dir", tmp_path, "--model", "tiny", "--quick")
    benchmark("adaptation", *arguments, "--arms", "adamw-small", "scala-lamb")
    records = sorted((tmp_path / "quick" / "runs").glob("*.json"))
    assert [record.name for record in records] == ["sst2-adamw-small-0.0001-0.json", "sst2-scala-lamb-0.0004-0.json"]
    before = [record.stat().st_mtime_ns for record in records]

    done = benchmark("adaptation", *arguments)
    assert [record.stat().st_mtime_ns for record in records] == before
    written = json.loads((tmp_path / "quick" / "adaptation-sst2.json").read_text())["arms"]
    assert list(written) == list(ARMS)
    for name, row in written.items():
        assert 0 <= row["low"] <= row["median"] <= row["high"] <= 1
        assert row["updates"] == round(ARMS[name].length * (16 if ARMS[name].small_batch else 4))
        assert row["examples"] == row["updates"] * (16 if ARMS[name].small_batch else 64)
        assert row["reference_seconds"] > 0
        assert row["label"] in done.stdout
    assert (tmp_path / "quick" / "adaptation-sst2.png").stat().st_size > 1000
    assert not list((tmp_path / "quick" / "runs").glob("*/"))  # no models are left


SMALL = ("--model", "tiny", "--rounds", 1)
"""Sizes that show nothing but that the benchmarks of speed work."""


@pytest.mark.slow
def test_tokenizing_is_compared(tmp_path: Path, source: Path) -> None:
    benchmark("tokenizing", *SMALL, "--output-dir", tmp_path, "--source", source, "--num-rows", 700)
    sides = json.loads((tmp_path / "tokenizing.json").read_text())["sides"]
    assert sides["ours"]["ours_over_it"] == 1.0
    assert sides["datasets.map, one process"]["ours_over_it"] > 0
    assert (tmp_path / "tokenizing.png").stat().st_size > 1000


def test_updates_are_timed_on_any_device(tmp_path: Path) -> None:
    benchmark("gpu", "--quick", "--no-compile", "--output-dir", tmp_path)
    cases = json.loads((tmp_path / "gpu.json").read_text())["cases"]
    assert cases["tiny, 128 tokens, batch 32, scala"]["cost"] > 1
    assert 0 < cases["tiny, 128 tokens, batch 32, plain"]["mfu"] < 1
    assert (tmp_path / "gpu.png").stat().st_size > 1000


@pytest.mark.slow
def test_throughput_is_compared(tmp_path: Path, source: Path) -> None:
    sizes = ("--batch-sizes", 2, "--num-examples", 4)
    done = benchmark("throughput", *SMALL, "--output-dir", tmp_path, "--source", source, *sizes)
    results = json.loads((tmp_path / "throughput.json").read_text())["batch_sizes"]["2"]
    assert results["ours"]["ours_over_it"] == 1.0
    assert 0 < results["ours"]["share_of_matrix_product"] < 1.5
    assert "Trainer, at its best" in done.stdout
    assert (tmp_path / "throughput.png").stat().st_size > 1000


@pytest.mark.slow
def test_ranks_and_rows_are_measured(tmp_path: Path, source: Path) -> None:
    sizes = ("--batch-size", 8, "--num-updates", 1, "--num-rows", 300, 900)
    benchmark("scaling", *SMALL, "--output-dir", tmp_path, "--source", source, *sizes)
    written = json.loads((tmp_path / "scaling.json").read_text())
    assert set(written["rows"]) == {"300", "900"}
    assert 0 <= written["imbalance"] < 1
    assert written["ranks"]["2 rank(s) x 1 thread"]["median"] > 0
    assert (tmp_path / "scaling.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_pipelines_overhead_is_measured(tmp_path: Path) -> None:
    benchmark("overhead", "--quick", "--output-dir", tmp_path)
    written = json.loads((tmp_path / "overhead.json").read_text())
    assert written["sides"]["pipeline again, cached"]["median"] < written["sides"]["pipeline"]["median"]
    assert written["stages"]["train"]["work"] < written["stages"]["train"]["median"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arms": ["adam"]}, "unknown arm 'adam'"),
        ({"tasks": ["cola"]}, "unknown task 'cola'"),
        ({"num_trials": 0}, "num_trials"),
    ],
)
def test_bad_input_is_refused(tmp_path: Path, source: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        adaptation(source=source, output_dir=tmp_path, **arguments)


def test_bad_input_is_one_line(tmp_path: Path, source: Path) -> None:
    done = benchmark("adaptation", "--source", source, "--output-dir", tmp_path, code=2)
    assert "has 600 training rows of sst2: too few" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_reference_time_is_the_sum_over_updates_and_passes() -> None:
    passes, step = {"forward": 1.0, "input_backward": 10.0, "backward": 100.0}, 1000.0
    settings = {"perturbation_start": 0.5}
    # 4 updates of 10, 10, 10 and 5 examples (35 rows); the last two are noisy: 3 forwards, 1 to the inputs, 2 backwards
    expected = 20 * 101 + 15 * (3 + 10 + 200) + 4 * 1000
    assert reference_seconds(build_method("scala", settings), passes, step, 4, 35, 10) == pytest.approx(expected)
    plain = reference_seconds(build_method("plain", settings), passes, step, 4, 35, 10)
    assert plain == pytest.approx(35 * 101 + 4 * 1000)


@pytest.mark.parametrize(("longer", "rival"), [("adamw-scala-time", "scala-adamw"), ("adamw-no-delay-time", "no-delay-adamw")])
def test_the_longer_arms_take_the_time_of_their_rivals(longer: str, rival: str) -> None:
    passes, protocol = {"forward": 1.0, "input_backward": 1.0, "backward": 2.0}, PROTOCOLS["sst2"]

    def seconds(name: str) -> float:
        method = ARMS[name].settled.method
        return reference_seconds(method, passes, 0.0, protocol.num_updates(ARMS[name]), protocol.num_rows, 1024)

    assert seconds(longer) == pytest.approx(seconds(rival), rel=0.01)


def test_every_control_takes_a_rate_that_is_tuned() -> None:
    for arm in ARMS.values():
        assert not arm.like or (not ARMS[arm.like].like and ARMS[arm.like].optimizer == arm.optimizer)
        assert not arm.settled.unused


def test_every_method_has_the_noise_of_scala_but_for_what_its_arm_is_about() -> None:
    known = {**vars(ARMS["scala-lamb"].settled.method), "perturbation_init": "normal", "perturbation_init_norm": 0.2}
    differ = {}
    for name, arm in ARMS.items():
        values = vars(arm.settled.method)
        differ[name] = {key.removeprefix("perturbation_"): value for key, value in values.items() if value != known[key]}
    assert {name: values for name, values in differ.items() if values} == {
        "no-delay": {"start": 0.0},
        "no-delay-adamw": {"start": 0.0},
        "two-steps": {"steps": 2},
        "three-steps": {"steps": 3},
        "random": {"step_size": 0.0},
        "dropout": {"radius": 0.0},
        "shared": {"dropout": "shared"},
        "label": {"divergence": "label"},
        "free": {"direction": "label"},
        "every-other": {"interval": 2},
        "half-batch": {"fraction": 0.5},
        "freelb": {"steps": 2},
        "pgd": {"init_norm": 0.1},  # which a normal start does not use
    }


def test_the_search_for_a_rate_goes_on_where_scores_rise(tmp_path: Path) -> None:
    bench = Bench("sst2", QUICK["sst2"], tmp_path, "tiny", [0, 1], num_trials=3)
    (tmp_path / "runs").mkdir()

    def finish(arm: str, rate: float, seed: int, score: float) -> None:
        bench.record(arm, rate, seed).write_text(json.dumps({"score": score}))

    assert bench.wanted(["adamw", "lamb", "random"]) == [("adamw", 1e-4, 0), ("lamb", 4e-4, 0)]
    finish("adamw", 1e-4, 0, 0.8)
    assert bench.wanted(["adamw", "lamb"]) == [("lamb", 4e-4, 0), ("adamw", 2e-4, 0)]
    finish("adamw", 2e-4, 0, 0.7)
    assert bench.wanted(["adamw"]) == [("adamw", 5e-5, 0)]
    finish("lamb", 4e-4, 0, 0.7)
    finish("lamb", 8e-4, 0, 0.8)
    assert bench.wanted(["lamb"]) == [("lamb", 16e-4, 0)]
    finish("adamw", 5e-5, 0, 0.9)
    assert bench.best_rate("adamw") == 5e-5
    assert bench.wanted(["adamw", "lamb"])[1:] == [("adamw", 5e-5, 1)]
