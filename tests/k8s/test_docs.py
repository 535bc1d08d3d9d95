"""What docs/cluster.md tells people to type is there."""

import re

from manifests import K8S, OVERLAYS
from support import ROOT

from components.launch.namespace import CERTIFICATES, MOUNTS

TEXT = (ROOT / "docs" / "cluster.md").read_text()


def test_every_path_and_verb_is_there() -> None:
    for path in set(re.findall(r"\b((?:k8s|docker|pipelines|tests)/[\w./-]+\w)", TEXT)):
        assert (ROOT / path).exists(), path
    verbs = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = set(re.findall(r"\bmake ((?!NAME)[a-z-]+)\b(?= REGISTRY| TORCH|`|\n)", TEXT))
    assert {"images", "push", "compile", "mirror-list"} <= told <= verbs


def test_every_overlay_and_every_name_is_told_of() -> None:
    for name in (*(f"k8s/{overlay}" for overlay in OVERLAYS), CERTIFICATES, *MOUNTS):
        assert f"`{name}`" in TEXT
    wanted = set(re.findall(r"secret(?:Key)?Ref:\s+name: (\S+)", "".join(path.read_text() for path in K8S.rglob("*.yaml"))))
    assert wanted == {"adapt-s3", "adapt-mlflow-db"}
    for name in wanted:
        assert f"create secret generic {name}" in TEXT
