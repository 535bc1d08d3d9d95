"""What README and docs tell people to type works as it stands: every command is run, or is here with the reason why not."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import ROOT, heed_interrupts

PAGES = ("README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")))
LONG = "hours, or a network: the model hub"
CLUSTER = "a cluster, or a Kubeflow to talk to"
NOT_RUN = {
    "make test": "runs the tests, of which this is one",
    "make images": "builds with docker",
    "make push": "needs a registry",
    "make bench": "an hour",
    "make gpu": "needs a GPU; without one it says so",
    "kubectl ": CLUSTER,
    "kfp ": CLUSTER,
    "python -m components.doctor": CLUSTER,
    "python -m pipelines.submit": CLUSTER,
    "python pipelines/compile.py": "digests that `make push` prints; `make compile` runs it",
    ".venv/bin/python -m pipelines.local adapt --task sst2 --model roberta-base": LONG,
    ".venv/bin/python -m pipelines.local suite --tasks rte,cola,stsb,wnli --seeds 0,1 --source hub": LONG,
    "python -m pipelines.local suite --source hub": LONG,
}
"""How a command begins that is not run here -> why."""
SHOWN = {
    "score ": "how `make run` ends",
    "next, from this shell:": "how `make run` ends",
    "images:": "lines for a kustomization",
    "ok  ": "what the doctor prints",
    "min_theta": "a formula",
    "suite-2026": "a tree of runs",
}
"""How a block begins that nobody types -> what it is."""
PYTHON = "import "
UNTIL_CTRL_C = ("make serve", "make ui")
REFUSES = ("python -m components.promote",)
"""May end with exit code 2, as is told beside it."""
LEFT = {"runs", "build", "data", "model", "evaluation", "tree.html", "events.jsonl", "glue", "tickets.csv"}
"""All that the commands leave where they are typed."""


# --- what is told ---


def blocks(text: str) -> Iterator[str]:
    """The indented paragraphs of a page."""
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.splitlines()
        if lines and all(line.startswith("    ") for line in lines):
            yield "\n".join(line[4:] for line in lines)


def commands(block: str) -> list[str]:
    """The commands of a shell block, with their continued lines and here documents."""
    found: list[str] = []
    end = ""
    for line in block.splitlines():
        if end or (found and found[-1].endswith("\\")):
            found[-1] += f"\n{line}"
            end = "" if line == end else end
        else:
            found.append(line)
            end = "EOF" if line.endswith("<<EOF") else ""
    return found


def told() -> list[tuple[str, str]]:
    """(page, block), in the order of a reader."""
    return [(page, block.strip()) for page in PAGES for block in blocks((ROOT / page).read_text())]


def why_not(command: str, reasons: Mapping[str, str] = NOT_RUN) -> str:
    return next((why for beginning, why in reasons.items() if command.startswith(beginning)), "")


def runnable(block: str) -> list[str]:
    """What of a block is run."""
    if why_not(block, SHOWN):
        return []
    return [block] if block.startswith(PYTHON) else [command for command in commands(block) if not why_not(command)]


def test_blocks_and_commands_are_found() -> None:
    page = "text\n\n    one \\\n      more\n    cat <<EOF\n    a b\n    EOF\n    two\n\ntext\n    no block\n\n    three\n"
    assert list(blocks(page)) == ["one \\\n  more\ncat <<EOF\na b\nEOF\ntwo", "three"]
    assert commands("one \\\n  more\ncat <<EOF\na b\nEOF\ntwo") == ["one \\\n  more", "cat <<EOF\na b\nEOF", "two"]
    assert len(told()) > 30
    assert all("```" not in (ROOT / page).read_text() for page in PAGES)  # blocks are indented here, and found by that


def test_every_command_that_is_told_is_run_or_has_a_reason_not_to() -> None:
    known = re.compile(r"(\.venv/bin/)?(python|torchrun|mlflow) |make (run|serve|ui|compile|mirror-list)\b")
    unknown = [(page, it) for page, block in told() for it in runnable(block) if block[:7] != PYTHON and not known.match(it)]
    assert unknown == []
    placeholders = [
        it for _, block in told() for it in runnable(block) if re.search(r"\.\.\.|[<\[]|\b(NAMESPACE|BUCKET|VERSION)\b", it)
    ]
    assert [it for it in placeholders if not it.startswith(PYTHON)] == []
    verbs = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {verb for _, block in told() for verb in re.findall(r"^make ([a-z-]+)", block, re.MULTILINE)} <= verbs


def test_every_reason_is_of_something_that_is_told() -> None:
    everything = [it for _, block in told() for it in (block, *commands(block))]
    for beginning in (*NOT_RUN, *SHOWN):
        assert any(it.startswith(beginning) for it in everything), beginning


# --- that it works ---


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what a checkout has, set up, and a file of the reader's own."""
    folder = tmp_path / "checkout"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if not name.startswith("tests/") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        (folder / ".venv" / path.name).symlink_to(path)
    (folder / ".venv" / ".ready").unlink(missing_ok=True)
    (folder / ".venv" / ".ready").touch()
    with (folder / "tickets.csv").open("w", newline="") as file:
        rows = [
            (f"{word} {row}", f"since {row % 9} days", team)
            for row in range(100)
            for word, team in (("it breaks", "bugs"), ("please add", "wishes"))
        ]
        csv.writer(file).writerows([("subject", "body", "team"), *rows])
    return folder


def environment(checkout: Path) -> dict[str, str]:
    """A shell's that has never heard of MLflow."""
    known = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "MAKE")) and name != "PIPELINE_RUN_ID"
    }
    return known | {"PYTHONPATH": str(checkout), "PATH": f"{checkout}/.venv/bin{os.pathsep}{os.environ['PATH']}"}


def run(command: str, checkout: Path, python: bool = False) -> str:
    typed = ["python", "-c", command] if python else ["bash", "-c", command]
    print(f"$ {command}", flush=True)
    done = subprocess.run(typed, cwd=checkout, env=environment(checkout), capture_output=True, text=True, timeout=3600)
    assert done.returncode in ((0, 2) if command.startswith(REFUSES) else (0,)), f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


@contextmanager
def until_ctrl_c(command: str, checkout: Path, answers: str) -> Iterator[list[str]]:
    """Run it, as from a terminal, until the block ends. Yields the lines that it prints, once `answers` is among them."""
    print(f"$ {command}", flush=True)
    log = checkout.with_name("served.log")
    pipes = {"stdout": log.open("w"), "stderr": subprocess.STDOUT, "preexec_fn": heed_interrupts}
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=checkout,
        env=environment(checkout),
        start_new_session=True,
        **pipes,  # type: ignore[call-overload]
    ) as process:
        try:
            for _ in range(1200):
                if answers in (said := log.read_text()):
                    break
                assert process.poll() is None, said
                time.sleep(0.2)
            assert answers in said, said
            yield said.splitlines()
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)
    assert "Traceback" not in log.read_text()
    for _ in range(100):
        if not (alive := subprocess.run(["pgrep", "-f", str(checkout)], capture_output=True, text=True).stdout.split()):
            break
        time.sleep(0.1)
    assert alive == []


def served(command: str, checkout: Path) -> None:
    if command.startswith("make ui"):
        with until_ctrl_c(command, checkout, "Uvicorn running on"):
            assert "<title>MLflow</title>" in run("curl -s http://127.0.0.1:5000/", checkout)
        return
    with until_ctrl_c(command, checkout, "Uvicorn running on") as said:
        (first,) = (number for number, line in enumerate(said) if line.startswith("  curl "))
        answer = run("\n".join(said[first : first + 2]), checkout)
        assert re.match(r'\{"predictions": \[\{"label": "\w+", "score": 0\.\d+', answer), answer


def first_words(*texts: str) -> list[str]:
    return [line.split()[0] for text in texts for line in text.splitlines() if line.strip()]


@pytest.mark.slow
def test_what_is_told_works_as_it_stands(checkout: Path) -> None:
    before = {path.name for path in checkout.iterdir()}
    for _, block in told():
        for command in runnable(block):
            if command.startswith(UNTIL_CTRL_C):
                served(command, checkout)
                continue
            said = run(command, checkout, python=command.startswith(PYTHON))
            if command.startswith("make run"):
                shown = [block for _, block in told() if why_not(block, SHOWN) == SHOWN["score "]]
                assert first_words(said)[-len(first_words(*shown)) :] == first_words(*shown)
                following = re.findall(r"^  (.*)$", said.partition("\nnext, from this shell:\n")[2], re.MULTILINE)
                assert [it.partition("=")[0] for it in following] == ["make serve", "make ui", "export MLFLOW_TRACKING_URI"]
                for it in following[:2]:
                    served(it, checkout)
                lineage = run(
                    f"cd / && {following[2]} && python -m components.lineage show models:/sample-sst2@challenger", checkout
                )
                assert "sample-sst2" in lineage
    assert {path.name for path in checkout.iterdir()} - before | {"tickets.csv"} == LEFT
    assert {path.name for path in (checkout / "runs").iterdir() if not re.match("(adapt|suite)-", path.name)} == {
        "mlflow.db",
        "mlflow-artifacts",
        "cache",
    }
