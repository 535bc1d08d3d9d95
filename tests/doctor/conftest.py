"""The doctor's cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_stub import Cluster


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Where everything is well, and which this process's and its children's Kubernetes client talks to."""
    there = Cluster(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(there.config))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(there.config))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with there.running():
        yield there
    for process in there.pods.values():
        process.kill()
        process.wait()
