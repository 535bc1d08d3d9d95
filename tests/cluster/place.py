"""A real cluster: how the tests reach it, and what they need there that is not there yet."""

import base64
import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from components.errors import StageError
from components.launch.api import PODS, WORKFLOWS, Api, ApiError, Object, Patience
from components.launch.api import connect as connect_to_kubernetes
from components.launch.job import RUN_LABEL, label_value
from components.launch.jobs import PATHS, POD_LABEL
from components.launch.namespace import CONFIG, MLFLOW, S3
from components.parameters import JobKind
from pipelines.follow import ENDED
from pipelines.kubeflow import Kubeflow
from pipelines.kubeflow import connect as connect_to_kubeflow

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build/test-cluster"
OWN = "adapt-test"
"""Namespace of the store and of MLflow, where the cluster has none for us."""
CONFIG_MAPS, SECRETS = ("/api/v1/namespaces/{namespace}/" + kind for kind in ("configmaps", "secrets"))
ACCOUNTS = {False: "pipeline-runner", True: "default-editor"}
IDS = re.compile(r"#/runs/details/(\S+)")
Found = TypeVar("Found")


class NotHere(Exception):  # noqa: N818  not an error
    """This cluster has not what a scenario is about."""


@dataclass
class Ended:
    """A run that was waited for."""

    code: int
    said: str
    run_id: str
    seconds: float


@dataclass
class Place:
    """A cluster with all that is needed. `name`: of this test's models and its MLflow experiment."""

    api: Api
    kubeflow: Kubeflow
    endpoint: str
    image: str
    train_image: str
    until: float
    name: str = field(default_factory=lambda: f"test-cluster-{secrets.token_hex(3)}")
    mlflow: Any = None

    @property
    def account(self) -> str:
        return ACCOUNTS[bool(self.kubeflow.namespace)]

    # --- runs ---

    def submit(self, *arguments: str, seconds: float = 900.0) -> Ended:
        """`pipelines.submit ... --wait`, as a user types it."""
        began = time.monotonic()
        left = min(seconds, max(1.0, self.until - began))
        try:
            done = subprocess.run(self.command(*arguments, "--wait"), cwd=ROOT, capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"").decode()
            for run_id in IDS.findall(said):  # it would take the cores from what comes next
                with contextlib.suppress(StageError):
                    self.terminate(run_id)
            raise AssertionError(f"not done after {left:.0f} s: {said.strip().splitlines()[-1:]}") from None
        return Ended(done.returncode, done.stdout + done.stderr, id_in(done.stdout), time.monotonic() - began)

    def start(self, *arguments: str) -> str:
        """The same without waiting. The run's id."""
        done = subprocess.run(self.command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return id_in(done.stdout)

    def command(self, *arguments: str) -> list[str]:
        where = ["--endpoint", self.endpoint, "--image", self.image, "--train-image", self.train_image]
        where += ["--namespace", self.api.namespace, "--experiment-name", "adapt-test-cluster", "--max-parallel", "3"]
        return [sys.executable, "-m", "pipelines.submit", *where, *arguments]

    def run(self, run_id: str) -> Object:
        return self.kubeflow.get(f"/apis/v2beta1/runs/{run_id}", view="FULL")

    def terminate(self, run_id: str) -> None:
        with self.kubeflow.answering():
            self.kubeflow._api.call_api(
                f"/apis/v2beta1/runs/{run_id}:terminate", "POST", auth_settings=["Bearer"], response_type="object"
            )

    def has_ended(self, run_id: str, stage: str) -> bool:
        """Whether a stage has ended well.

        Raises:
            AssertionError: the run has ended, and it has not.
        """
        run = self.run(run_id)
        tasks = (run.get("run_details") or {}).get("task_details") or []
        if any(task.get("display_name") == stage and task.get("state") == "SUCCEEDED" for task in tasks):
            return True
        assert run.get("state") not in ENDED, f"the run has ended before {stage} was done: {run.get('state')}"
        return False  # what failed may be tried again

    def workflow_bytes(self, run_id: str) -> int:
        """Of the run's Workflow object, as Kubernetes keeps it."""
        found = self.api.request("GET", WORKFLOWS, query={"labelSelector": f"pipeline/runid={run_id}"})["items"]
        return len(json.dumps(found[0], separators=(",", ":"))) if found else 0

    # --- what it has in Kubernetes ---

    def has(self, kind: JobKind) -> bool:
        """Whether there are PyTorchJobs, or TrainJobs."""
        group_version, _, resource = PATHS[kind].partition("/namespaces/{namespace}/")
        return self.serves(group_version, resource)

    def serves(self, path: str, resource: str) -> bool:
        try:
            return any(it["name"] == resource for it in self.api.request("GET", path)["resources"])
        except ApiError as error:
            if error.status != 404:
                raise
            return False

    def jobs(self, run_id: str = "") -> list[Object]:
        """Training jobs, of a run or of all."""
        query = {"labelSelector": f"{RUN_LABEL}={label_value(run_id)}" if run_id else RUN_LABEL}
        return [
            {**job, "kind": kind}  # by which PATHS and POD_LABEL know it
            for kind, path in PATHS.items()
            if self.has(kind)
            for job in self.api.request("GET", path, query=query)["items"]
        ]

    def ranks(self, run_id: str) -> list[Object]:
        """The pods of its training job."""
        found: list[Object] = []
        for job in self.jobs(run_id):
            selector = f"{POD_LABEL[job['kind']]}={job['metadata']['name']}"
            found += self.api.request("GET", PODS, query={"labelSelector": selector})["items"]
        return found

    def training(self, run_id: str, seconds: float = 420.0, more_seconds: float = 0.0) -> list[Object]:
        """The ranks, once one of them has told of an update, and some seconds later, in which checkpoints are written."""

        def look() -> list[Object] | None:
            assert not self.has_ended(run_id, "train"), "train has ended already"
            ranks = [pod for pod in self.ranks(run_id) if pod["status"].get("phase") == "Running"]
            logs = [b"\n".join(self.api.lines(f"{PODS}/{pod['metadata']['name']}/log", {"tailLines": 50})) for pod in ranks]
            return ranks if any(b"update " in log for log in logs) else None

        ranks = self.wait_for("training", look, seconds)
        time.sleep(more_seconds)
        return ranks

    def delete_pod(self, pod: Object, grace: int = 0) -> None:
        self.api.request("DELETE", f"{PODS}/{pod['metadata']['name']}", {"gracePeriodSeconds": grace})

    def wait_for(self, what: str, look: Callable[[], Found | None], seconds: float) -> Found:
        """What `look` finds, within that time."""
        until = min(time.monotonic() + seconds, self.until)
        while True:
            if found := look():
                return found
            if time.monotonic() > until:
                raise AssertionError(f"no {what} within {seconds:.0f} s")
            time.sleep(2)

    # --- MLflow ---

    def stages(self, run_id: str) -> list[Any]:
        """The MLflow runs of a pipeline run."""
        if self.mlflow is None:
            raise NotHere("MLflow is not reached from here: set MLFLOW_TRACKING_URI")
        experiment = self.mlflow.get_experiment_by_name(self.name)
        query = f"tags.`kfp.pipeline_run_id` = '{run_id}'"
        return list(self.mlflow.search_runs([experiment.experiment_id], query)) if experiment else []


def id_in(said: str) -> str:
    """The run's, of what pipelines.submit printed."""
    return next(iter(IDS.findall(said)), "")


# --- what it needs ---


@contextmanager
def prepared(namespace: str, endpoint: str, image: str, train_image: str, mlflow_image: str, until: float) -> Iterator[Place]:
    """A place where runs find settings, store and MLflow: those that are there, else ours, which go again at the end.

    Raises:
        NotHere: no cluster, or no Kubeflow.
    """
    with ExitStack() as stack:
        try:
            api = connect_to_kubernetes(namespace, Patience(total=60.0))
            api.request("GET", "/version")
        except (StageError, ApiError) as error:
            raise NotHere(f"no cluster: {error}") from None
        endpoint = endpoint or os.environ.get("KF_PIPELINES_ENDPOINT", "")
        try:
            endpoint = endpoint or stack.enter_context(forwarded("kubeflow", "svc/ml-pipeline", 8888))
            kubeflow = connect_to_kubeflow(endpoint, namespace, None)
        except (StageError, OSError, subprocess.SubprocessError) as error:
            raise NotHere(f"no Kubeflow Pipelines: {error}") from None
        place = Place(api, kubeflow, endpoint, image, train_image, until)
        if get(api, CONFIG_MAPS, CONFIG) is None:
            stack.enter_context(installed(place, mlflow_image))
        place.mlflow = stack.enter_context(reached_mlflow(place))
        yield place


@contextmanager
def installed(place: Place, mlflow_image: str) -> Iterator[None]:
    """What docs/cluster.md has one type: the overlay, the Secrets, Kubeflow's store; in OWN, MLflow and a store."""
    api, namespace = place.api, place.api.namespace
    print(f"installing into {namespace}, with MLflow and a store in {OWN}", flush=True)
    overlays = write_overlays(namespace, bool(place.kubeflow.namespace), place.has("trainjob"), mlflow_image)
    login = {"MLFLOW_TRACKING_USERNAME": "adapt", "MLFLOW_TRACKING_PASSWORD": secrets.token_hex(16)}
    keys = {"AWS_ACCESS_KEY_ID": "adapt", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}
    before = get(api, CONFIG_MAPS, "kfp-launcher")
    try:
        apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OWN, "labels": RESTRICTED}})
        apply(secret("adapt-mlflow-db", OWN, {"password": secrets.token_hex(16)}))
        for there in (OWN, namespace):
            apply(secret(S3, there, keys))
            apply(secret(MLFLOW, there, login))
        for overlay in overlays:
            kubectl("apply", "-k", str(overlay))
        apply(launcher_settings(namespace))
        for workload in ("statefulset/adapt-seaweedfs", "statefulset/adapt-postgres", "deployment/adapt-mlflow"):
            kubectl("-n", OWN, "rollout", "status", workload, "--timeout=300s", seconds=320)
        yield
    finally:
        with contextlib.suppress(AssertionError):
            for overlay in overlays:
                kubectl("delete", "-k", str(overlay), "--ignore-not-found", "--wait=false")
            kubectl("delete", "namespace", OWN, "--ignore-not-found", "--wait=false")
            kubectl("-n", namespace, "delete", "secret", S3, MLFLOW, "--ignore-not-found")
            kubectl("-n", namespace, "delete", "configmap", "kfp-launcher", "--ignore-not-found")
        if before is not None:
            apply({**before, "metadata": {key: before["metadata"][key] for key in ("name", "namespace")}})


RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def write_overlays(namespace: str, is_multi_user: bool, has_trainer: bool, mlflow_image: str) -> list[Path]:
    """An overlay for the namespace of the runs, and one for OWN."""
    parts = [*(["multi-user"] if is_multi_user else []), *(["trainer"] if has_trainer else [])]
    data = {
        "AWS_ENDPOINT_URL_S3": f"http://adapt-seaweedfs.{OWN}:8333",
        "MLFLOW_TRACKING_URI": f"http://adapt-mlflow.{OWN}:5000",
    }
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG}, "data": data}
    subject = {
        "source": {"kind": "ConfigMap", "name": CONFIG, "fieldPath": "metadata.namespace"},
        "targets": [{"select": {"kind": "RoleBinding", "name": "adapt"}, "fieldPaths": ["subjects.0.namespace"]}],
    }
    runs = {
        "resources": ["../../../k8s/base"],
        "components": [f"../../../k8s/components/{part}" for part in parts],
        "patches": [{"patch": yaml.safe_dump(settings)}],
        "replacements": [subject],
    }
    name, _, digest = mlflow_image.partition("@")
    named = {"newName": name, "digest": digest}
    if not digest:
        named = dict(zip(("newName", "newTag"), name.rsplit(":", 1), strict=True))
    image = {"name": "localhost:5000/adapt-python-mlflow", **named}
    own = {"resources": ["../../../k8s/mlflow"], "images": [image]}
    written = []
    for where, overlay in ((OWN, own), (namespace, runs)):
        folder = WORK / ("store" if overlay is own else "runs")
        folder.mkdir(parents=True, exist_ok=True)
        kind = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": where}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump({**kind, **overlay}))
        written.append(folder)
    return written


def launcher_settings(namespace: str) -> Object:
    """Where Kubeflow is to keep its artifacts, as docs/cluster.md says."""
    reference = {"secretName": S3, "accessKeyKey": "AWS_ACCESS_KEY_ID", "secretKeyKey": "AWS_SECRET_ACCESS_KEY"}
    store = {"endpoint": f"adapt-seaweedfs.{OWN}:8333", "region": "us-east-1", "disableSSL": True}
    providers = {"s3": {"default": {**store, "credentials": {"fromEnv": False, "secretRef": reference}}}}
    data = {"defaultPipelineRoot": "s3://adapt/kfp", "providers": yaml.safe_dump(providers)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kfp-launcher", "namespace": namespace}, "data": data}


def secret(name: str, namespace: str, values: dict[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": values}


@contextmanager
def reached_mlflow(place: Place) -> Iterator[Any]:
    """MLflow's client, by MLFLOW_TRACKING_URI or through the cluster's own Service; None where it cannot be reached."""
    from mlflow import MlflowClient

    with ExitStack() as stack:
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        settings = (get(place.api, CONFIG_MAPS, CONFIG) or {}).get("data", {})
        host = settings.get("MLFLOW_TRACKING_URI", "").partition("://")[2].partition(":")[0]
        service, _, namespace = host.removesuffix(".svc.cluster.local").removesuffix(".svc").partition(".")
        if not uri and service:
            login = (get(place.api, SECRETS, MLFLOW) or {}).get("data", {})
            for name, value in login.items():
                os.environ.setdefault(name, base64.b64decode(value).decode())
            with contextlib.suppress(OSError):
                uri = stack.enter_context(forwarded(namespace or place.api.namespace, f"svc/{service}", 5000))
        yield MlflowClient(uri) if uri else None


@contextmanager
def forwarded(namespace: str, what: str, port: int) -> Iterator[str]:
    """The address here of a port there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        here = free.getsockname()[1]
    command = ["kubectl", "-n", namespace, "port-forward", what, f"{here}:{port}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 30
            while socket.socket().connect_ex(("127.0.0.1", here)):
                if process.poll() is not None or time.monotonic() > until:
                    raise OSError(f"{' '.join(command)} does not work")
                time.sleep(0.2)
            yield f"http://localhost:{here}"  # by which name MLflow answers
        finally:
            process.terminate()


def get(api: Api, path: str, name: str) -> Object | None:
    try:
        return api.request("GET", f"{path}/{name}")
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def apply(item: Object) -> None:
    kubectl("apply", "-f", "-", given=json.dumps(item))


def kubectl(*arguments: str, given: str = "", seconds: float = 120.0) -> str:
    done = subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr.strip().splitlines()[-1:]}"
    return done.stdout
