"""Memory does not grow with the text."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import ROOT


def write_text(path: Path, num_words: int) -> None:
    """Words as in a language: the more text, the more rare ones."""
    random = np.random.default_rng(0)
    with path.open("w") as file:
        for _ in range(num_words // 50_000):
            numbers = random.zipf(1.3, 50_000) % 10**7
            words = [f"{chr(97 + number % 26)}{number:x}" for number in numbers]
            file.writelines(" ".join(words[start : start + 50]) + "\n" for start in range(0, len(words), 50))


@pytest.mark.slow
def test_ten_times_the_text_takes_no_more_than_a_hundred_megabytes_more(tmp_path: Path) -> None:
    peaks = []
    for times in (1, 10):
        write_text(tmp_path / f"{times}.txt", 400_000 * times)
        command = [sys.executable, "tests/corpus/run_memory.py", str(tmp_path / f"{times}.txt"), str(tmp_path / str(times))]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=900)
        peaks.append([float(line) for line in done.stdout.split()])
    assert (tmp_path / "10.txt").stat().st_size > 9 * (tmp_path / "1.txt").stat().st_size > 2 * 10**6
    assert all(later - earlier < 100 for earlier, later in zip(*peaks, strict=True)), peaks
