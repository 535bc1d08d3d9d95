"""Text to tokens: the same bytes every time, whole texts, words' beginnings, and a user's mistakes in a line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import ROOT, run_module
from transformers import AutoTokenizer

from components.corpus.stage import corpus
from components.corpus.texts import find_texts, lines_of, together
from components.corpus.vocabulary import SPECIAL, make_vocabulary
from components.errors import UserError
from components.modeling.load import load_tokenizer
from components.tasks.sample import words

LINES = ["The cat sat on the mat .", "", "  ", "A catalogue of cats , unbelievably long .", "Zoë's café was shut ."]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "train.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def read(folder: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    statistics = json.loads((folder / "statistics.json").read_text())
    tokens = np.fromfile(folder / "tokens.bin", statistics["token_type"])
    starts = np.unpackbits(np.fromfile(folder / "word_starts.bin", np.uint8), count=len(tokens)).astype(bool)
    return tokens, starts, statistics


def test_all_texts_lie_end_to_end_each_with_a_separator(source: Path, tmp_path: Path) -> None:
    corpus(source=str(source), vocabulary_size=100, output_dir=tmp_path / "c")
    tokens, _, statistics = read(tmp_path / "c")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "c" / "tokenizer")
    expected = [number for line in LINES if line.strip() for number in tokenizer(line)["input_ids"][1:]]
    assert tokens.tolist() == expected
    assert (statistics["num_texts"], statistics["num_tokens"], statistics["num_unknown"]) == (3, len(expected), 0)
    assert statistics["token_type"] == "uint16"


def test_a_word_begins_where_its_first_token_is(source: Path, tmp_path: Path) -> None:
    corpus(source=str(source), vocabulary="tiny", output_dir=tmp_path / "c")
    tokens, starts, _ = read(tmp_path / "c")
    names = load_tokenizer("tiny").convert_ids_to_tokens(tokens.tolist())
    assert [not name.startswith("##") for name in names] == starts.tolist()
    assert 0 < starts.sum() < len(starts)


def test_texts_are_the_same_from_every_kind_of_file(source: Path, tmp_path: Path) -> None:
    rows = [line for line in LINES if line.strip()]
    made = {"text": source}
    for name, column in (("one", "text"), ("two", "body")):
        made[name] = tmp_path / name / "data" / "train-00000-of-00001.parquet"
        made[name].parent.mkdir(parents=True)
        pq.write_table(pa.table({"id": range(4), column: [*rows, None]}), made[name])
    made["csv"] = tmp_path / "train.csv"
    made["csv"].write_text("text\n" + "".join(f'"{row}"\n' for row in rows))
    written = []
    for name, path in made.items():
        column = "body" if name == "two" else "text"
        place = path.parents[1] if name == "one" else path
        corpus(source=str(place), text_column=column, vocabulary="tiny", output_dir=tmp_path / "c" / name)
        written.append((tmp_path / "c" / name / "tokens.bin").read_bytes())
    assert len(set(written)) == 1
    assert written[0]


def test_a_folder_gives_its_training_split_or_else_all_its_texts(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text(f"text of {name}\n")
    assert list(find_texts(str(tmp_path), "text").files) == ["a.txt", "b.txt"]
    assert list(find_texts(str(tmp_path), "text")) == [["text of a.txt\n", "text of b.txt\n"]]
    (tmp_path / "validation.txt").write_text("held out\n")
    (tmp_path / "train.txt").write_text("learn\n")
    assert list(find_texts(str(tmp_path), "text").files) == ["train.txt"]


def test_text_is_read_some_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("x" * (2**18 + 5) + "\nshort")
    assert [len(line) for line in lines_of(path)] == [2**18, 6, 5]
    assert [len(some) for some in together(["a"] * 2300)] == [1000, 1000, 300]
    assert [len(some) for some in together(["a" * 2**19] * 5)] == [2, 2, 1]


# --- the vocabulary ---

TIED = [[" ".join(f"{first}{second}" for first in "abcdefgh" for second in "ijklmnop")] * 3]
"""Every pair occurs as often as every other."""
SHOW = "import sys, json; from components.corpus.vocabulary import make_vocabulary; "


def test_a_vocabulary_is_the_same_in_every_process_ties_included(tmp_path: Path) -> None:
    """With the library's own numbering it is another each time."""
    script = SHOW + "print(json.dumps(make_vocabulary(json.loads(sys.argv[1]), 70, True)))"
    made = {
        subprocess.run(
            [sys.executable, "-c", script, json.dumps(TIED)], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
        ).stdout
        for _ in range(3)
    }
    assert len(made) == 1
    tokens = json.loads(made.pop())
    assert tokens[:5] == list(SPECIAL)
    assert len(tokens) == len(set(tokens)) == 70
    assert tokens[-33:] == [f"{first}{second}" for first in "abcdefgh" for second in "ijklmnop"][:33]


def test_a_corpus_of_the_same_text_has_the_same_bytes(source: Path, tmp_path: Path) -> None:
    digests = {corpus(source=str(source), vocabulary_size=90, output_dir=tmp_path / name)["digest"] for name in "ab"}
    assert len(digests) == 1


def test_a_vocabulary_splits_no_word_that_is_frequent() -> None:
    text = [["the cats sat " * 20]]
    tokens = make_vocabulary(text, 100, True)
    assert {"the", "cats", "sat"} <= set(tokens)
    assert make_vocabulary([["The CATS sat"] * 20], 100, True) == make_vocabulary([["the cats sat"] * 20], 100, True)


def test_a_given_vocabulary_is_taken_as_it_is(source: Path, tmp_path: Path) -> None:
    tokens = [*SPECIAL, *words()]
    (tmp_path / "vocab.txt").write_text("\n".join(dict.fromkeys([*tokens, *"abcdefghijklmnopqrstuvwxyz.,'"])) + "\n")
    corpus(source=str(source), vocabulary=str(tmp_path / "vocab.txt"), output_dir=tmp_path / "c")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "c" / "tokenizer")
    assert tokenizer.convert_ids_to_tokens([0, 4, 5]) == ["[PAD]", "[MASK]", tokens[5]]
    assert read(tmp_path / "c")[2]["num_unknown"] > 0


# --- a user's mistakes ---


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": "hub"}, "source is 'hub', which is no text to pre-train on"),
        ({"source": "nowhere"}, "no source 'nowhere': give a text file"),
        ({"source": "{folder}/empty"}, "has no text: expected train.txt"),
        ({"source": "{folder}/t.parquet"}, "no column text; it has other"),
        ({"source": "{folder}/bad.txt", "vocabulary": "tiny"}, "bad.txt:2: not UTF-8"),
        ({"source": "{folder}/source.txt", "vocabulary_size": 66}, "vocabulary_size is 66, and the text's"),
        (
            {"source": "{folder}/source.txt", "vocabulary": "tiny", "initial_model": "tiny"},
            "vocabulary and initial_model are both given",
        ),
        ({"source": "{folder}/source.txt", "vocabulary": "{folder}/no.txt"}, "vocabulary {folder}/no.txt: no such file"),
        ({"source": "{folder}/source.txt", "vocabulary": "{folder}/source.txt"}, r"the vocabulary has no \[PAD\]"),
    ],
)
def test_a_users_mistake_is_one_line(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "source.txt").write_text(
        "".join(f"{character} words\n" for character in "abcdefghijklmnopqrstuvwxyz0123456789")
    )
    pq.write_table(pa.table({"other": ["a"]}), tmp_path / "t.parquet")
    (tmp_path / "bad.txt").write_bytes(b"good\n\xff\xfe\n")
    given = {name: value.format(folder=tmp_path) if isinstance(value, str) else value for name, value in given.items()}
    with pytest.raises(UserError, match=message.format(folder=tmp_path)):
        corpus(output_dir=tmp_path / "c", **given)
    assert not (tmp_path / "c").exists()


def test_the_command_says_what_it_made(source: Path, tmp_path: Path) -> None:
    arguments = ("--source", source, "--vocabulary-size", 90, "--output-dir", tmp_path / "c")
    done = run_module("components.corpus", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("corpus: 3 texts, ")
    assert "cached" in run_module("components.corpus", *arguments).stdout
