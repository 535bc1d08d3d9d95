"""A small API server: enough of Kubernetes for the doctor, with the words that a real one uses."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

NAMESPACE = "team-a"
NETWORK = f"127.0.{1 + os.getpid() % 250}"  # loopback; other tests run beside these
HERE = f"/api/v1/namespaces/{NAMESPACE}"
JOBS = f"/apis/kubeflow.org/v1/namespaces/{NAMESPACE}/pytorchjobs"
CONTROLLER = "/api/v1/namespaces/kubeflow/configmaps/workflow-controller-configmap"
RETRIES = "spec:\n  templateDefaults:\n    retryStrategy:\n      limit: '2'\n      retryPolicy: OnError\n"
SECRET_VALUE = "c2VjcmV0LXZhbHVl"

Answer = tuple[int, dict[str, Any] | str]


def status(code: int, reason: str, message: str) -> Answer:
    kind = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return code, {**kind, "message": message, "reason": reason, "code": code}


def forbidden(verb: str, resource: str, group: str = "", where: str = f'in the namespace "{NAMESPACE}"') -> Answer:
    user = f"system:serviceaccount:{NAMESPACE}:launcher"
    full = f"{resource}.{group}" if group else resource
    text = f'{full} is forbidden: User "{user}" cannot {verb} resource "{resource}" in API group "{group}" {where}'
    return status(403, "Forbidden", text)


class Cluster:
    """What it answers can be changed by a test: `answers[method, path]`, and the rights in `denied`."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.denied: set[tuple[str, str]] = set()
        self.sent: list[tuple[str, dict[str, Any]]] = []  # the bodies of POSTs
        self.tokens: dict[str, dict[tuple[str, str], Answer]] = {}  # a service account's token -> what it is answered instead
        self.pods: dict[str, subprocess.Popen[str]] = {}
        self.deleted: list[str] = []
        self.answers: dict[tuple[str, str], Answer] = {
            ("GET", "/version"): (200, {"gitVersion": "v1.36.0"}),
            ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews"): (
                201,
                {"status": {"userInfo": {"username": f"system:serviceaccount:{NAMESPACE}:launcher"}}},
            ),
            ("GET", "/apis/kubeflow.org/v1"): (200, {"resources": [{"name": "mpijobs"}, {"name": "pytorchjobs"}]}),
            ("GET", "/apis/trainer.kubeflow.org/v1alpha1"): (404, "404 page not found\n"),
            ("GET", "/apis/apps/v1/namespaces/kubeflow/deployments/training-operator"): forbidden(
                "get", "deployments", "apps", 'in the namespace "kubeflow"'
            ),
            ("POST", JOBS): (201, {}),
            ("GET", HERE): (200, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}),
            ("POST", f"{HERE}/pods"): (201, {}),
            ("GET", f"{HERE}/serviceaccounts/default"): (200, {"metadata": {"name": "default"}}),
            ("GET", f"{HERE}/serviceaccounts/adapt"): (200, {"metadata": {"name": "adapt"}}),
            ("GET", f"{HERE}/configmaps/adapt-config"): (
                200,
                {"data": {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_S3": "https://s3.example.com"}},
            ),
            ("GET", f"{HERE}/secrets/adapt-s3"): (
                200,
                {"data": {"AWS_ACCESS_KEY_ID": SECRET_VALUE, "AWS_SECRET_ACCESS_KEY": SECRET_VALUE}},
            ),
            ("GET", f"{HERE}/resourcequotas"): (200, {"items": []}),
            ("GET", f"{HERE}/limitranges"): (200, {"items": []}),
            ("GET", CONTROLLER): (200, {"data": {"workflowDefaults": RETRIES, "executor": "imagePullPolicy: IfNotPresent\n"}}),
            ("POST", f"{HERE}/serviceaccounts/adapt/token"): forbidden("create", "serviceaccounts/token"),
            ("GET", "/api/v1/nodes"): (200, {"items": [node("8"), node("8"), node("0")]}),
        }
        handler = type("Handler", (_Handler,), {"cluster": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.folder = folder
        self.config = folder / "kubeconfig"
        self.log_in("good")

    @contextmanager
    def running(self) -> Iterator[None]:
        with self.server as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield
            server.shutdown()

    def log_in(self, token: str) -> None:
        user = {"name": "u", "user": {"token": token}}
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.server.server_port}"}}
        context = {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}
        config = {"current-context": "x", "contexts": [context], "clusters": [cluster], "users": [user]}
        self.config.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **config}))

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any], token: str) -> Answer:
        if method == "POST":
            self.sent.append((path, body))
        if (method, path) in self.tokens.get(token, {}):
            return self.tokens[token][method, path]
        if path.endswith("subjectaccessreviews"):
            asked = body["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (asked["resource"], asked["subresource"])))
            if ("POST", path) in self.answers:
                return self.answers["POST", path]
            return 201, {"status": {"allowed": (asked["verb"], resource) not in self.denied}}
        if "/pods/" in path and method in ("GET", "DELETE"):
            return self.of_pod(method, path.rpartition("/")[2])
        answer = self.answers.get((method, path), status(404, "NotFound", f'"{path.rpartition("/")[2]}" not found'))
        if method == "POST" and path.endswith("/pods") and answer[0] == 201 and "dryRun" not in query:
            self.start(body)
        return answer

    def start(self, pod: dict[str, Any]) -> None:
        """The pod's container as a process of this machine, with a loopback address of its own."""
        (container,) = pod["spec"]["containers"]
        ip = f"{NETWORK}.{2 + len(self.pods)}"
        given = {each["name"]: each.get("value", ip) for each in container["env"]}
        name = pod["metadata"]["name"]
        log = (self.folder / f"{name}.log").open("w")
        _, *arguments = container["command"]  # python, which a virtual environment has under its own name
        self.pods[name] = subprocess.Popen([sys.executable, *arguments], env={**os.environ, **given}, stderr=log, text=True)

    def of_pod(self, method: str, name: str) -> Answer:
        if name not in self.pods:
            return status(404, "NotFound", f'pods "{name}" not found')
        process = self.pods[name]
        if method == "DELETE":
            self.deleted.append(name)
            process.kill()
            process.wait()
            return 200, {}
        if ("GET", "pod") in self.answers:
            return self.answers["GET", "pod"]
        ip = f"{NETWORK}.{2 + list(self.pods).index(name)}"
        code = process.poll()
        if code is None:
            return 200, {"status": {"phase": "Running", "podIP": ip, "containerStatuses": [{"state": {"running": {}}}]}}
        ended = {"exitCode": code, "message": (self.folder / f"{name}.log").read_text()}
        phase = "Failed" if code else "Succeeded"
        return 200, {"status": {"phase": phase, "podIP": ip, "containerStatuses": [{"state": {"terminated": ended}}]}}


def node(gpus: str) -> dict[str, Any]:
    return {"spec": {}, "status": {"allocatable": {"cpu": "64", "nvidia.com/gpu": gpus}}}


class _Handler(http.server.BaseHTTPRequestHandler):
    cluster: Cluster

    def _handle(self) -> None:
        url = urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        self.cluster.asked.append((self.command, url.path, url.query))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in ("good", *self.cluster.tokens):
            code, answer = status(401, "Unauthorized", "Unauthorized")
        else:
            code, answer = self.cluster.answer(self.command, url.path, parse_qs(url.query), body, token)
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass
