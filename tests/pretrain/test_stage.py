"""Pre-training: a model that adapt takes, the same whatever the ranks and the micro-batches, stopped or not."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_pretraining import SMALL, VARIANTS
from safetensors.torch import load_file
from support import ROOT
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from components.errors import UserError
from components.modeling.load import load_tokenizer
from components.pretrain.settings import RECIPE, check, settle_pretraining
from components.pretrain.stage import pretrain
from components.tokenize.stage import tokenize
from components.train.stage import train
from components.training import selection
from components.training.methods import METHODS

QUICK = {**SMALL, "num_updates": 4, "precision": "fp32"}


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="session")
def runs(corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Ranks -> a folder for each micro-batch size with a model of every variant. Made once."""
    folder = tmp_path_factory.mktemp("pretrained")

    def make(num_ranks: int) -> Path:
        if not (folder / str(num_ranks)).exists():
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"] if num_ranks > 1 else []
            sizes = ["40", "1000"] if num_ranks == 1 else ["40"]
            script = ROOT / "tests" / "training" / "run_pretraining.py"
            command = [sys.executable, *launcher, str(script), str(corpus_dir), str(folder / str(num_ranks)), *sizes]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
            assert done.returncode == 0, done.stderr
        return folder / str(num_ranks)

    return make


def assert_same_weights(folder: Path, reference: Path) -> None:
    for variant in VARIANTS:
        one, other = weights(reference / variant), weights(folder / variant)
        for name, weight in one.items():
            difference = (other[name] - weight).abs().max() / weight.abs().max().clamp(min=SMALL["learning_rate"])
            assert difference < 1e-6, f"{variant}: {name} differs by {difference:.1e}"


def test_micro_batches_change_nothing(runs: Callable[[int], Path]) -> None:
    assert_same_weights(runs(1) / "40", runs(1) / "1000")


@pytest.mark.parametrize("num_ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_change_nothing(runs: Callable[[int], Path], num_ranks: int) -> None:
    assert_same_weights(runs(num_ranks) / "40", runs(1) / "1000")


def test_the_variants_differ(runs: Callable[[int], Path]) -> None:
    bert, scala = (weights(runs(1) / "1000" / name) for name in ("bert", "scala"))
    assert any(not torch.equal(weight, scala[name]) for name, weight in bert.items())


def test_what_was_stopped_ends_with_the_same_bytes(corpus_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past an epoch, after which the masks are others."""
    given = {**QUICK, "num_updates": 6, "global_batch_size": 90, "dropout": 0.1}
    pretrain(corpus_dir=corpus_dir, output_dir=tmp_path / "whole", **given)
    assert lines(tmp_path / "whole")[-1]["epoch"] > 1
    real = selection.rows_of_update

    def sending(at: int, *others: int) -> torch.Tensor:
        if at == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(at, *others)

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="143"):
        patch.setattr(selection, "rows_of_update", sending)
        pretrain(corpus_dir=corpus_dir, output_dir=tmp_path / "m", **given)
    assert len(list((tmp_path / "m.checkpoint").iterdir())) == 1
    pretrain(corpus_dir=corpus_dir, output_dir=tmp_path / "m", **given)
    one, other = (tmp_path / name / "model.safetensors" for name in ("whole", "m"))
    assert one.read_bytes() == other.read_bytes()
    assert lines(tmp_path / "whole") == lines(tmp_path / "m")


@pytest.mark.parametrize("architecture", ["bert", "roberta-prelayernorm"])
def test_adapt_takes_the_model(corpus_dir: Path, tmp_path: Path, architecture: str) -> None:
    """With its own tokenizer, its body as it was pre-trained, and pairs of texts."""
    folder = tmp_path / "p"
    pretrain(corpus_dir=corpus_dir, output_dir=folder, **{**QUICK, "architecture": architecture, "sequence_length": 32})
    assert AutoTokenizer.from_pretrained(folder).model_max_length == 32
    loaded, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert all(name.startswith(("classifier", "bert.pooler")) for name in report["missing_keys"])
    name = f"{loaded.base_model_prefix}.embeddings.word_embeddings.weight"
    assert torch.equal(loaded.state_dict()[name], weights(folder)[name])
    tokenize(task="rte", source="sample", model=str(folder), max_length=32, num_sample_rows=40, output_dir=tmp_path / "d")
    train(data_dir=tmp_path / "d", model=str(folder), num_updates=2, output_dir=tmp_path / "m")
    with pytest.raises(UserError, match=r"max_length is 64, but .* takes at most 32 tokens"):
        tokenize(task="rte", source="sample", model=str(folder), max_length=64, output_dir=tmp_path / "longer")


@pytest.mark.parametrize("architecture", ["bert", "roberta-prelayernorm"])
def test_the_loss_is_transformers_own(corpus_dir: Path, tmp_path: Path, architecture: str) -> None:
    """The first update's, of the network before it, whose head computes all places there."""
    from components.training.sequences import read_sequences

    given = {**QUICK, "architecture": architecture, "num_updates": 1, "learning_rate": 1e-30}
    pretrain(corpus_dir=corpus_dir, output_dir=tmp_path / "p", **given)
    model: Any = AutoModelForMaskedLM.from_pretrained(tmp_path / "p").eval()
    sequences = read_sequences(corpus_dir, load_tokenizer(str(corpus_dir / "tokenizer")), 16, 0.15, False, 9, 0)
    batch = sequences.batch(selection.rows_of_update(0, len(sequences), 9, 0), 0, torch.device("cpu"))
    assert batch.places is not None
    labels = torch.full_like(batch.input_ids, -100).scatter_(1, batch.places, batch.labels)
    loss = model(input_ids=batch.input_ids, labels=labels).loss
    assert lines(tmp_path / "p")[0]["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)


def test_it_learns(corpus_dir: Path, tmp_path: Path) -> None:
    given = {**QUICK, "num_updates": 120, "learning_rate": 5e-3, "global_batch_size": 32}
    pretrain(corpus_dir=corpus_dir, output_dir=tmp_path / "p", **given)
    losses = [line["loss"] for line in lines(tmp_path / "p")]
    assert losses[0] == pytest.approx(math.log(200), abs=0.3)
    assert sum(losses[-10:]) / 10 < losses[0] - 1


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("plain", "scala")])
def test_every_method_takes_masked_lm(corpus_dir: Path, tmp_path: Path, method: str) -> None:
    """The same with other micro-batches."""
    folders = [tmp_path / str(size) for size in (40, 1000)]
    for folder in folders:
        given = {**SMALL, "num_updates": 3, "method": method, "micro_batch_tokens": int(folder.name)}
        pretrain(corpus_dir=corpus_dir, output_dir=folder, **given)
    one, other = (weights(folder) for folder in folders)
    assert all(torch.allclose(one[name], other[name], atol=1e-9) for name in one)


def test_training_goes_on_from_a_model_with_its_own_vocabulary(source: Path, corpus_dir: Path, tmp_path: Path) -> None:
    from components.corpus.stage import corpus

    pretrain(corpus_dir=corpus_dir, output_dir=tmp_path / "first", **QUICK)
    corpus(source=str(source), initial_model=str(tmp_path / "first"), output_dir=tmp_path / "c")
    assert (tmp_path / "c" / "tokens.bin").read_bytes() == (corpus_dir / "tokens.bin").read_bytes()
    shapeless = {name: value for name, value in QUICK.items() if name not in ("layers", "hidden", "heads", "intermediate")}
    given = {**shapeless, "initial_model": str(tmp_path / "first"), "num_updates": 1, "learning_rate": 1e-30, "weight_decay": 0}
    manifest = pretrain(corpus_dir=tmp_path / "c", output_dir=tmp_path / "second", **{**given, "sequence_length": 24})
    one, other = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert set(manifest["inputs"]) == {"corpus", "model"}
    with pytest.raises(UserError, match=r"sequence_length is 600, but .* takes at most 512 tokens"):
        pretrain(corpus_dir=tmp_path / "c", output_dir=tmp_path / "third", **{**given, "sequence_length": 600})
    with pytest.raises(UserError, match="was made with another vocabulary than that of tiny"):
        pretrain(corpus_dir=tmp_path / "c", output_dir=tmp_path / "third", **{**given, "initial_model": "tiny"})


# --- settings ---


def test_a_recipe_says_what_nobody_gives() -> None:
    wanted, settled = settle_pretraining({"layers": 4, "hidden": 256}, 10_000)
    assert (settled.training.recipe, settled.training.model) == (RECIPE, "")
    assert (settled.training.num_epochs, settled.training.global_batch_size, settled.training.dropout) == (1, 256, 0)
    assert wanted.shape == {"architecture": "bert", "layers": 4, "hidden": 256, "heads": 4, "intermediate": 1024}
    assert str(settled) == "recipe masked-lm (it is pre-training's)"
    assert settle_pretraining({"recipe": "scala", "hidden": 256}, 10_000)[1].training.method == "scala"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"architecture": "gpt2"}, "architecture is 'gpt2': give one of bert, roberta-prelayernorm"),
        ({"hidden": 100, "heads": 3}, "heads is 3, which does not divide hidden, 100"),
        ({"initial_model": "minilm", "layers": 3}, "layers and initial_model are both given"),
        ({"mask_probability": 0.0}, "mask_probability is 0.0: give above 0"),
        ({"sequence_length": 4}, "sequence_length is 4: give 8 or more"),
        ({"method": "sgd"}, "method is 'sgd'"),
    ],
)
def test_a_users_mistake_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(given)


def test_a_corpus_without_a_whole_sequence_is_refused(corpus_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fewer than one sequence: give more text"):
        pretrain(corpus_dir=corpus_dir, output_dir=tmp_path / "m", sequence_length=100_000)
