"""Run a pipeline on Kubeflow: python -m pipelines.submit adapt --task mnli --source hub --model bert-base-uncased --wait

It compiles what `make compile` compiles, with a GPU for evaluate where the training has some, and sends what `kfp run create`
sends; it looks at the parameters before, and with --wait ends as the run's stages did.
"""

import contextlib
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import cyclopts

from components.errors import UserError
from components.image import IMAGE, TRAIN_IMAGE
from pipelines import command, in_runs
from pipelines.command import arguments_of, command_line, parsed
from pipelines.follow import follow
from pipelines.kubeflow import connect
from pipelines.request import Request, check, spec_of
from pipelines.table import PIPELINES

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
    max_parallel: int = 2,
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
        max_parallel: A suite that is too large for one run of Kubeflow is sent as one of adapt for each task and seed, so many
            at a time, and then one that makes their table; this waits for them all. Sent again, it goes on where it was.
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
    if max_parallel < 1:
        raise UserError(f"--max-parallel is {max_parallel}: give 1 or more")
    settings = {
        "image": image,
        "train_image": train_image,
        "image_pull_secrets": given.get("image_pull_secrets", []),
        "resources": ["evaluate.gpus=1"] if arguments.get("num_gpus_per_worker") and name != "doctor" else [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = compiled(Path(scratch), **settings)

        def request_of(pipeline: str, run_name: str = "") -> Request:
            file = folder / f"{pipeline}.yaml"
            return Request(file, spec_of(file), arguments, experiment_name or name, run_name, service_account or None)

        if name == "suite" and in_runs.is_needed(arguments):
            suite = in_runs.split(request_of(name, run_name), request_of("adapt"), request_of("suite-of-runs"))
            requests = [*suite.runs.values(), suite.table]
        else:
            suite = None
            now = time.strftime("%Y%m%d-%H%M%S")
            requests = [request_of(name, run_name or "-".join([name, *filter(None, [given.get("task")]), now]))]
        for request in requests:
            check(request)
        if dry_run:
            for request in requests:
                print(json.dumps(request.summary(), indent=1))
            return
        kubeflow = connect(endpoint, namespace, token_file)
        if suite:
            in_runs.submit(kubeflow, suite, max_parallel)
            return
        (request,) = requests
        run_id = kubeflow.submit(request, kubeflow.experiment(request.experiment))
    print(f"run        {run_id}\npage       {kubeflow.page(run_id)}", flush=True)
    if wait:
        follow(kubeflow, run_id, request.spec)


def compiled(folder: Path, **settings: Any) -> Path:
    """The folder with every pipeline."""
    from pipelines.compile import compile_all

    with contextlib.redirect_stdout(io.StringIO()):
        compile_all(output_dir=folder, **settings)
    return folder


if __name__ == "__main__":
    command.run(app)
