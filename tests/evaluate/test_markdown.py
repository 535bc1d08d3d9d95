"""summary.md, through a real Markdown parser: whatever the texts hold, they are shown and change nothing."""

import dataclasses
import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from components.evaluate.markdown import escape, write_summary
from components.tasks.table import TASKS

HOSTILE = [
    "<script>alert(1)</script>",
    "a | b \\| c \\\\| d",
    "# no heading",
    "1. no list",
    "- no list",
    "*no* __emphasis__ ~~nor~~ `code`",
    "[no](http://link) ![nor](picture)",
    "&amp; stays &lt;",
    "two\n\nparagraphs",
    "```\nfence",
]


def rendered(markdown: str) -> str:
    return str(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))


def shown(html: str) -> str:
    return unescape(re.sub("<[^>]*>", "", html))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_shown_as_it_is(text: str) -> None:
    html = rendered(f"- is this: {escape(text)}")
    assert shown(html).strip() == f"is this: {' '.join(text.split())}"
    assert re.findall(r"<(\w+)", html) == ["ul", "li"]
    table = rendered(f"| a | b |\n| --- | --- |\n| {escape(text)} | c |")
    assert table.count("<td>") == 2
    assert shown(table.split("<td>")[1]).strip() == " ".join(text.split())


@pytest.mark.parametrize("task", ["sst2", "mnli", "stsb"])
def test_the_summary_says_what_metrics_json_says(evaluated: Callable[[str], Path], task: str) -> None:
    html = rendered((evaluated(task) / "summary.md").read_text())
    results = json.loads((evaluated(task) / "metrics.json").read_text())
    text = shown(html)
    low, high = results["interval"]
    assert f"Score {results['score']:.4f}, 95 % interval {low:.4f} to {high:.4f}" in text
    for result in results["splits"].values():
        for name, value in result["metrics"].items():
            assert re.search(rf"{name.replace('_', ' ')}\s+{value:.4f}", text)
        if "auc" in result:
            assert re.search(rf"area under ROC\s+{result['auc']:.4f}\s", text)
            assert re.search(rf"calibration error\s+{result['calibration']['ece']:.4f}\s", text)
        assert f"{result['robustness']['adversarial 0.2']:.4f}" in text
    assert ("area under ROC" in text) == (task != "stsb")
    errors = json.loads((evaluated(task) / "errors.json").read_text())
    assert errors[0]["text"] in text
    assert html.count("<table>") == 2


def test_hostile_labels_and_texts_leave_the_summary_in_one_piece(
    evaluated: Callable[[str], Path], trained: Callable[[str], Path], tokenized: Callable[[str], Path], tmp_path: Path
) -> None:
    task = dataclasses.replace(TASKS["sst2"], name="a | <b>")
    results = json.loads((evaluated("sst2") / "metrics.json").read_text())
    error = {"split": "validation", "label": "x | y", "prediction": "<i>", "probability": 0.9}
    errors = [{**error, "text": text} for text in HOSTILE]
    manifests = [json.loads((folder("sst2") / "manifest.json").read_text()) for folder in (trained, tokenized)]
    write_summary(tmp_path / "summary.md", task, results, errors, *manifests)
    html = rendered((tmp_path / "summary.md").read_text())
    assert set(re.findall(r"<(\w+)", html)) <= set("h1 h2 p strong table thead tbody tr th td ul li code".split())
    assert html.count("<h1>") == 1
    assert "a | <b>, fine-tuned from tiny" in shown(html)
    assert "is x | y, answered <i> with 0.900: <script>alert(1)</script>" in shown(html)
