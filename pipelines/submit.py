"""Run a pipeline on Kubeflow: python -m pipelines.submit adapt --task mnli --source hub --model bert-base-uncased --wait

It compiles what `make compile` compiles and sends what `kfp run create` sends; it looks at the parameters before, and with
--wait ends as the run's stages did.
"""

import contextlib
import hashlib
import io
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import yaml

from components import parameters
from components.errors import UserError
from components.image import IMAGE, TRAIN_IMAGE
from components.suite.stage import check_fits
from pipelines import command
from pipelines.command import arguments_of, command_line, parsed
from pipelines.follow import follow
from pipelines.kubeflow import connect
from pipelines.table import PIPELINES

TOO_LONG = 60_000
"""Characters. Seen on Kubeflow 2.17: with so many it fails without a word; 12,000 work."""

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
    image: str = IMAGE,
    train_image: str = TRAIN_IMAGE,
    wait: bool = False,
    dry_run: bool = False,
) -> None:
    """Submit a pipeline.

    Args:
        endpoint: Kubeflow Pipelines' API. Default: KF_PIPELINES_ENDPOINT, or the cluster's own where this runs in a pod.
        namespace: Where several users share Kubeflow: your profile's. Default: the pod's. Else where Kubeflow has the pods of
            runs, if that is not kubeflow.
        experiment_name: Kubeflow experiment, made if there is none. Default: the pipeline's name.
        run_name: Default: the pipeline, its task and the time.
        service_account: Kubernetes service account that the run's pods have. Default: Kubeflow's.
        token_file: File with the token to show; it is read anew for each request. Default: KF_PIPELINES_SA_TOKEN_PATH.
        image: What the stages without torch run in, as `make push` prints it: REPOSITORY@sha256:DIGEST.
        train_image: What the others and the training job's pods run in, likewise.
        wait: Show the stages until the run ends, and end as it does: 0, 2 (you can mend it), 75 (try again) or 1.
        dry_run: Only show what would be sent.
    """
    asked = parsed(app, tokens)
    if asked is None:
        return
    name, given = asked
    train_image = given.pop(
        "train_image", train_image
    )  # after the pipeline's name it is the pipeline's own, and means the same
    arguments = arguments_of(PIPELINES[name], given)
    run_name = run_name or "-".join([name, *filter(None, [given.get("task")]), time.strftime("%Y%m%d-%H%M%S")])
    images = {"image": image, "train_image": train_image}
    secrets = given.get("image_pull_secrets", [])
    with tempfile.TemporaryDirectory() as folder:
        file, spec = compiled(name, Path(folder), **images, image_pull_secrets=secrets)
        request = Request(file, spec, arguments, experiment_name or name, run_name, service_account or None)
        check(request)
        if dry_run:
            print(json.dumps(request.summary(), indent=1))
            return
        kubeflow = connect(endpoint, namespace, token_file)
        run_id = kubeflow.submit(
            str(request.file), request.parameters, request.experiment, request.run_name, request.service_account
        )
    print(f"run        {run_id}\npage       {kubeflow.page(run_id)}", flush=True)
    if wait:
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


def compiled(name: str, folder: Path, **settings: Any) -> tuple[Path, dict[str, Any]]:
    """The pipeline's file, and the specification in it."""
    from pipelines.compile import compile_all

    with contextlib.redirect_stdout(io.StringIO()):
        compile_all(output_dir=folder, **settings)
    file = folder / f"{name}.yaml"
    return file, next(iter(yaml.safe_load_all(file.read_text())))


def check(request: Request) -> None:
    """Refuse now what a stage would refuse when it has a pod.

    Raises:
        UserError: a parameter that the compiled pipeline does not take or needs and is not given; one of another type, or
            too long; or a suite of more runs than fit.
    """
    inputs = request.spec["root"]["inputDefinitions"]["parameters"]
    if unknown := [name for name in request.parameters if name not in inputs]:
        raise UserError(f"the compiled pipeline has no {', '.join(unknown)}: compile it from this code")
    if lacking := [name for name, it in inputs.items() if not it.get("isOptional") and name not in request.parameters]:
        raise UserError(f"the compiled pipeline needs {', '.join(lacking)}")
    for name, value in request.parameters.items():
        parameters.check(name, value)
        if (length := len(value if isinstance(value, str) else json.dumps(value))) >= TOO_LONG:
            raise UserError(f"{name} has {length} characters: Kubeflow takes fewer than {TOO_LONG} of a parameter")
    if "seeds" in inputs:
        check_fits(*(request.parameters.get(name, parameters.default(name)) for name in ("tasks", "seeds")))


if __name__ == "__main__":
    command.run(app)
