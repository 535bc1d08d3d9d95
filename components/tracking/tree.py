"""A pipeline run in MLflow: a run of its own, below it one for each iteration of its loop, and below those the stages'.

No name in MLflow is of one run only: processes that look at the same moment all find none, and make one each. So whoever has
made one waits and looks again. Of those that are there by then everybody prefers the same: it is marked as settled upon, and
who comes later takes it; the others are deleted by those who made them. What a crash leaves behind is passed over.
"""

import time
from collections.abc import Mapping, Sequence

import mlflow
from mlflow.entities import Param, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

PIPELINE_RUN_TAG = "kfp.pipeline_run_id"
LEVEL = "stage"
"""Tag of a run that has others below it: pipeline or iteration."""
ITERATION = "iteration"
SETTLED = "settled"
LAST = "last"
"""Tag of a stage's run after which no other is to come on its level."""
SETTLE_SECONDS = 1.0
"""How much longer than another's wait a process may take from looking for a run to marking it."""
MOST_RUNS = 50_000  # that the server lists at once


def of_pipeline(pipeline_run_id: str) -> dict[str, str]:
    """The tags of a pipeline run's own run."""
    return {PIPELINE_RUN_TAG: pipeline_run_id, LEVEL: "pipeline"}


def of_iteration(pipeline_run_id: str, name: str, parent_id: str) -> dict[str, str]:
    """The tags of an iteration's run."""
    return {PIPELINE_RUN_TAG: pipeline_run_id, LEVEL: ITERATION, ITERATION: name, MLFLOW_PARENT_RUN_ID: parent_id}


def with_tags(client: mlflow.MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> list[Run]:
    """In the order in which everybody prefers them: those that were settled upon, then by age."""
    query = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = client.search_runs([experiment_id], query, max_results=MOST_RUNS)
    return sorted(found, key=lambda run: (SETTLED not in run.data.tags, run.info.start_time, run.info.run_id))


def the_one(
    client: mlflow.MlflowClient,
    experiment_id: str,
    name: str,
    tags: Mapping[str, str],
    params: Mapping[str, str] = {},
    alone: bool = False,
) -> Run:
    """The one run with these tags, made by whoever comes first.

    Args:
        params: Of a run that is made here. MLflow refuses them where two log the same at the same moment.
        alone: Nobody else can be making it now.
    """
    found = with_tags(client, experiment_id, tags)
    if found and SETTLED in found[0].data.tags:
        return found[0]
    mine = None
    if not found:
        mine = client.create_run(experiment_id, tags={**tags, **({SETTLED: "true"} if alone else {})}, run_name=name)
        client.log_batch(mine.info.run_id, params=[Param(name, value) for name, value in params.items()])
        if alone:
            return mine
    time.sleep(SETTLE_SECONDS)  # those who found none either have theirs by now, or will see this one's mark
    first, *_ = with_tags(client, experiment_id, tags)
    if SETTLED not in first.data.tags:
        _mark(client, first.info.run_id)
    if mine and first.info.run_id != mine.info.run_id:
        client.delete_run(mine.info.run_id)
    return first


def _mark(client: mlflow.MlflowClient, run_id: str) -> None:
    try:
        client.set_tag(run_id, SETTLED, "true")
    except MlflowException:  # where two set the same tag at the same moment the server's database refuses one
        if SETTLED not in client.get_run(run_id).data.tags:
            raise


def below(client: mlflow.MlflowClient, run: Run) -> list[Run]:
    return with_tags(client, run.info.experiment_id, {MLFLOW_PARENT_RUN_ID: run.info.run_id})


def status_of(runs: Sequence[Run]) -> str:
    """What the runs below another say of it, whichever of them came last.

    FAILED, KILLED: one has failed, or was stopped, and none of its name has begun since. RUNNING: one runs, or the last is
    still to come. FINISHED.
    """
    ordered = sorted(runs, key=lambda run: run.info.start_time)
    standing = [
        run
        for number, run in enumerate(ordered)
        # One that runs may have been killed without a word, and is given up when the next of its name begins.
        if not any(
            later.info.run_name == run.info.run_name and later.info.start_time >= (run.info.end_time or run.info.start_time)
            for later in ordered[number + 1 :]
        )
    ]
    statuses = {run.info.status for run in standing}
    for end in ("FAILED", "KILLED"):
        if end in statuses:
            return end
    is_over = statuses <= {"FINISHED"} and any(LAST in run.data.tags for run in standing)
    return "FINISHED" if is_over else "RUNNING"


def settle(client: mlflow.MlflowClient, levels: Sequence[Run]) -> None:
    """Let every level say what those below it say.  levels: from the top.

    What is written is looked at again, since a run beside this one may have ended between reading and writing.
    """
    for level in reversed(levels):
        while (status := status_of(below(client, level))) != client.get_run(level.info.run_id).info.status:
            if status == "RUNNING":
                client.update_run(level.info.run_id, status)
            else:
                client.set_terminated(level.info.run_id, status)


def end(client: mlflow.MlflowClient, run: Run) -> list[str]:
    """Mark as killed what is still open of a run and all below it.

    Returns:
        The names of what was open.
    """
    ended = [name for child in below(client, run) for name in end(client, child)]
    if run.info.status == "RUNNING":
        client.set_terminated(run.info.run_id, "KILLED")
        ended.append(str(run.info.run_name))
    return ended
