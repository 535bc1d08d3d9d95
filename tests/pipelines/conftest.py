from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubeflow_stub import Kubeflow

from pipelines.compile import compile_all
from pipelines.submit import app


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled pipelines and components, as `make compile` writes them."""
    folder = tmp_path_factory.mktemp("build")
    compile_all(output_dir=folder)
    return folder


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kubeflow]:
    for name in ("KF_PIPELINES_SA_TOKEN_PATH", "KF_PIPELINES_UI_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.setattr("pipelines.follow.POLL_SECONDS", 0.01)
    with Kubeflow().running() as there:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", there.endpoint)
        yield there


@pytest.fixture
def submit(kubeflow: Kubeflow, build: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The command, in this process, without compiling each time."""

    monkeypatch.setattr("pipelines.submit.compiled", lambda folder, **settings: build)

    def run(*arguments: str) -> None:
        app.meta(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")

    return run
