import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_methods import NOISE
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, DistilBertConfig

from components.errors import UserError
from components.modeling import prepare
from components.modeling.compiled import compile_layers
from components.tokenize.stage import tokenize
from components.train.settings import default_batch_size
from components.train.stage import train
from components.training.methods import METHODS

QUICK: dict[str, Any] = {"model": "tiny", "num_epochs": 1, "learning_rate": 1e-3, "global_batch_size": 64}


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_writes_a_model_that_transformers_loads_with_its_label_names(trained: Callable[[str], Path]) -> None:
    folder = trained("mnli")
    config = AutoConfig.from_pretrained(folder)
    assert config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    assert config.problem_type == "single_label_classification"
    assert AutoTokenizer.from_pretrained(folder).model_max_length == 128
    assert (folder / "model.safetensors").is_file()
    assert not list(folder.glob("*.bin"))


def test_metrics_have_a_line_an_update_and_the_rate_ends_near_zero(tokenized: Callable[[str], Path], tmp_path: Path) -> None:
    arguments = {**QUICK, "global_batch_size": 0}
    train(data_dir=tokenized("sst2"), output_dir=tmp_path / "m", recipe="scala", **arguments)
    written = lines(tmp_path / "m")
    assert [line["update"] for line in written] == list(range(1, len(written) + 1))
    assert written[-1]["examples"] == 200
    assert written[-1]["epoch"] == 1.0
    assert 0 < written[-1]["learning_rate"] < 0.3 * max(line["learning_rate"] for line in written)
    assert written[0]["divergence"] == 0 < written[-1]["divergence"]  # the noise starts half way
    for line in written:
        assert line["loss"] == pytest.approx(line["task_loss"] + line["divergence"], rel=1e-5)


LEARNERS = [("plain", "adamw"), ("freelb", "adamw"), ("scala", "adamw"), ("plain", "lamb"), ("scala", "lamb")]
LEARNERS += [("plain", "sophia")]
SLOW_LEARNERS = [("plain", optimizer) for optimizer in ("lion", "muon", "soap", "schedule-free")]
RATES = {"adamw": 3e-3, "lamb": 3e-2, "lion": 1e-3, "sophia": 1e-3, "muon": 3e-3, "soap": 3e-3, "schedule-free": 3e-3}


@pytest.mark.parametrize(
    ("method", "optimizer"), [*LEARNERS, *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW_LEARNERS)]
)
def test_it_learns(tokenized: Callable[[str], Path], tmp_path: Path, method: Any, optimizer: Any) -> None:
    arguments = {**QUICK, "num_epochs": 25, "global_batch_size": 32, "learning_rate": RATES[optimizer], "dropout": 0.0}
    arguments |= {"perturbation_step_size": 0.01, "perturbation_radius": 0.02}  # an untrained model's embeddings are small
    train(data_dir=tokenized("sst2"), output_dir=tmp_path / "m", method=method, optimizer=optimizer, **arguments)
    losses = [line["loss"] for line in lines(tmp_path / "m")]
    assert losses[0] == pytest.approx(0.69, abs=0.02)
    assert sum(losses[-10:]) / 10 < 0.55


def test_scores_are_learnt_as_a_regression(trained: Callable[[str], Path]) -> None:
    config = AutoConfig.from_pretrained(trained("stsb"))
    assert (config.problem_type, config.num_labels) == ("regression", 1)


def test_the_same_command_gives_the_same_bytes(tokenized: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(data_dir=tokenized("sst2"), output_dir=tmp_path / name, method="scala", perturbation_start=0.0, **QUICK)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("method", ["plain", "scala"])
def test_the_micro_batch_changes_little_in_fp32(tokenized: Callable[[str], Path], tmp_path: Path, method: Any) -> None:
    for size in (20, 1000):
        train(
            data_dir=tokenized("sst2"), output_dir=tmp_path / str(size), method=method, dropout=0.0, micro_batch_tokens=size,
            perturbation_start=0.0, precision="fp32", **QUICK,
        )  # fmt: skip
    one, two = (lines(tmp_path / name) for name in ("20", "1000"))
    assert [line["loss"] for line in one] == pytest.approx([line["loss"] for line in two], rel=1e-5)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("20", "1000")]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_stays_close_to_fp32(
    tokenized: Callable[[str], Path], tmp_path: Path, precision: Any, method: Any
) -> None:
    for name in (precision, "fp32"):
        train(
            data_dir=tokenized("rte"), output_dir=tmp_path / name, dropout=0.0, precision=name, method=method,
            perturbation_start=0.0, **NOISE, **QUICK,
        )  # fmt: skip
    low, full = (lines(tmp_path / name) for name in (precision, "fp32"))
    assert [line["loss"] for line in low] == pytest.approx([line["loss"] for line in full], abs=0.02)
    assert [line["loss"] for line in low] != [line["loss"] for line in full]
    assert all("skipped" not in line and "gradient_norm" in line for line in low)


def test_an_overflow_of_fp16_skips_the_update_and_lowers_the_scale(
    tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.amp.GradScaler.__init__, "__defaults__", ("cuda", 2.0**32, 2.0, 0.5, 2000, True))
    train(
        data_dir=tokenized("rte"), output_dir=tmp_path / "m", precision="fp16", method="plain", optimizer="lamb",
        **{**QUICK, "num_epochs": 8},
    )  # fmt: skip
    written = lines(tmp_path / "m")
    skipped = [line["update"] for line in written if "skipped" in line]
    assert skipped[:5] == [1, 2, 3, 4, 5]  # until the scale fits
    assert len(skipped) < len(written) - 10
    assert all(("skipped" in line) != ("gradient_norm" in line) for line in written)
    assert all(line["loss"] == pytest.approx(0.7, abs=0.05) for line in written)


def test_fp16_that_only_overflows_stops(
    tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.amp.GradScaler.__init__, "__defaults__", ("cuda", 2.0**100, 2.0, 0.999, 2000, True))
    with pytest.raises(UserError, match=r"update 20 \(plain\): the gradient overflowed fp16 20 updates in a row"):
        train(
            data_dir=tokenized("rte"), output_dir=tmp_path / "m", precision="fp16", method="plain",
            **{**QUICK, "num_epochs": 8},
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["plain", "scala", "freelb"])
def test_what_is_not_finite_is_named_with_its_update_and_method(
    tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    """From update 3 on the labels' losses are infinite: a broken example, say."""
    calls = []
    real = torch.nn.functional.cross_entropy

    def breaking(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        return real(*arguments, **options) / (0.0 if len(calls) > 2 * (2 if method == "freelb" else 1) else 1.0)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", breaking)
    what = "loss is inf, task_loss is inf" if method == "scala" else "loss is inf"
    with pytest.raises(UserError, match=rf"update 3 \({method}\): {what}.*lower learning_rate"):
        train(
            data_dir=tokenized("sst2"), output_dir=tmp_path / "m", method=method, micro_batch_tokens=10_000,
            perturbation_steps=2, perturbation_start=1.0, **QUICK,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "peak_at"),
    [
        ({"num_updates": 8, "warmup_updates": 4}, 5),
        ({"num_updates": 8, "warmup_epochs": 0.5}, 3),
        ({"num_updates": 8, "warmup_ratio": 0.5}, 5),
        ({"num_epochs": 2, "warmup_ratio": 0.0}, 1),
    ],
)
def test_length_and_warm_up_in_updates_or_epochs(
    tokenized: Callable[[str], Path], tmp_path: Path, arguments: dict[str, Any], peak_at: int
) -> None:
    train(
        data_dir=tokenized("sst2"), output_dir=tmp_path / "m", method="plain",
        base_batch_size=16, learning_rate_scaling="linear", **{**QUICK, **arguments},
    )  # fmt: skip
    written = lines(tmp_path / "m")
    assert len(written) == 8  # 4 updates of 64 an epoch
    rates = [line["learning_rate"] for line in written]
    assert rates.index(max(rates)) + 1 == peak_at
    assert max(rates) == pytest.approx(4e-3)  # 1e-3 at 16, linearly to 64


def test_trust_ratios_are_logged(tokenized: Callable[[str], Path], tmp_path: Path) -> None:
    train(data_dir=tokenized("sst2"), output_dir=tmp_path / "m", method="plain", optimizer="lamb", **QUICK)
    for line in lines(tmp_path / "m"):
        assert 0 < line["trust_ratio_min"] <= line["trust_ratio_median"] <= line["trust_ratio_max"] < 2


def test_a_second_call_is_cached(trained: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained("sst2")
    capsys.readouterr()
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert trained("sst2") == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    assert "cached" in capsys.readouterr().out


def test_the_default_batch_leaves_sixty_updates_an_epoch() -> None:
    assert [default_batch_size(rows) for rows in (635, 2490, 5749, 8551, 67349, 392702)] == [32, 32, 64, 128, 1024, 1024]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_epochs": -1}, "num_epochs is -1"),
        ({"global_batch_size": -1}, "global_batch_size is -1"),
        ({"micro_batch_tokens": -1}, "micro_batch_tokens is -1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"warmup_ratio": 2.0}, "warmup_ratio is 2.0"),
        ({"warmup_updates": 9}, "the warm-up takes 9 updates, the whole run has 4"),
        ({"warmup_epochs": -1.0}, "warmup_epochs is -1.0"),
        ({"num_updates": -1}, "num_updates is -1"),
        ({"base_batch_size": -1}, "base_batch_size is -1"),
        ({"method": "sgd"}, "method is 'sgd': give one of plain, scala"),
        ({"perturbation_norm": "l1"}, "perturbation_norm is 'l1': give one of l2, linf"),
        ({"seed": -1}, "seed is -1"),
        ({"perturbation_radius": -1.0}, "perturbation_radius is -1.0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        (
            {"method": "scala", "learning_rate": 1e30, "max_grad_norm": 0.0, "warmup_ratio": 0.0},
            r"update 2 \(scala\): loss is .*lower learning_rate",
        ),
        ({"model": "/absent/model"}, "cannot load model '/absent/model'"),
    ],
)
def test_bad_arguments_are_one_line_and_leave_nothing(
    tokenized: Callable[[str], Path], tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(data_dir=tokenized("sst2"), output_dir=tmp_path / "m", **{**QUICK, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_other_tokens_than_the_data_is_refused(tokenized: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was tokenized for tiny, whose tokens minilm does not share"):
        train(data_dir=tokenized("sst2"), output_dir=tmp_path / "m", **{**QUICK, "model": "minilm"})


def test_data_without_a_train_split_is_refused(tmp_path: Path) -> None:
    tokenize(task="ax", source="sample", model="tiny", output_dir=tmp_path / "ax", num_sample_rows=20)
    with pytest.raises(UserError, match="no train split"):
        train(data_dir=tmp_path / "ax", output_dir=tmp_path / "m", **QUICK)


def test_a_model_folder_without_tokenizer_is_refused(trained: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(trained("sst2"), tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(UserError, match="has no tokenizer"):
        tokenize(task="sst2", source="sample", model=str(tmp_path / "model"), output_dir=tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_checkpoint_without_its_body_is_refused(
    trained: Callable[[str], Path], tokenized: Callable[[str], Path], tmp_path: Path
) -> None:
    """transformers would make the missing layers up, and training would go on from noise."""
    shutil.copytree(trained("sst2"), tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if ".layer.1." not in name}
    save_file(kept, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"has no weights for 16 tensors of its bert body, such as bert\.encoder\.layer\.1\."):
        train(data_dir=tokenized("sst2"), output_dir=tmp_path / "m", **{**QUICK, "model": str(tmp_path / "model")})
    assert not (tmp_path / "m").exists()


def test_a_trained_folder_can_be_trained_further(trained: Callable[[str], Path], tmp_path: Path) -> None:
    """Intermediate-task training: from a three-way head to a two-way one, with the tokenizer that came along."""
    model = str(trained("mnli"))
    tokenize(task="rte", source="sample", model=model, output_dir=tmp_path / "d", num_sample_rows=40)
    train(data_dir=tmp_path / "d", output_dir=tmp_path / "m", **{**QUICK, "model": model})
    assert AutoConfig.from_pretrained(tmp_path / "m").num_labels == 2


@pytest.mark.parametrize("method", list(METHODS))
def test_what_makes_it_fast_leaves_the_loss_curve_where_it_was(
    tokenized: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any
) -> None:
    """Against the model as transformers has it: padded, with dense gradients, the batch in one piece."""
    settings = {**QUICK, "data_dir": tokenized("rte"), "method": method, "dropout": 0.0, "precision": "fp32"}
    settings |= {**NOISE, "perturbation_start": 0.0}
    train(**settings, output_dir=tmp_path / "fast", micro_batch_tokens=300)
    monkeypatch.setattr(prepare, "prepare_model", lambda model, device, depth: model.to(device).train())
    train(**settings, output_dir=tmp_path / "slow", micro_batch_tokens=100_000)
    for fast, slow in zip(lines(tmp_path / "fast"), lines(tmp_path / "slow"), strict=True):
        assert fast["loss"] == pytest.approx(slow["loss"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", list(METHODS))
def test_compiled_layers_train_as_they_are(tokenized: Callable[[str], Path], tmp_path: Path, method: Any) -> None:
    losses = []
    for compile in (False, True):
        train(
            data_dir=tokenized("rte"), model="tiny", output_dir=tmp_path / str(compile), method=method, compile=compile,
            dropout=0.0, num_epochs=1, learning_rate=1e-3, global_batch_size=64, micro_batch_tokens=300,
            precision="fp32", **NOISE,
        )  # fmt: skip
        losses.append([line["loss"] for line in lines(tmp_path / str(compile))])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_only_packed_models_are_compiled() -> None:
    network = AutoModelForSequenceClassification.from_config(DistilBertConfig(vocab_size=9, dim=8, hidden_dim=8, n_heads=2))
    with pytest.raises(UserError, match="compile: distilbert is not one of bert"):
        compile_layers(network)
