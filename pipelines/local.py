"""Run a pipeline on this machine, with nothing but Python: python -m pipelines.local adapt --task sst2 --source sample ...

The same pipeline function that is compiled for a cluster runs under kfp's local runner, a process per stage, with MLflow in an
sqlite file. Every run has a folder of its own below --runs-dir. The iterations of a loop run one after another.
"""

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import psutil
from kfp import local
from kfp.dsl.graph_component import GraphComponent

from components import errors, parameters
from components.artifacts.folders import CACHE
from components.artifacts.names import METRICS, REPORT
from components.evaluate.stage import scored
from components.resolve.stage import OF_RUNS, every_run
from components.suite.stage import PAGE, SUBMISSION, TEXT, run_name
from components.tracking.server import RUNS, STORE, sqlite_uri
from pipelines import command, table
from pipelines.command import arguments_of, command_line, parsed
from pipelines.console import Terminal, stages_only

LOCAL = {name: pipeline for name, pipeline in table.PIPELINES.items() if name != "doctor"}
LOG = "run.log"
ROOT = Path(__file__).parents[1]

app = command_line("python -m pipelines.local", __doc__, LOCAL)


@app.meta.default
def main(
    *tokens: Annotated[str, cyclopts.Parameter(show=False, allow_leading_hyphen=True)],
    runs_dir: Path = RUNS,
    cache: bool = True,
) -> None:
    """Run a pipeline.

    Args:
        runs_dir: Folder for the runs' outputs and, unless MLFLOW_TRACKING_URI or tracking_uri names a server, for mlflow.db.
        cache: Take from earlier runs in runs_dir what was made of the same data, by the same code, with the same parameters.
    """
    asked = parsed(app, tokens)
    if asked is None:
        return
    if cache:
        os.environ.setdefault(CACHE, str(runs_dir.resolve() / "cache"))
    else:
        os.environ.pop(CACHE, None)
    run(*asked, runs_dir.resolve())


def run(name: str, given: dict[str, Any], runs_dir: Path) -> None:
    """Run the pipeline `name` with what is given of its parameters, and print where everything went.

    Raises:
        UserError: a parameter that is none; there is no folder then.  StageError: as the stage that failed raised it.
    """
    arguments, iterations = arguments_of(LOCAL[name], given), _iterations(name, given)
    folder = runs_dir / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    tracking_uri = _tracking_uri(given.get("tracking_uri", ""), runs_dir)
    os.environ |= {"MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_DISABLE_TELEMETRY": "1"}
    os.environ["PIPELINE_RUN_ID"] = folder.name
    os.environ["TORCHELASTIC_ERROR_FILE"] = str(folder / errors.RECORD)  # of a step without an output beside which it could be
    os.environ.pop("MLFLOW_RUN_ID", None)  # not a run that Kubeflow opened for one of our tasks
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(folder))
    one_at_a_time(LOCAL[name])
    try:
        with stages_only(folder / LOG, iterations) as terminal:
            _heed_signals(terminal)
            task = LOCAL[name](**arguments)
    except RuntimeError:  # kfp says only which task failed; the task itself has left a record
        records = sorted(folder.rglob(errors.RECORD))
        if not records:
            raise errors.FailedError(f"the run failed: see {folder / LOG}") from None
        errors.reraise(records[0])
    is_table = name in ("suite", "suite-of-runs", "pretrain")
    print(
        *(_of_suite(folder) if is_table else _of_adapt(folder, task.outputs, given.get("alias", parameters.alias))),
        f"outputs    {folder} (log: {LOG})",
        "\nnext, from this shell:",
        *(f"  {command}" for command in _next(tracking_uri, runs_dir)),
        sep="\n",
        flush=True,
    )


def one_at_a_time(pipeline: GraphComponent) -> None:
    """Let the pipeline's loops run one iteration after another, here: kfp would run two, which share the cores badly."""
    spec = pipeline.pipeline_spec
    for component in (spec.root, *spec.components.values()):
        for task in component.dag.tasks.values():
            if task.WhichOneof("iterator"):
                task.iterator_policy.parallelism_limit = 1


def _iterations(name: str, given: dict[str, Any]) -> list[str]:
    """What the iterations of the pipeline's loop are called."""
    if name in ("suite", "pretrain"):
        return [run_name(it["task"], it["seed"]) for it in every_run({each: given[each] for each in OF_RUNS if each in given})]
    return [f"part {part}" for part in range(given.get("num_parts", 0))]


def _of_adapt(folder: Path, outputs: dict[str, Any], alias: str) -> list[str]:
    (evaluation,) = folder.glob("*/evaluate/evaluation")
    results = json.loads((evaluation / METRICS).read_text())
    return [
        f"\nscore      {scored(results)}",
        f"model      {outputs['model_uri']}, alias {alias}",
        f"gate       {outputs['gate']}",
        f"report     {evaluation / REPORT}",
    ]


def _of_suite(folder: Path) -> list[str]:
    (glue,) = folder.glob("*/suite*/glue")
    submission = glue / SUBMISSION
    said = submission if submission.is_file() else "none, of generated data"
    model = [f"model      {path}" for path in folder.glob("*/pretrain/pretrained")]
    return ["", (glue / TEXT).read_text(), f"table      {glue / PAGE}", f"submission {said}", *model]


def _tracking_uri(asked: str, runs_dir: Path) -> str:
    """The server asked for, or an sqlite file: made here, before stages could race to make it."""
    if uri := asked or os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    file = runs_dir / STORE
    if not file.exists():
        import mlflow  # seconds, once

        runs_dir.mkdir(parents=True, exist_ok=True)
        mlflow.MlflowClient(sqlite_uri(file)).search_experiments(max_results=1)
    return sqlite_uri(file)


def _next(tracking_uri: str, runs_dir: Path) -> list[str]:
    """Commands that work as they stand, where this one was given."""
    export = f"export MLFLOW_TRACKING_URI={shlex.quote(tracking_uri)}"
    if Path.cwd() == ROOT and tracking_uri == sqlite_uri(RUNS / STORE):
        return ["make serve", "make ui", export]
    runs = "" if runs_dir == RUNS.resolve() else f" --runs-dir {shlex.quote(str(runs_dir))}"
    serve = f"{sys.executable} -m pipelines.serve{runs}"
    ui = f"{Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {shlex.quote(tracking_uri)}"
    return [export, serve, *([] if tracking_uri.startswith("http") else [ui])]


def _heed_signals(terminal: Terminal) -> None:
    """End the stage that runs, and start no other: kfp waits for its processes and its loops whatever happens."""

    def end(signum: int, frame: object) -> None:
        terminal.stopped = True
        for shell in psutil.Process().children():
            for process in (shell, *shell.children()):  # a shell does not hand the signal on to its stage
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.terminate()
        raise SystemExit(128 + signum)

    def interrupt(signum: int, frame: object) -> None:  # which the stage has got too, from the terminal
        terminal.stopped = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


if __name__ == "__main__":
    command.run(app)
