"""An image's Python, made once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from images import python_of


@pytest.fixture(scope="session")
def image_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Image -> a Python that has what the image has, and nothing else."""

    def make(image: str) -> Path:
        folder = tmp_path_factory.getbasetemp() / f"image-{image}"
        return folder / "bin" / "python" if folder.exists() else python_of(image, folder)

    return make
