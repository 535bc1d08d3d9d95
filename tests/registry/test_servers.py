"""Over HTTP, with artifacts in S3: a real MLflow server and a real SeaweedFS."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import mlflow
import pytest
from servers import BUCKET, free_ports, mlflow_server, s3_server, server
from support import run_module, tracking_at

from components.artifacts.folders import Artifact, read_manifest
from components.lineage.tree import read_tree
from components.lineage.verify import verify_tree
from components.register.stage import register

AT_ONCE = 20


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture(scope="module")
def tracking_server(tmp_path_factory: pytest.TempPathFactory, s3: dict[str, str]) -> Iterator[str]:
    """A server that keeps artifacts in S3; clients need no keys."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), f"s3://{BUCKET}/mlflow", **s3) as uri, tracking_at(uri):
        mlflow.set_experiment("servers")
        yield uri


def objects(s3: dict[str, str], prefix: str) -> list[str]:
    keys = {"aws_access_key_id": s3["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": s3["AWS_SECRET_ACCESS_KEY"]}
    client = boto3.client("s3", endpoint_url=s3["AWS_ENDPOINT_URL"], region_name=s3["AWS_DEFAULT_REGION"], **keys)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


@pytest.mark.parametrize("way", ["through the server", "directly"])
def test_a_version_is_stored_in_s3_and_verified_from_there(
    tracking_server: str,
    s3: dict[str, str],
    trained: Callable[[str], Path],
    evaluated: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    prefix = "mlflow"
    if way == "directly":
        prefix = "direct"
        for name, value in s3.items():
            monkeypatch.setenv(name, value)
        experiment = mlflow.MlflowClient().create_experiment("direct", artifact_location=f"s3://{BUCKET}/{prefix}")
        monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", experiment)
    done = register(model_dir=trained("rte"), evaluation_dir=evaluated("rte"), name=f"over-http-{prefix}")
    keys = objects(s3, f"{prefix}/")
    assert any(key.endswith("/evaluation/predictions.parquet") for key in keys)
    assert any(key.endswith("/model.safetensors") for key in keys)
    assert {finding.state for finding in verify_tree(*read_tree(done["model_uri"]))} == {"same"}


@pytest.mark.slow
def test_a_pipeline_run_keeps_all_of_it_on_the_server(tracking_server: str, tmp_path: Path) -> None:
    arguments = ["adapt", "--task", "stsb", "--source", "sample", "--num-sample-rows", 120, "--model", "tiny"]
    more = ["--num-epochs", 1, "--robustness-rows", 10, "--tracking-uri", tracking_server, "--runs-dir", tmp_path]
    done = run_module("pipelines.local", *arguments, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "mlflow.db").exists()
    assert f"export MLFLOW_TRACKING_URI={tracking_server}" in done.stdout
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias("sample-stsb", "challenger")
    source = client.get_run(str(version.run_id))
    assert version.tags["kfp.pipeline_run_id"] == source.data.tags["kfp.pipeline_run_id"]
    files = {file.path for file in client.list_artifacts(str(version.run_id), "evaluation")}
    assert {"evaluation/report.html", "evaluation/summary.md", "evaluation/predictions.parquet"} <= files
    assert "card.md" in {file.path for file in client.list_artifacts(str(version.run_id))}
    _, tree = read_tree(f"models:/sample-stsb/{version.version}")
    assert [node.cached for node in tree.walk()] == [False] * len(list(tree.walk()))
    if version.tags["gate"] == "passed":
        assert client.get_model_version_by_alias("sample-stsb", "champion").version == version.version


@pytest.mark.slow
def test_twenty_at_once_leave_whole_versions_and_one_champion(
    tracking_server: str, trained: Callable[[str], Path], evaluated: Callable[[str], Path], tmp_path: Path
) -> None:
    def one(number: int) -> tuple[int, dict[str, str]]:
        """Ten contents, each twice."""
        target = tmp_path / str(number)
        manifest = read_manifest(evaluated("sst2"), "evaluate")
        with Artifact(target, "evaluate", {}, manifest["inputs"], manifest["origins"]).building() as folder:
            shutil.copytree(evaluated("sst2"), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
            results = json.loads((folder / "metrics.json").read_text())
            results["baselines"]["majority"] = 0.1 + number % (AT_ONCE // 2) / 1000
            (folder / "metrics.json").write_text(json.dumps(results))
        return number, register(
            model_dir=trained("sst2"), evaluation_dir=target, name="crowded", champion_margin=0.5, alias=f"run-{number}"
        )

    trained("sst2"), evaluated("sst2")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = dict(pool.map(one, range(AT_ONCE)))
    client = mlflow.MlflowClient()
    versions = {str(version.version): version for version in client.search_model_versions("name = 'crowded'")}
    digests = [version.tags["digest.registered"] for version in versions.values()]
    assert len(digests) == len(set(digests)) == AT_ONCE // 2
    for number, registered in done.items():
        version = versions[registered["version"]]
        assert str(client.get_model_version_by_alias("crowded", f"run-{number}").version) == registered["version"]
        manifest = json.loads((tmp_path / str(number) / "manifest.json").read_text())
        assert version.tags["digest.evaluation"] == manifest["digest"]
        full = client.get_model_version("crowded", version.version)
        assert full.status == "READY"
        assert full.tags["gate"] == "passed"
        assert "**Gate: " in str(full.description)
    champion = client.get_model_version_by_alias("crowded", "champion")
    assert str(champion.version) in versions


def test_the_champion_answers_raw_text_over_http(
    tracking_server: str, trained: Callable[[str], Path], variant: Callable[..., Path], tmp_path: Path
) -> None:
    register(model_dir=trained("sst2"), evaluation_dir=variant(45), name="served")
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/served@champion", "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # mlflow looks for uvicorn there
    with server([*command, "--host", "127.0.0.1", "--port", str(port)], f"http://127.0.0.1:{port}/ping", tmp_path,
                MLFLOW_TRACKING_URI=tracking_server, PATH=path):  # fmt: skip
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"inputs": ["the cast is dull .", "the plot is not dull ."]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answers = json.load(response)["predictions"]
    assert [set(answer) for answer in answers] == [{"label", "score", "probability_negative", "probability_positive"}] * 2
    assert all(answer["label"] in ("negative", "positive") for answer in answers)
    assert all(answer["probability_negative"] + answer["probability_positive"] == pytest.approx(1) for answer in answers)
    expected = mlflow.pyfunc.load_model("models:/served@champion").predict(["the cast is dull ."])
    assert answers[0]["score"] == pytest.approx(float(expected["score"][0]), abs=1e-5)
    log = (tmp_path / "server.log").read_text()
    assert not re.search("Traceback", log), log[-2000:]
    assert subprocess.run(["pgrep", "-f", f"port {port}"], capture_output=True).returncode == 1
