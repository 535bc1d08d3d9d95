"""The report in a real browser: nothing goes wrong, nothing is fetched, and all of it can be read on a phone and at night."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from browser import CHROMIUM, Page, browsing

from components.evaluate.figures import draw, write_figures
from components.evaluate.report import write_report
from components.tasks.table import TASKS

PHONE, DESK = 390, 1280
FIGURES = {
    "sst2": ["Noise on the word embeddings", "ROC", "Precision and recall", "Calibration", "Confidence", "Training"],
    "mnli": ["Noise on the word embeddings", "ROC", "Precision and recall", "Calibration", "Confidence", "Training"],
    "stsb": ["Noise on the word embeddings", "Predicted against true score", "Training"],
}
HOSTILE = "<script>document.title = 'taken'</script> & <img src=x onerror=alert(1)>"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt install chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Page:
    browser.complaints.clear()
    browser.requested.clear()
    return browser


@pytest.fixture
def hostile(
    evaluated: Callable[[str], Path], trained: Callable[[str], Path], tokenized: Callable[[str], Path], tmp_path: Path
) -> Path:
    """The report on sst2, with labels, errors and examples that try to be more than text."""
    task = dataclasses.replace(TASKS["sst2"], name="<u>task", label_names=("<b>bad", "$good$ & </svg>" + "x" * 80))
    names = dict(zip(TASKS["sst2"].label_names, task.label_names, strict=True))
    results = json.loads((evaluated("sst2") / "metrics.json").read_text())
    for result in results["splits"].values():
        result["curves"] = {names[label]: curve for label, curve in result["curves"].items()}
        for slice in result["slices"]["label"]:
            slice["name"] = names[slice["name"]]
    error = {"split": "validation", "label": names["positive"], "prediction": names["negative"], "probability": 0.9}
    errors = [{**error, "text": text} for text in (HOSTILE, "unbroken" * 40)]
    examples = {"rows": [{"sentence": HOSTILE}], "answers": [{"label": names["negative"], "score": 0.5}]}
    training = [json.loads(line) for line in (trained("sst2") / "metrics.jsonl").read_text().splitlines()]
    manifests = [json.loads((folder("sst2") / "manifest.json").read_text()) for folder in (trained, tokenized)]
    plots = draw(task, results, pq.read_table(evaluated("sst2") / "predictions.parquet"), training)
    write_figures(tmp_path / "figures", plots)
    write_report(tmp_path / "report.html", task, results, plots, examples, errors, *manifests)
    return tmp_path


@pytest.mark.parametrize("task", FIGURES)
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_nothing_goes_wrong_and_nothing_is_fetched(page: Page, evaluated: Callable[[str], Path], task: str, width: int) -> None:
    report = evaluated(task) / "report.html"
    page.open(report, width)
    assert page.complaints == []
    assert page.requested == [report.as_uri()]
    assert page.value("performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("task", FIGURES)
def test_it_shows_the_score_every_metric_and_the_errors(page: Page, evaluated: Callable[[str], Path], task: str) -> None:
    page.open(evaluated(task) / "report.html", DESK)
    text = page.value("document.body.innerText")
    results = json.loads((evaluated(task) / "metrics.json").read_text())
    assert page.value("document.title") == f"{task}: {results['score']:.4f}"
    assert page.value("document.querySelector('.card.main b').innerText") == f"{results['score']:.4f}"
    for split, result in results["splits"].items():
        assert f"{split.replace('_', ' ')}, {result['rows']} rows" in text
        rows = page.value("[...document.querySelectorAll('tr')].map(row => [...row.cells].map(cell => cell.innerText))")
        for name, value in result["metrics"].items():
            low, high = result["intervals"][name]
            assert [name, f"{value:.4f}", f"{low:.4f} to {high:.4f}"] in rows
        if TASKS[task].label_names:
            assert ["area under ROC", f"{result['auc']:.4f}", ""] in rows
            for label, counts in zip(TASKS[task].label_names, result["confusion_matrix"], strict=True):
                assert [label, *map(str, counts)] in rows
    for error in json.loads((evaluated(task) / "errors.json").read_text()):
        assert error["text"] in text
    order = ["Metrics", "Worst errors", "Examples", "Under noise", "Figures", "Made from"]
    assert page.value("[...document.querySelectorAll('h2')].map(each => each.innerText)") == order
    manifest = json.loads((evaluated(task) / "manifest.json").read_text())
    assert all(digest in text for digest in manifest["inputs"].values())


@pytest.mark.parametrize("task", FIGURES)
def test_every_figure_is_drawn_with_its_title_and_axes(page: Page, evaluated: Callable[[str], Path], task: str) -> None:
    page.open(evaluated(task) / "report.html", PHONE)
    assert page.value("[...document.querySelectorAll('figcaption b')].map(each => each.innerText)") == FIGURES[task]
    sizes = page.value("[...document.querySelectorAll('svg')].map(each => each.getBoundingClientRect().toJSON())")
    assert len(sizes) == len(FIGURES[task])
    assert all(300 < size["width"] <= PHONE and size["height"] > 200 for size in sizes)
    labels = page.value("[...document.querySelectorAll('svg')].map(each => each.textContent)")
    assert "score" in labels[0]
    assert "adversarial" in labels[0]
    if TASKS[task].label_names:
        assert "false positive rate" in labels[1]
        assert "precision" in labels[2]
        assert all(f"{name}: AUC 0." in labels[1] for name in TASKS[task].label_names[-1:])
    files = [file.stem for file in (evaluated(task) / "figures").iterdir()]
    assert len(files) == len(FIGURES[task])
    smallest = "Math.min(...[...document.querySelectorAll('svg text')].map(each => each.getBoundingClientRect().height))"
    assert page.value(smallest) >= 9  # CSS pixels


@pytest.mark.parametrize("task", [*FIGURES, "hostile"])
def test_a_phone_scrolls_down_only(
    page: Page, evaluated: Callable[[str], Path], task: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue("hostile") if task == "hostile" else evaluated(task)
    page.open(folder / "report.html", PHONE)
    page.value("document.querySelector('details').open = true")
    assert page.value("innerWidth") == PHONE
    assert page.value("document.documentElement.scrollWidth") <= PHONE
    outside = "[...document.querySelectorAll('table')].filter(each => !each.closest('.wide')).length"
    assert page.value(outside) == 0


CONTRASTS = """(() => {
  const light = color => color.match(/[\\d.]+/g).slice(0, 3).map(each => each / 255)
    .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
  const page = light(getComputedStyle(document.documentElement).backgroundColor);
  const texts = [...document.querySelectorAll('body, body *')].filter(each => !each.closest('defs, style, metadata, title')
    && [...each.childNodes].some(node => node.nodeType == 3 && node.textContent.trim()));
  return {page, least: Math.min(...texts.map(each => {
    const style = getComputedStyle(each), text = light(each.closest('svg') ? style.fill : style.color);
    return (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05);
  }))};
})()"""
"""Relative luminance of the page, and the least contrast of a text with it (WCAG 2.1)."""


@pytest.mark.parametrize("task", FIGURES)
@pytest.mark.parametrize("dark", [False, True])
def test_all_text_figures_included_stands_out_by_day_and_by_night(
    page: Page, evaluated: Callable[[str], Path], task: str, dark: bool
) -> None:
    page.open(evaluated(task) / "report.html", PHONE, dark=dark)
    found = page.value(CONTRASTS)
    assert found["page"] < 0.02 if dark else found["page"] > 0.9
    assert found["least"] >= 4.5


def test_labels_and_texts_are_text_whatever_they_hold(page: Page, hostile: Path) -> None:
    page.open(hostile / "report.html", DESK)
    assert page.complaints == []
    assert page.requested == [(hostile / "report.html").as_uri()]
    text = page.value("document.body.innerText")
    assert text.count(HOSTILE) == 2  # among the errors, and among the examples
    assert page.value("document.title").startswith("<u>task: 0.")
    assert page.value("document.querySelectorAll('script, img, body u, th b').length") == 0
    assert "<b>bad" in text
    assert "$good$ & </svg>xxx" in page.value("document.querySelectorAll('svg')[1].textContent")


def test_a_figures_file_opens_by_itself_on_white(page: Page, hostile: Path) -> None:
    for file in sorted((hostile / "figures").iterdir()):
        page.requested.clear()
        page.open(file, PHONE, dark=True)
        assert page.complaints == []
        assert page.requested == [file.as_uri()]
        assert page.value("document.documentElement.tagName") == "svg"
        assert page.value("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        color = page.value("getComputedStyle(document.querySelector('text')).fill")
        assert color == "rgb(0, 0, 0)"
