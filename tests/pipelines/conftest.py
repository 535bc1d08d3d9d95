from pathlib import Path

import pytest

from pipelines.compile import compile_all


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled pipelines and components, as `make compile` writes them."""
    folder = tmp_path_factory.mktemp("build")
    compile_all(output_dir=folder)
    return folder
