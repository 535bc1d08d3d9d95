"""The Kubernetes API: its few verbs, and patience with a server that is away. The official client reads the credentials."""

import hashlib
import json
import math
import os
import random
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import client, config

from components.errors import TryAgainError, UserError

Object = dict[str, Any]

JOBS = "/apis/kubeflow.org/v1/namespaces/{namespace}/pytorchjobs"
TRAIN_JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainjobs"
PODS = "/api/v1/namespaces/{namespace}/pods"
EVENTS = "/api/v1/namespaces/{namespace}/events"
WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

# 410 is a list's or a watch's "too old": asked again without a version, it is answered. 500 is what an absent webhook gives.
TRANSIENT = frozenset({408, 410, 429, 500, 502, 503, 504})


class ApiError(Exception):
    """The server's refusal. `status` is the HTTP status, `reason` Kubernetes' own word for it, '' where it had none."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class AwayError(Exception):
    """No answer (`status` 0), or one that may be another one later. `after` is what the server asks to wait, in seconds."""

    def __init__(self, message: str, status: int = 0, after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.after = after


class NoClusterError(UserError):
    """Nothing here says where a cluster would be."""


@dataclass(frozen=True)
class Patience:
    """How long to go on where the API does not answer. All in seconds.

    total: until it is given up; from the first failure of a row of them.
    answer: for one answer.
    pause: first pause between two tries; it doubles up to `longest`.
    watch: after which the server ends a watch, which tells a silent one from one that was lost.
    silent: that failures may go on for before they are told.
    """

    total: float = 1800.0
    answer: float = 15.0
    pause: float = 0.5
    longest: float = 30.0
    watch: float = 60.0
    silent: float = 5.0

    def pauses(self) -> Iterator[float]:
        """Of a row of failures; some chance in them, so that many launchers do not come back at once."""
        pause = self.pause
        while True:
            yield pause * random.uniform(0.5, 1.0)
            pause = min(2 * pause, self.longest)


@dataclass
class Api:
    """A namespace's API. Its calls are thread-safe."""

    namespace: str
    configuration: client.Configuration
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        self._told: set[float] = set()
        self._pool = client.ApiClient(self.configuration).rest_client.pool_manager
        self._pool.connection_pool_kw["maxsize"] = 64  # a stream for every rank's log

    def request(
        self, method: str, path: str, body: object = None, query: Mapping[str, object] | None = None, total: float = math.inf
    ) -> Object:
        """The answer, asked for again while the server is away.

        Args:
            path: With {namespace} where the namespace goes.
            total: Seconds after which to give it up, where the patience would last longer.

        Raises:
            ApiError: the server refused.
            TryAgainError: it was away for longer than the patience lasts.
        """
        started = time.monotonic()
        for pause in self.patience.pauses():
            try:
                return self.ask(method, path, body, query)
            except AwayError as error:
                self.heed(error, started, pause, total)
        raise AssertionError

    def heed(self, error: AwayError, started: float, pause: float, total: float = math.inf) -> None:
        """Sleep before the next try, and say once of a row of failures what is waited for.

        Raises:
            TryAgainError: the failures began too long ago.
        """
        away = time.monotonic() - started
        if away > min(total, self.patience.total):
            raise TryAgainError(
                f"{self.configuration.host} has failed for {away:.0f} s ({error}): a training job may still run; "
                "the same step, tried again, takes it over"
            ) from None
        if away > self.patience.silent and started not in self._told:
            self._told.add(started)
            print(f"waits for {self.configuration.host}, which has failed for {away:.0f} s: {error}", flush=True)
        time.sleep(min(max(pause, error.after), self.patience.longest))

    def ask(self, method: str, path: str, body: object = None, query: Mapping[str, object] | None = None) -> Object:
        """The answer, asked for once.

        Raises:
            ApiError: the server refused.
            AwayError: no answer, or none that will last.
        """
        with self._open(method, path, body, query, self.patience.answer) as response:
            try:
                return json.loads(response.data or b"{}")
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise AwayError(_reason(error)) from None
            except ValueError:
                raise AwayError(f"{method} {path} was answered with something that is no JSON") from None

    def lines(self, path: str, query: Mapping[str, object]) -> Iterator[bytes]:
        """The lines of a stream, as they come; ends when the server ends it.

        Raises:
            ApiError, AwayError: as `ask`; AwayError also when the stream is cut, or silent for longer than a watch lasts.
        """
        with self._open("GET", path, None, query, self.patience.watch + self.patience.answer) as response:
            rest = b""
            try:
                for part in response.stream(2**16, decode_content=True):
                    *whole, rest = (rest + part).split(b"\n")
                    yield from whole
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise AwayError(_reason(error)) from None
            if rest:
                yield rest

    def _open(
        self, method: str, path: str, body: object, query: Mapping[str, object] | None, timeout: float
    ) -> urllib3.BaseHTTPResponse:
        url = f"{self.configuration.host}{path.format(namespace=self.namespace)}"
        if query:
            url += "?" + urlencode(query)
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Accept": "application/json", "Content-Type": kind}
        if token := self.configuration.get_api_key_with_prefix("authorization"):  # read anew: tokens in pods are renewed
            headers["Authorization"] = token
        try:
            response = self._pool.request(
                method,
                url,
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=urllib3.Timeout(connect=min(10.0, timeout), read=timeout),
                preload_content=False,
                retries=False,
            )
            if response.status < 300:
                return response
            text = response.data.decode(errors="replace")
        except (urllib3.exceptions.HTTPError, OSError, ssl.SSLError) as error:
            raise AwayError(_reason(error)) from None
        reason, message = _status(text)
        if response.status in TRANSIENT:
            raise AwayError(f"{response.status} {message}", response.status, _seconds(response.headers.get("Retry-After")))
        raise ApiError(response.status, reason, message)


def connect(namespace: str = "", patience: Patience | None = None) -> Api:
    """The API of the cluster that this pod runs in, or of the current kubeconfig context.

    Args:
        namespace: '' for the pod's own, or the context's.

    Raises:
        NoClusterError: neither is there.
    """
    configuration = client.Configuration()
    if in_cluster():
        config.load_incluster_config(client_configuration=configuration)
        namespace = namespace or NAMESPACE_FILE.read_text().strip()
    else:
        try:
            file = os.environ.get("KUBECONFIG")  # the client reads it once, when it is imported
            config.load_kube_config(file, client_configuration=configuration)
            context = config.list_kube_config_contexts(file)[1]["context"]
        except (config.ConfigException, OSError) as error:
            raise NoClusterError(f"no Kubernetes cluster to talk to ({error}): run this in a pod, or set KUBECONFIG") from None
        namespace = namespace or context.get("namespace", "default")
    return Api(namespace, configuration, patience or Patience())


def place() -> str:
    """This pod's cluster and namespace, by a name that no others have; '' where this is no pod."""
    if not in_cluster():
        return ""
    authority = NAMESPACE_FILE.with_name("ca.crt").read_bytes()
    return f"{hashlib.sha256(authority).hexdigest()[:12]}/{NAMESPACE_FILE.read_text().strip()}"


def in_cluster() -> bool:
    """Whether this process runs in a pod that may talk to its API."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and NAMESPACE_FILE.is_file()


def _status(text: str) -> tuple[str, str]:
    """A refusal's reason and message; an absent API answers with plain text."""
    try:
        status = json.loads(text)
        return status.get("reason", ""), status.get("message", "")
    except (ValueError, AttributeError):
        return "", text.strip()


def _seconds(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:  # a date, which servers here do not send
        return 0.0


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
