"""Run a pipeline on Kubeflow: python -m pipelines.submit adapt --task mnli --source hub --model bert-base-uncased --wait

It compiles what `make compile` compiles and sends what `kfp run create` sends; it looks at the parameters before, and with
--wait ends as the run's stages did.
"""

import contextlib
import hashlib
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import cyclopts
import yaml
from kfp.dsl.graph_component import GraphComponent

from components import parameters
from components.errors import TryAgainError, UserError
from components.launch.api import NAMESPACE_FILE, in_cluster
from components.parameters import check_choice
from components.suite.stage import runs
from pipelines import command
from pipelines.adapt import adapt
from pipelines.command import command_line, parsed
from pipelines.doctor import doctor
from pipelines.suite import suite

PIPELINES: dict[str, GraphComponent] = {"adapt": adapt, "suite": suite, "doctor": doctor}
IN_CLUSTER = "http://ml-pipeline.kubeflow:8888"
ENDPOINT, UI_ENDPOINT, TOKEN_FILE = "KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH"
PROJECTED = Path("/var/run/secrets/kubeflow/pipelines/token")  # where Kubeflow's notebooks have one

app = command_line("python -m pipelines.submit", __doc__, PIPELINES)


@app.meta.default
def main(
    *tokens: Annotated[str, cyclopts.Parameter(show=False, allow_leading_hyphen=True)],
    endpoint: str = "",
    namespace: str = "",
    experiment_name: str = "",
    run_name: str = "",
    service_account: str = "",
    token_file: Path | None = None,
    wait: bool = False,
    dry_run: bool = False,
) -> None:
    """Submit a pipeline.

    Args:
        endpoint: Kubeflow Pipelines' API. Default: KF_PIPELINES_ENDPOINT, or the cluster's own where this runs in a pod.
        namespace: Where several users share Kubeflow: your profile's. Default: the pod's.
        experiment_name: Kubeflow experiment, made if there is none. Default: the pipeline's name.
        run_name: Default: the pipeline, its task and the time.
        service_account: Kubernetes service account that the run's pods have. Default: Kubeflow's.
        token_file: File with the token to show; it is read anew for each request. Default: KF_PIPELINES_SA_TOKEN_PATH.
        wait: Show the stages until the run ends, and end as it does: 0, 2 (you can mend it), 75 (try again) or 1.
        dry_run: Only show what would be sent.
    """
    asked = parsed(app, tokens)
    if asked is None:
        return
    name, bound = asked
    run_name = run_name or "-".join([name, *filter(None, [bound.arguments.get("task")]), time.strftime("%Y%m%d-%H%M%S")])
    with tempfile.TemporaryDirectory() as folder:
        request = Request(
            *compiled(name, Path(folder)), bound.arguments, experiment_name or name, run_name, service_account or None
        )
        check(request)
        if dry_run:
            print(json.dumps(request.summary(), indent=1))
            return
        kubeflow = connect(endpoint, namespace, token_file)
        run_id = kubeflow.submit(request)
    print(f"run        {run_id}\npage       {kubeflow.page(run_id)}", flush=True)
    if wait:
        from pipelines.follow import follow

        follow(kubeflow, run_id, request.spec)


@dataclass(frozen=True)
class Request:
    """What is sent: a compiled pipeline, and the parameters that are not left at their defaults."""

    file: Path
    spec: dict[str, Any]
    parameters: dict[str, Any]
    experiment: str
    run_name: str
    service_account: str | None

    def summary(self) -> dict[str, Any]:
        pipeline = {"name": self.spec["pipelineInfo"]["name"], "sha256": hashlib.sha256(self.file.read_bytes()).hexdigest()}
        shown = {"experiment": self.experiment, "run_name": self.run_name, "service_account": self.service_account}
        return {"pipeline": pipeline, **shown, "parameters": self.parameters}


def compiled(name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The pipeline's file, and the specification in it."""
    from pipelines.compile import compile_all

    with contextlib.redirect_stdout(io.StringIO()):
        compile_all(output_dir=folder)
    file = folder / f"{name}.yaml"
    return file, next(iter(yaml.safe_load_all(file.read_text())))


def check(request: Request) -> None:
    """Refuse now what a stage would refuse when it has a pod.

    Raises:
        UserError: a parameter that the compiled pipeline does not take or needs and is not given; a value that is no choice.
    """
    inputs = request.spec["root"]["inputDefinitions"]["parameters"]
    if unknown := [name for name in request.parameters if name not in inputs]:
        raise UserError(f"the compiled pipeline has no {', '.join(unknown)}: compile it from this code")
    if lacking := [name for name, it in inputs.items() if not it.get("isOptional") and name not in request.parameters]:
        raise UserError(f"the compiled pipeline needs {', '.join(lacking)}")
    for name, value in request.parameters.items():
        choices = parameters.__annotations__.get(name)
        if get_origin(choices) is Literal:
            check_choice(name, value, choices)
    if "tasks" in inputs:
        runs(*(request.parameters.get(name, getattr(parameters, name)) for name in ("tasks", "seeds")))


class Kubeflow:
    """Kubeflow Pipelines' API. Its own client sends; what it would make of an answer is not always all that is in there."""

    def __init__(self, endpoint: str, credentials: Any) -> None:
        import kfp_server_api

        self.endpoint = endpoint
        self.credentials = credentials
        self.namespace = ""
        configuration = kfp_server_api.Configuration(host=endpoint)
        configuration.ssl_ca_cert = os.environ.get("SSL_CERT_FILE")
        if credentials:
            configuration.api_key["authorization"] = ""  # read from the file, each time
            configuration.api_key_prefix["authorization"] = "Bearer"
            configuration.refresh_api_key_hook = credentials.refresh_api_key_hook
        self._api = kfp_server_api.ApiClient(configuration)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """The whole answer.

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

    def submit(self, request: Request) -> str:
        """Make the experiment, if there is none, and start the run. Returns its id."""
        import warnings

        import kfp

        with self.answering(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore", FutureWarning)
            client = kfp.Client(
                host=self.endpoint,
                namespace=self.namespace or "kubeflow",  # which is its word for none
                credentials=self.credentials,
                ssl_ca_cert=os.environ.get("SSL_CERT_FILE"),
            )
            experiment = client.create_experiment(request.experiment, namespace=self.namespace or None)
            started = client.run_pipeline(
                experiment.experiment_id,
                request.run_name,
                pipeline_package_path=str(request.file),
                params=request.parameters,
                service_account=request.service_account,
            )
        return str(started.run_id)

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
    return kubeflow


def _message(body: str | None) -> str:
    """What the server says in one line."""
    try:
        said = json.loads(body or "{}")
        return " ".join(str(said.get("message") or said.get("error") or "").split())[:300]
    except (ValueError, AttributeError):
        return ""


if __name__ == "__main__":
    command.run(app)
