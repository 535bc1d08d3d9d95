"""Training jobs as the cluster's objects: made, found and deleted, one for a task of a run and never two."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from components.errors import NeverStartedError, TryAgainError, UserError
from components.launch.api import JOBS, PODS, TRAIN_JOBS, WORKFLOWS, Api, ApiError, AwayError, NoClusterError, Object, connect
from components.launch.job import DIGEST, RUN_LABEL, TASK_LABEL, label_value
from components.launch.state import State
from components.parameters import JobKind

PATHS: dict[JobKind, str] = {"pytorchjob": JOBS, "trainjob": TRAIN_JOBS}
POD_LABEL: dict[JobKind, str] = {"pytorchjob": "training.kubeflow.org/job-name", "trainjob": "jobset.sigs.k8s.io/jobset-name"}
INSTALL: dict[JobKind, str] = {"pytorchjob": "Kubeflow training operator", "trainjob": "Kubeflow Trainer"}
GRACE = 180.0  # seconds that pods may take to go


def create(api: Api, kind: JobKind, body: Object, start: float = math.inf) -> Object:
    """The job, new or found: one that this task made with the same manifest is taken over, unless it has failed.

    Args:
        start: Seconds that it may take, the operator's webhook being away; but a few slow answers are waited for.

    Raises:
        UserError: the cluster refuses it, or the name is somebody else's.
        NeverStartedError: it took longer.
    """
    name, until = body["metadata"]["name"], time.monotonic() + GRACE
    while True:
        try:
            return api.request("POST", PATHS[kind], body, {"fieldValidation": "Strict"}, max(start, 6 * api.patience.answer))
        except TryAgainError as error:
            raise NeverStartedError(f"the training job cannot be created: {error}") from None
        except ApiError as error:
            if error.status != 409:
                raise refused(error, kind, api.namespace) from None
        there = get(api, kind, name)
        if there and "deletionTimestamp" not in there["metadata"]:
            if not is_ours(there, body):
                raise UserError(f"there is a {there['kind']} {name} that is not this run's: delete it, or submit the run again")
            same = there["metadata"].get("annotations", {}).get(DIGEST) == body["metadata"]["annotations"][DIGEST]
            if same and not State(job=there).condition("Failed"):
                return there
            delete(api, kind, name, there["metadata"]["uid"])
            await_gone(api, kind, name, partial(time.sleep, api.patience.pause))
        if time.monotonic() > until:
            raise TryAgainError(f"an earlier {body['kind']} {name} is still being deleted")
        time.sleep(api.patience.pause)


def is_ours(there: Object, body: Object) -> bool:
    """Of this very task of this very run."""
    theirs, ours = there["metadata"].get("labels", {}), body["metadata"]["labels"]
    return all(theirs.get(key) == ours.get(key) for key in (RUN_LABEL, TASK_LABEL))


def delete(api: Api, kind: JobKind, name: str, uid: str) -> None:
    """Delete the job. One that is gone already, or is another one by now, is left alone."""
    options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
    try:
        api.request("DELETE", f"{PATHS[kind]}/{name}", options)
    except ApiError as error:
        if error.status not in (404, 409):
            raise refused(error, kind, api.namespace) from None


def await_gone(api: Api, kind: JobKind, name: str, pause: Callable[[], None]) -> None:
    """Until the job has no pods: they outlive it by their grace, still write, and would meet those of a job that came next."""
    until = time.monotonic() + GRACE
    while api.request("GET", PODS, query={"labelSelector": f"{POD_LABEL[kind]}={name}"})["items"]:
        if time.monotonic() > until:
            print(f"warning: pods of {name} are still there {GRACE:.0f} s after it was deleted", flush=True)
            return
        pause()


def delete_run(pipeline_run_id: str, namespace: str = "") -> list[str]:
    """Delete every training job of a pipeline run. Their names; none where there is no cluster."""
    try:
        api = connect(namespace)
    except NoClusterError:
        return []
    found = []
    for kind, path in PATHS.items():
        try:
            jobs = api.request("GET", path, query={"labelSelector": f"{RUN_LABEL}={label_value(pipeline_run_id)}"})["items"]
        except ApiError as error:
            if error.status == 404:  # that operator is not installed
                continue
            raise refused(error, kind, api.namespace) from None
        for job in jobs:
            delete(api, kind, job["metadata"]["name"], job["metadata"]["uid"])
            print(f"clean_up: training job {job['metadata']['name']} is deleted", flush=True)
            found.append(job["metadata"]["name"])
    return found


def is_over(pipeline_run_id: str, namespace: str = "") -> bool:
    """Whether Kubeflow is done with a pipeline run; False where that cannot be known."""
    try:
        query = {"labelSelector": f"pipeline/runid={pipeline_run_id}"}
        workflows = connect(namespace).ask("GET", WORKFLOWS, query=query)["items"]
    except (NoClusterError, ApiError, AwayError):
        return False
    return all(each.get("status", {}).get("phase") in ("Succeeded", "Failed", "Error") for each in workflows)


def get(api: Api, kind: JobKind, name: str) -> Object | None:
    try:
        return api.request("GET", f"{PATHS[kind]}/{name}")
    except ApiError as error:
        if error.status == 404:
            return None
        raise refused(error, kind, api.namespace) from None


def owner(api: Api, pod_name: str) -> Object | None:
    """What a job of ours is to die with: the workflow that our own pod belongs to, else the pod; None if it cannot be read."""
    if not pod_name:
        return None
    try:
        pod = api.request("GET", f"{PODS}/{pod_name}")
    except ApiError:
        return None
    references: list[Any] = pod["metadata"].get("ownerReferences", [])
    found = references[0] if references else {"apiVersion": "v1", "kind": "Pod", **pod["metadata"]}
    return {key: found[key] for key in ("apiVersion", "kind", "name", "uid")}


def refused(error: ApiError, kind: JobKind, namespace: str) -> UserError:
    """What a refusal means to the user. The webhook's are 403 as those of missing rights are."""
    if error.status == 401:
        return UserError(
            f"the cluster does not accept our credentials ({error.message}): is the service account's token valid?"
        )
    if error.status == 404 and not error.reason:  # an API that is not there answers with plain text
        return UserError(f"the cluster does not know {kind}s: install the {INSTALL[kind]}, or choose another launcher")
    if error.status == 403 and "admission webhook" not in error.message and "violates PodSecurity" not in error.message:
        return UserError(f"no rights in namespace {namespace}: {error.message}; see k8s/base")
    return UserError(f"the cluster refuses the training job: {error.message}")
