"""One GLUE table of many evaluations, and the zip that GLUE's server takes."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.artifacts.folders import Artifact, Manifest, origin, read_manifest
from components.artifacts.names import METRICS, TEST_PREDICTIONS
from components.errors import UserError
from components.parameters import documented
from components.tasks.table import TASKS, of_glue

TABLE = "table.json"
TEXT = "table.md"
PAGE = "table.html"
SUBMISSION = "submission.zip"
FITS = 2
"""Runs of one suite of which Kubeflow can still tell how they stand: its Workflow object may have 1 MiB. With twelve a run has
died, and its pods ran on. benchmarks/workflow_size.py says how many to expect."""


def runs(tasks: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every task with every seed: [{"glue_task": ..., "seed": ...}], all seeds of a task in a row.

    Raises:
        UserError: a task that GLUE's average has not, none of either, or one twice.
    """
    known = [name for name, task in TASKS.items() if task.submission]
    for name, values in (("tasks", tasks), ("seeds", seeds)):
        if not values:
            raise UserError(f"{name} is empty: give at least one")
        if twice := [str(value) for value, count in Counter(values).items() if count > 1]:
            raise UserError(f"{name} has {', '.join(twice)} more than once: give each once")
    if unknown := [task for task in tasks if task not in known]:
        raise UserError(f"tasks has '{unknown[0]}', which is no task of GLUE's table: choose from {', '.join(known)}")
    return [{"glue_task": task, "seed": seed} for task in tasks for seed in seeds]  # `task` is taken, in a KFP loop


def check_fits(tasks: Sequence[str], seeds: Sequence[float]) -> None:
    """UserError where Kubeflow cannot take them as one run. On a laptop there is no such limit."""
    if (number := len(tasks) * len(seeds)) > FITS:
        raise UserError(
            f"tasks and seeds make {number} runs, and Kubeflow holds {FITS} of them in one: python -m pipelines.submit suite "
            "sends each as a run of its own, and then makes their table"
        )


def run_name(task: str, seed: int) -> str:
    return f"{task}, seed {seed}"


@documented
def suite(*, evaluation_dirs: list[Path], output_dir: Path) -> Manifest:
    """Make the GLUE table of one model with one method: mean and spread over seeds, averages, published figures beside them.

    Writes table.json (all of it, as numbers), table.md and table.html (to be read), submission.zip (the test predictions of
    each task's best seed on the validation split, as GLUE's server wants them) and manifest.json. Of generated data there is
    no submission, and nothing published to compare with.
    """
    return collect(*plan(evaluation_dirs, output_dir))


def collect(artifact: Artifact, results: Mapping[Path, dict[str, Any]]) -> Manifest:
    """What `plan` says: the table of these results."""
    if manifest := artifact.cached():
        return manifest

    # A second to import: `--help` and what is cached need not wait.
    from jinja2 import Environment, FileSystemLoader

    from components.suite.submission import write_submission
    from components.suite.table import markdown, notes_of, rows_of, summarize, title

    with artifact.building() as folder:
        table = summarize(list(results.values()))
        if not table["generated"]:
            best = {
                result["task"]: evaluation_dir / TEST_PREDICTIONS
                for evaluation_dir, result in results.items()
                if result["seed"] == table["tasks"][result["task"]]["best_seed"]
            }
            table["submission"] = write_submission(folder / SUBMISSION, best)
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        page = environment.get_template(f"{PAGE}.j2").render(title=title(table), rows=rows_of(table), notes=notes_of(table))
        (folder / PAGE).write_text(page)
        (folder / TEXT).write_text(markdown(table))
        (folder / TABLE).write_text(json.dumps(table, indent=1) + "\n")
    on = ", generated data" * bool(table["generated"])
    print(f"{len(results)} evaluations, average {table['averages']['average']['mean']:.4f}{on}", flush=True)
    return artifact.manifest()


def plan(
    evaluation_dirs: Sequence[Path], output_dir: Path, uris: Mapping[Path, str] = {}
) -> tuple[Artifact, dict[Path, dict[str, Any]]]:
    """What `suite` will write of these evaluations, and what each measured; nothing slow is imported to say so.

    Args:
        uris: Where those come from that were fetched.

    Raises:
        UserError: no evaluation, one of another kind of task, two of the same task and seed, of different models or methods, or
        some of generated data and some of real data.
    """
    if not evaluation_dirs:
        raise UserError("evaluation_dirs is empty: give the folders that components.evaluate wrote")
    inputs, results, origins = {}, {}, {}
    first: dict[str, Any] = {}
    for folder in evaluation_dirs:
        manifest = read_manifest(folder, "evaluate")
        result: dict[str, Any] = {"generated": "", **json.loads((folder / METRICS).read_text())}
        first = first or result
        runs([of_glue(result["task"], result["generated"])], [result["seed"]])
        run = f"{result['task']}-{result['seed']}"
        if run in inputs:
            raise UserError(f"{folder} is a second evaluation of {run}: give one")
        if different := [name for name in ("model", "method") if result[name] != first[name]]:
            raise UserError(
                f"{folder} is of another {', '.join(different)} than {evaluation_dirs[0]}: one table has one of each"
            )
        if bool(result["generated"]) != bool(first["generated"]):
            one, other = (folder, evaluation_dirs[0]) if result["generated"] else (evaluation_dirs[0], folder)
            raise UserError(f"{one} is of generated data, {other} is not: one table has one of both")
        inputs[run], results[folder] = manifest["digest"], result
        origins[run] = {**origin(folder, manifest), **({"uri": uris[folder]} if folder in uris else {})}
    return Artifact(output_dir, "suite", {}, inputs, origins), results


def flat(table: dict[str, Any]) -> dict[str, float]:
    """Every mean and standard deviation of table.json by one name: TASK_mean, TASK_sd, average_mean and so on."""
    named = {**table["tasks"], **table["averages"]}
    numbers = {f"{name.replace(' ', '_')}_{what}": row[what] for name, row in named.items() for what in ("mean", "sd")}
    return {name: value for name, value in numbers.items() if value is not None}
