"""The images that components run in, and what a namespace mounts into them.

The images' names hold "python", which kfp's local runner looks for. compile.py puts others in their place, by digest:
`--image`, `--train-image`.
"""

import os
import re
import sys
from pathlib import Path

IMAGE = "localhost:5000/adapt-python-stage:0.1.0"
"""Without torch: resolve, tokenize, suite, clean_up, doctor."""

TRAIN_IMAGE = "localhost:5000/adapt-python-train:0.1.0"
"""With torch: train, evaluate, register, promote (it may have to ask the champion anew), and the pods of the training job."""

SETTINGS_DIR = Path("/etc/adapt")
"""A folder for each ConfigMap and Secret of the namespace that we know, a file for each of their keys."""

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def take_mounted_settings(folder: Path = SETTINGS_DIR) -> None:
    """Every file that has the name of an environment variable as that variable, unless there is one already."""
    for path in sorted(folder.glob("*/*")):
        if VARIABLE.fullmatch(path.name) and path.is_file():
            try:
                os.environ.setdefault(path.name, path.read_text().rstrip("\n"))
            except ValueError:  # no UTF-8, or a zero byte: nothing that a variable could be
                print(f"warning: {path} is no text, and no environment variable", file=sys.stderr, flush=True)
