"""Run a pipeline on this machine, with nothing but Python: python -m pipelines.local adapt --task sst2 --source sample ...

The same pipeline function that is compiled for a cluster runs under kfp's local runner, a process per stage, with MLflow in an
sqlite file. Every run has a folder of its own below --runs-dir.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import psutil
from kfp import local
from kfp.dsl.graph_component import GraphComponent

from components import errors
from components.artifacts import CACHE
from components.evaluate.stage import scored
from pipelines.adapt import adapt
from pipelines.console import stages_only

PIPELINES: dict[str, GraphComponent] = {"adapt": adapt}
NAME = "python -m pipelines.local"
LOG = "run.log"

app = cyclopts.App(name=NAME, help=__doc__, version_flags=[], help_format="plaintext")
app.default_parameter = cyclopts.Parameter(consume_multiple=True, negative_iterable=())
app.meta.group_parameters = cyclopts.Group("Where", sort_key=0)
for pipeline_name, pipeline in PIPELINES.items():
    app.command(pipeline.pipeline_func, name=pipeline_name)


@app.meta.default
def main(
    *tokens: Annotated[str, cyclopts.Parameter(show=False, allow_leading_hyphen=True)],
    runs_dir: Path = Path("runs"),
    cache: bool = True,
) -> None:
    """Run a pipeline.

    Args:
        runs_dir: Folder for the runs' outputs and, unless MLFLOW_TRACKING_URI or tracking_uri names a server, for mlflow.db.
        cache: Take from earlier runs in runs_dir what was made of the same data, by the same code, with the same parameters.
    """
    function, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    if function.__name__ not in PIPELINES:  # no pipeline named, or --help
        function(*bound.args, **bound.kwargs)
        return
    bound.apply_defaults()
    if cache:
        os.environ.setdefault(CACHE, str(runs_dir.resolve() / "cache"))
    else:
        os.environ.pop(CACHE, None)
    run(function.__name__, bound.arguments, runs_dir.resolve())


def run(name: str, arguments: dict[str, Any], runs_dir: Path) -> None:
    """Run the pipeline `name` and print where everything went.

    Raises:
        StageError: as the stage that failed raised it.
    """
    folder = runs_dir / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    tracking_uri = _tracking_uri(arguments["tracking_uri"], runs_dir)
    os.environ |= {"MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_DISABLE_TELEMETRY": "1"}
    os.environ.pop("MLFLOW_RUN_ID", None)  # not a run that Kubeflow opened for one of our tasks
    signal.signal(signal.SIGTERM, _stop_children)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(folder))
    try:
        with stages_only(folder / LOG):
            task = PIPELINES[name](**arguments)
    except RuntimeError:  # kfp says only which task failed; the task itself has left a record
        records = sorted(folder.rglob(errors.RECORD))
        if not records:
            raise errors.FailedError(f"the run failed: see {folder / LOG}") from None
        errors.reraise(records[0])
    (evaluation,) = folder.glob("*/evaluate/evaluation")
    results = json.loads((evaluation / "metrics.json").read_text())
    print(
        f"\nscore      {scored(results)}"
        f"\nmodel      {task.outputs['model_uri']}, alias {arguments['alias']}"
        f"\ngate       {task.outputs['gate']}"
        f"\nreport     {evaluation / 'report.html'}"
        f"\noutputs    {folder} (log: {LOG})"
        f"\nMLflow     {_ui_command(tracking_uri)}",
        flush=True,
    )


def _tracking_uri(asked: str, runs_dir: Path) -> str:
    """The server asked for, or an sqlite file: made here, before stages could race to make it."""
    if uri := asked or os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    file = runs_dir / "mlflow.db"
    if not file.exists():
        import mlflow  # seconds, once

        runs_dir.mkdir(parents=True, exist_ok=True)
        mlflow.MlflowClient(f"sqlite:///{file}").search_experiments(max_results=1)
    return f"sqlite:///{file}"


def _ui_command(tracking_uri: str) -> str:
    if tracking_uri.startswith("http"):
        return tracking_uri
    return f"{Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {tracking_uri}"


def _stop_children(signum: int, frame: object) -> None:
    """kfp waits for its processes whatever happens: end them first."""
    for child in psutil.Process().children():
        child.terminate()
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    with errors.exit_codes():
        try:
            app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
        except cyclopts.CycloptsError as error:
            raise errors.UserError(f"{' '.join(str(error).split())} See {NAME} --help.") from None
