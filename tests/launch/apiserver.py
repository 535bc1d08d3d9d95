"""What a Kubernetes API server does with a request, over the recorded objects; and the handles by which a test moves it."""

import secrets
import time
from collections.abc import Sequence

from asked import TRUE, Request, kind_of, selected
from recorded import JOBS, ApiError, Json, Objects, Run, load, merged

REVIEWS = "authorization.k8s.io/v1"
TRAINER = "trainer.kubeflow.org/v1alpha1"
# reset: no answer, or a stream cut in the middle; lost: done, but no answer; timeout: silence until the client gives up.
KINDS = ("reset", "lost", "timeout", "429", "500", "503", "410")


class Cluster:
    """The server's state, and the handles by which a test moves it."""

    def __init__(self, scenarios: Sequence[str], speed: float) -> None:
        self.objects = Objects(scenarios, speed)
        self.url = ""
        self.requests: list[Request] = []
        self.created: list[Json] = []  # the manifests of jobs, as they were posted
        self.token: str | None = None  # where set, another bearer token gets 401
        self.retry_after = 0  # seconds that a 429 asks for
        self.closing = False
        self.errors: list[BaseException] = []
        self.denied: set[tuple[str, str]] = set()
        self.served = {"v1": {"pods", "events"}, REVIEWS: {"selfsubjectaccessreviews"}}
        self.served |= {"kubeflow.org/v1": {"pytorchjobs"}, TRAINER: {"trainjobs"}}
        self._refusals: list[tuple[Json, int | None]] = []
        self._planned: dict[int, str] = {}
        self._once = ""
        self._seen: set[tuple[str, ...]] = set()
        self._always = ""

    def add(self, resource: str, item: Json) -> None:
        """Put an object there, e.g. add("pods", {...}) for the launcher's own; its API is served from then on."""
        with self.objects.changed:
            self.served.setdefault(item["apiVersion"], set()).add(resource)
            self.objects.apply(resource, "ADDED", merged({"metadata": {"uid": f"added-{len(self.objects.past)}"}}, item))

    def deny(self, verb: str, resource: str) -> None:
        """403 on it, and access reviews that say so. A subresource is written pods/log; its verb is get."""
        self.denied.add((verb, resource))

    def without_crd(self) -> None:
        """As if neither the training operator nor Trainer had ever been installed."""
        del self.served["kubeflow.org/v1"], self.served[TRAINER]

    def refuse(self, scenario: str, answer: str, times: int | None = None) -> None:
        """Answer the creation of jobs with a recorded answer, `times` times or always."""
        (found,) = [one for one in load(scenario)["answers"] if one["name"] == answer]
        self._refusals.append((found, times))

    def fail(self, nth_request: int, kind: str) -> None:
        """Fail the n-th request from now on; 1 is the next."""
        self._planned[len(self.requests) + nth_request] = _kind(kind)

    def fail_each_endpoint_once(self, kind: str) -> None:
        """Fail the first request from now on of each verb on each resource."""
        self._once, self._seen = _kind(kind), set()

    def fail_all(self, kind: str = "") -> None:
        """Fail every request, until it is called without a kind."""
        self._always = kind and _kind(kind)

    def moment(self) -> float:
        """How many recorded seconds have passed since the last job was created; negative before any."""
        with self.objects.changed:
            latest = next(reversed(self.objects.jobs.values()), None)
            return self.objects.now() - latest.start if latest else -1.0

    def wait_until(self, moment: float) -> None:
        """Sleep till a job was created and its recording has come to that second."""
        with self.objects.changed:
            assert self.objects.changed.wait_for(lambda: self.objects.jobs, timeout=60), "no job was created"
        time.sleep(max(0.0, moment - self.moment()) / self.objects.speed)

    def skip_to(self, moment: float) -> None:
        """Put the clock forward; what was due till then happens at once."""
        with self.objects.changed:
            self.objects.ahead += max(0.0, moment - self.moment())
            self.objects.advance()
            self.objects.changed.notify_all()

    def left_behind(self) -> list[str]:
        """Names of jobs that were not deleted, and of pods that would still run on."""
        with self.objects.changed:
            self.objects.advance()
            jobs = [job for resource in JOBS for job in self.objects.all(resource, "")]
            pods = self.objects.all("pods", "")
            pods = [pod for pod in pods if self.objects.job_of(pod) and pod["status"]["phase"] in ("Pending", "Running")]
        return [item["metadata"]["name"] for item in jobs + pods if "deletionTimestamp" not in item["metadata"]]

    def fault_of(self, request: Request) -> str:
        """Note the request, and say how it is to fail, if so."""
        self.requests.append(request)
        planned = self._planned.pop(len(self.requests), "")
        if self._once and request.endpoint() not in self._seen:
            self._seen.add(request.endpoint())
            return self._once
        return planned or self._always

    def refusal(self) -> Json | None:
        if not self._refusals:
            return None
        answer, times = self._refusals[0]
        if times is not None:
            self._refusals[:1] = [(answer, times - 1)] if times > 1 else []
        return answer

    # What a request does. All of these hold the lock.

    def check_rights(self, r: Request, token: str) -> None:
        if self.token is not None and token != f"Bearer {self.token}":
            raise ApiError(401, "Unauthorized", "Unauthorized")
        if (r.verb, r.within()) not in self.denied:
            return
        what = f'{r.qualified()} "{r.name}"' if r.name else r.qualified()
        message = f'{what} is forbidden: User "system:serviceaccount:{r.namespace}:launcher" cannot {r.verb} resource'
        message += f' "{r.within()}" in API group "{r.group}" in the namespace "{r.namespace}"'
        raise ApiError(403, "Forbidden", message, **r.details())

    def item(self, r: Request) -> Json:
        self.objects.advance()
        found = self.objects.state.get((r.resource, r.namespace, r.name))
        if found is None:
            raise ApiError(404, "NotFound", f'{r.qualified()} "{r.name}" not found', **r.details())
        return found

    def answer(self, r: Request, body: Json, content_type: str) -> Json:
        if r.verb == "create":
            return self.create(r, body)
        if r.verb == "patch":
            return self.patch(r, body, content_type)
        if r.verb == "delete" and r.name:
            return self.delete(r, body)
        if r.verb == "get":
            return self.item(r)
        if r.verb == "list":
            return self.listing(r)
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def create(self, r: Request, body: Json) -> Json:
        if r.resource == "selfsubjectaccessreviews":
            wanted = body["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (wanted["resource"], wanted.get("subresource"))))
            return body | {"status": {"allowed": (wanted["verb"], resource) not in self.denied}}
        metadata = body.setdefault("metadata", {})
        if "name" not in metadata:
            metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
        name = metadata["name"]
        self.objects.advance()
        there = self.objects.state.get((r.resource, r.namespace, name))
        if there:
            before = "object is being deleted: " if "deletionTimestamp" in there["metadata"] else ""
            details = r._replace(name=name).details()
            raise ApiError(409, "AlreadyExists", f'{before}{r.qualified()} "{name}" already exists', **details)
        if "dryRun" in r.query:
            return merged({"metadata": {"namespace": r.namespace, "uid": "dry-run"}}, body)
        if r.resource in JOBS:
            self.created.append(body)
            return self.objects.create_job(body, r.namespace)
        made = {"metadata": {"namespace": r.namespace, "uid": f"made-{len(self.objects.past)}"}}
        return self.objects.apply(r.resource, "ADDED", merged(made, body))

    def patch(self, r: Request, body: Json, content_type: str) -> Json:
        if content_type not in ("application/merge-patch+json", "application/json"):
            accepted = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
            message = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
            raise ApiError(415, "UnsupportedMediaType", message)
        item = self.item(r)
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in (None, item["metadata"]["resourceVersion"]):
            message = f'Operation cannot be fulfilled on {r.qualified()} "{r.name}": the object has been modified; please'
            message += " apply your changes to the latest version and try again"
            raise ApiError(409, "Conflict", message, **r.details())
        return self.objects.patch(r.resource, item, body)

    def delete(self, r: Request, options: Json) -> Json:
        item = self.item(r)
        uid, wanted = item["metadata"]["uid"], options.get("preconditions", {}).get("uid")
        if wanted not in (None, uid):
            message = f'Operation cannot be fulfilled on {item["kind"]}.{r.group} "{r.name}": the UID in the precondition '
            message += (
                f"({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
            )
            raise ApiError(409, "Conflict", message, **r.details() | {"kind": item["kind"]})
        foreground = (options.get("propagationPolicy") or r.query.get("propagationPolicy")) == "Foreground"
        if "dryRun" not in r.query and not options.get("dryRun"):
            item = self.objects.delete(r.resource, item, foreground=foreground)
        if foreground or r.resource == "pods":
            return item
        details = r.details() | {"uid": uid}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def listing(self, r: Request) -> Json:
        self.objects.advance()
        found = [item for item in self.objects.all(r.resource, r.namespace) if selected(r, item)]
        metadata = {"resourceVersion": str(self.objects.version())}
        version = f"{r.group}/v1" if r.group else "v1"
        return {"apiVersion": version, "kind": f"{kind_of(r.resource)}List", "metadata": metadata, "items": found}

    def log(self, r: Request) -> Run | None:
        """The container's life whose log is asked for; None before the pod has a node."""
        pod = self.item(r)
        container = r.query.get("container", "")
        names = [one["name"] for one in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]]
        if container and container not in names:
            raise ApiError(400, "BadRequest", f"container {container} is not valid for pod {r.name}")
        if "nodeName" not in pod["spec"]:
            return None
        job = self.objects.job_of(pod)
        if job and job.is_lost(self.objects.now()):
            follow = "?follow=true" if r.query.get("follow") in TRUE else ""
            where = f"https://10.0.0.11:10250/containerLogs/{r.namespace}/{r.name}/{container or 'pytorch'}{follow}"
            raise ApiError(500, "", f'Get "{where}": dial tcp 10.0.0.11:10250: connect: connection refused')
        container = container or pod["spec"]["containers"][0]["name"]
        if container in [one["name"] for one in pod["spec"].get("initContainers", [])]:
            return Run(0, 0.0, 0.0)  # nothing was recorded of it
        status = next((one for one in pod["status"].get("containerStatuses", []) if one["name"] == container), None)
        runs = [run for run in job.runs[pod["metadata"]["uid"]] if run.start <= self.objects.now()] if job else []
        named = f'container "{container}" in pod "{r.name}"'
        if r.query.get("previous") in TRUE:
            runs = [run for run in runs if status and run.attempt < status["restartCount"]]
            if not runs:
                raise ApiError(400, "BadRequest", f"previous terminated {named} not found")
        if runs:
            return runs[-1]
        if status is None:
            raise ApiError(400, "BadRequest", f"{named} is not available")
        reason = status["state"].get("waiting", {}).get("reason", "ContainerCreating")
        words = {"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image"}
        raise ApiError(400, "BadRequest", f"{named} is waiting to start: {words.get(reason, reason)}")


def _kind(kind: str) -> str:
    assert kind in KINDS, kind
    return kind
