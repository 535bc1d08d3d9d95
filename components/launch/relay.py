"""The metrics of ranks that run elsewhere: from the node that writes them, through the store, to the step that logs them in
MLflow. What cannot be moved comes later, with the output.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.artifacts.names import TRAINING_LOG
from components.launch.repeated import repeated
from components.storage import transfer

SECONDS = 15.0
"""Between two looks."""


def place(output_uri: str) -> str:
    """Where they are kept while there is no output yet."""
    return f"{output_uri}.{TRAINING_LOG}"


@contextmanager
def published(output_dir: Path, output_uri: str) -> Iterator[None]:
    """Within the block, store the whole lines of the metrics that a rank of this node writes for `output_dir`."""
    last = ""

    def publish() -> None:
        nonlocal last
        for path in output_dir.parent.glob(f".{output_dir.name}.*.partial/{TRAINING_LOG}"):
            text = path.read_text()
            text = text[: text.rfind("\n") + 1]
            if text != last:
                transfer.write_text(place(output_uri), text)
                last = text

    with repeated(publish, SECONDS):
        yield


@contextmanager
def received(output_uri: str, output_dir: Path) -> Iterator[None]:
    """Within the block, have what is stored in a folder where components.tracking.runs looks for that of a rank."""
    folder = output_dir.with_name(f".{output_dir.name}.job.partial")
    folder.mkdir(parents=True, exist_ok=True)

    def receive() -> None:
        if text := transfer.read_text(place(output_uri)):
            (folder / TRAINING_LOG).write_text(text)

    try:
        with repeated(receive, SECONDS):
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
