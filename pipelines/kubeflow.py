"""Kubeflow Pipelines' API, with a token from a file and errors of one line."""

import contextlib
import io
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.errors import TryAgainError, UserError
from components.launch.api import NAMESPACE_FILE, in_cluster
from pipelines.request import Request

IN_CLUSTER = "http://ml-pipeline.kubeflow:8888"
SINGLE_USER = "kubeflow"
"""Where the pods of runs are, and Kubeflow itself, if it has one user: no object of its API says so."""
ENDPOINT, UI_ENDPOINT, TOKEN_FILE = "KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH"
PROJECTED = Path("/var/run/secrets/kubeflow/pipelines/token")  # where Kubeflow's notebooks have one


class Kubeflow:
    """Kubeflow Pipelines' API. Its own client sends; what it would make of an answer is not always all that is in there."""

    def __init__(self, endpoint: str, credentials: Any) -> None:
        import kfp_server_api

        self.endpoint = endpoint
        self.credentials = credentials
        self.namespace = ""
        self.pods_in = SINGLE_USER
        configuration = kfp_server_api.Configuration(host=endpoint)
        configuration.ssl_ca_cert = os.environ.get("SSL_CERT_FILE")
        if credentials:
            configuration.api_key["authorization"] = ""  # read from the file, each time
            configuration.api_key_prefix["authorization"] = "Bearer"
            configuration.refresh_api_key_hook = credentials.refresh_api_key_hook
        self._api = kfp_server_api.ApiClient(configuration)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """The whole answer to a GET.

        Raises:
            UserError: it does not let us in, or is something else.  TryAgainError: it does not answer.
        """
        with self.answering():
            answer = self._api.call_api(
                path, "GET", query_params=list(query.items()), header_params={"Accept": "application/json"},
                response_type="object", auth_settings=["Bearer"], _return_http_data_only=True, _request_timeout=30,
            )  # fmt: skip
        if not isinstance(answer, dict):
            raise UserError(f"{self.endpoint} is not Kubeflow Pipelines' API, but perhaps a page to log in: {self._mend()}")
        return answer

    def experiment(self, name: str) -> str:
        """The id of the experiment of that name, which is made if there is none."""
        with self._client() as client:
            return str(client.create_experiment(name, namespace=self.namespace or None).experiment_id)

    def submit(self, request: Request, experiment_id: str) -> str:
        """Start a run. Returns its id."""
        with self._client() as client:
            started = client.run_pipeline(
                experiment_id,
                request.run_name,
                pipeline_package_path=str(request.file),
                params=request.parameters,
                service_account=request.service_account,
            )
        return str(started.run_id)

    def runs(self, experiment_id: str, part_of_name: str) -> list[dict[str, Any]]:
        """Those of an experiment whose names have that in them, the newest first."""
        predicate = {"operation": "IS_SUBSTRING", "key": "display_name", "stringValue": part_of_name}
        query = {
            "experiment_id": experiment_id,
            "filter": json.dumps({"predicates": [predicate]}),
            "sort_by": "created_at desc",
            "page_size": "50",
        }
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            page = self.get("/apis/v2beta1/runs", **query, **({"page_token": token} if token else {}))
            found += page.get("runs", [])
            if not (token := page.get("next_page_token", "")):
                return found

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """kfp's own, without what it prints and warns of."""
        import kfp

        with self.answering(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore", FutureWarning)
            yield kfp.Client(
                host=self.endpoint,
                namespace=self.namespace or SINGLE_USER,  # which is its word for none
                credentials=self.credentials,
                ssl_ca_cert=os.environ.get("SSL_CERT_FILE"),
            )

    def page(self, run_id: str) -> str:
        return f"{os.environ.get(UI_ENDPOINT, self.endpoint).rstrip('/')}/#/runs/details/{run_id}"

    @contextmanager
    def answering(self) -> Iterator[None]:
        import kfp_server_api
        import urllib3

        try:
            yield
        except kfp_server_api.ApiException as error:
            said = _message(error.body) or error.reason
            if error.status in (401, 403):
                raise UserError(f"{self.endpoint} refuses: {error.status} {said}: {self._mend()}") from None
            if error.status in (408, 429) or error.status >= 500:
                raise TryAgainError(f"{self.endpoint} does not answer: {error.status} {said}") from None
            raise UserError(f"{self.endpoint} refuses: {error.status} {said}") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TryAgainError(f"{self.endpoint} does not answer: {str(error)[:200]}") from None

    def _mend(self) -> str:
        token = "another --token-file" if self.credentials else f"--token-file or {TOKEN_FILE}"
        return f"give {token}, and --namespace one in which you may run pipelines"


def connect(endpoint: str, namespace: str, token_file: Path | None) -> Kubeflow:
    """Kubeflow, and the namespace to work in, where it has several users.

    Raises:
        UserError: no endpoint, token file or namespace is named, or it is a wrong one.  TryAgainError: no answer.
    """
    from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

    endpoint = (endpoint or os.environ.get(ENDPOINT, "") or (IN_CLUSTER if in_cluster() else "")).rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        raise UserError(f"no Kubeflow Pipelines endpoint: give --endpoint https://..., or set {ENDPOINT}")
    token = token_file or Path(os.environ.get(TOKEN_FILE) or PROJECTED)
    if token != PROJECTED and not token.is_file():
        raise UserError(f"there is no token file {token}: give another --token-file")
    kubeflow = Kubeflow(endpoint, ServiceAccountTokenVolumeCredentials(str(token)) if token.is_file() else None)
    if kubeflow.get("/apis/v2beta1/healthz").get("multi_user"):
        kubeflow.namespace = namespace or (NAMESPACE_FILE.read_text().strip() if in_cluster() else "")
        if not kubeflow.namespace:
            raise UserError(f"several users share {endpoint}: give --namespace, your profile's")
    kubeflow.pods_in = kubeflow.namespace or namespace or SINGLE_USER
    return kubeflow


def _message(body: str | None) -> str:
    """What the server says in one line."""
    try:
        said = json.loads(body or "{}")
        return " ".join(str(said.get("message") or said.get("error") or "").split())[:300]
    except (ValueError, AttributeError):
        return ""
