"""Whether what a run asks for may be had: the nodes' GPUs, the namespace's quotas, and its LimitRanges."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

from kubernetes.utils.quantity import parse_quantity

from components.doctor import controller
from components.doctor.checks import ASK
from components.doctor.finding import Finding, Status, ask
from components.launch.api import Api, ApiError, Object
from components.launch.job import Job

GPU = "nvidia.com/gpu"


def _asks(cpu: str, cpu_limit: str, memory: str, memory_limit: str) -> Object:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu_limit, "memory": memory_limit}}


STEPS: Mapping[str, Object] = {
    "the light steps (resolve, suite, clean-up, doctor)": _asks("100m", "2", "512Mi", "1Gi"),
    "tokenize": _asks("500m", "4", "1Gi", "4Gi"),
    "train": _asks("100m", "8", "512Mi", "16Gi"),
    "evaluate, register, promote": _asks("500m", "4", "2Gi", "4Gi"),
}
"""As pipelines/resources.py compiles them in, if nothing else was said."""
OF_KUBEFLOW: Mapping[str, Object] = {
    "Kubeflow's driver": _asks("100m", "500m", "64Mi", "512Mi"),
    "Kubeflow's kfp-launcher": _asks("100m", "500m", "128Mi", "128Mi"),
}
"""As Kubeflow Pipelines 2.17 makes them."""
ARGO = "Argo's init and wait"
"""In every pod of a step. They ask for nothing, unless the workflow controller is told otherwise."""
WORKER = "a training worker"
RANK_MEMORY = "1418Mi"
"""That a rank with MiniLM was measured to take at batches of 64 (docs/cluster.md)."""
SIDECARS = (ARGO, "Kubeflow's kfp-launcher")
"""Never alone in a pod: what a LimitRange says of pods they keep by the others."""

LIMIT_RANGE = "give the namespace a LimitRange with default and defaultRequest for cpu and memory (docs/doctor.md has one)"
COMPILE = "compile the pipelines with other --resources, or ask for another LimitRange"
SIZE = "give --cpu-per-worker and --memory-per-worker"


def has_gpus(api: Api, num_workers: int, num_gpus_per_worker: int) -> Finding:
    """Whether the nodes could hold the workers, if nothing else ran there."""
    if not num_gpus_per_worker:
        return Finding("skipped", "none asked for: give --num-gpus-per-worker")
    nodes = ask(api, "GET", "/api/v1/nodes", query={"limit": 5000})["items"]
    free = [int(node["status"].get("allocatable", {}).get(GPU, 0)) for node in nodes if not node["spec"].get("unschedulable")]
    places = sum(gpus // num_gpus_per_worker for gpus in free)
    found = f"{sum(free)} {GPU} on {sum(map(bool, free))} nodes, place for {places} workers of {num_gpus_per_worker}"
    if places < num_workers:
        return Finding("failed", f"{found}, {num_workers} are asked for", "ask for fewer workers, or fewer GPUs in each")
    return Finding("ok", f"{found}, if nothing else used them")


def has_room(api: Api, job: Job) -> Finding:
    """Whether the namespace's quotas leave room for the workers."""
    quotas = _listed(api, "resourcequotas")
    of_all_pods = [each for each in quotas if _is_of_all_pods(each)]
    if not of_all_pods:
        return Finding("ok", "no quota" if not quotas else "only quotas for some pods, which are not looked at")
    each_asks = {"pods": 1, "cpu": parse_quantity(job.cpu or 0), "memory": parse_quantity(job.memory or 0), GPU: job.num_gpus}
    short: list[str] = []
    for quota in of_all_pods:
        status = quota.get("status", {})
        for name, hard in status.get("hard", {}).items():
            resource = name.removeprefix("requests.").removeprefix("limits.")
            asked = Decimal(each_asks.get("pods" if name == "count/pods" else resource, 0)) * job.num_workers
            used = status.get("used", {}).get(name, "0")
            if asked and parse_quantity(used) + asked > parse_quantity(hard):
                short.append(f"{name}: {_readable(asked, name)} asked for, {used} of {hard} used")
    if short:
        return Finding("failed", "; ".join(short), f"ask for less, end what uses it, or {ASK} for more quota")
    return Finding("ok", f"room for {job.num_workers} x ({job.cpu or 0} CPUs, {job.memory or 0} memory, {job.num_gpus} GPUs)")


class Trouble(NamedTuple):
    status: Status
    found: str
    mend: str


def fits(api: Api, job: Job) -> Finding:
    """Whether the namespace's rules on the sizes of containers let in those of a run, and give enough to those without one."""
    quotas = [each for each in _listed(api, "resourcequotas") if _is_of_all_pods(each)]
    wanted = {name for quota in quotas for name in quota.get("status", {}).get("hard", {})}
    ranges = [rule for each in _listed(api, "limitranges") for rule in each["spec"]["limits"]]
    try:
        argo, is_known = controller.section(api, "executor").get("resources") or {}, True
    except ApiError:
        argo, is_known = {}, False
    worker = {name: amount for name, amount in (("cpu", job.cpu), ("memory", job.memory)) if amount}
    asked = {**STEPS, **OF_KUBEFLOW, ARGO: argo, WORKER: {"requests": worker, "limits": worker}}
    troubles = [trouble for name, resources in asked.items() for trouble in _troubles(name, resources, wanted, ranges)]
    if not is_known:  # as Kubeflow is installed it would be refused, but it may have been told otherwise
        troubles = [each._replace(status="warning") if each.found.startswith(ARGO) else each for each in troubles]
    if troubles:
        found, mend = ("; ".join(dict.fromkeys(each)) for each in list(zip(*troubles, strict=True))[1:])
        return Finding("failed" if "failed" in {each.status for each in troubles} else "warning", found, mend)
    if not ranges:
        return Finding("ok", "no LimitRange, and no quota that would need one")
    return Finding("ok", "what the steps and workers ask for is let in")


def _troubles(name: str, resources: Object, wanted: set[str], ranges: list[Object]) -> Iterator[Trouble]:
    """Of one container."""
    is_ours = name in STEPS or name == WORKER
    mend = COMPILE if name in STEPS else SIZE if name == WORKER else f"{ASK} for another LimitRange"
    lacking = []
    for resource in ("cpu", "memory"):
        own = resources.get("limits", {}).get(resource)
        request, limit = _given(resources, resource, ranges)
        if request is None and wanted & {resource, f"requests.{resource}"}:
            lacking.append(f"requests.{resource}")
        if limit is None and f"limits.{resource}" in wanted:
            lacking.append(f"limits.{resource}")
        for rule in ranges:
            if rule["type"] == "Container" or (rule["type"] == "Pod" and name not in SIDECARS):
                for broken in _broken(resource, request, limit, rule):
                    yield Trouble("failed", f"{name} would be refused: {broken}", mend)
        if name == WORKER and own is None and limit is not None:
            if resource == "memory" and parse_quantity(limit) < parse_quantity(RANK_MEMORY):
                found = f"{name} that asks for no memory gets {limit}, and would be killed: MiniLM alone takes {RANK_MEMORY}"
                yield Trouble("failed", found, SIZE)
            if resource == "cpu" and parse_quantity(limit) < 1:
                yield Trouble("warning", f"{name} that asks for no CPU gets {limit}, and would crawl", SIZE)
    if lacking:
        found = f"{name} would be refused: a quota wants {', '.join(lacking)} of every container, no LimitRange has a default"
        yield Trouble("failed", found, f"{SIZE}, or {LIMIT_RANGE}" if is_ours else LIMIT_RANGE)


def _given(resources: Object, resource: str, ranges: list[Object]) -> tuple[str | None, str | None]:
    """Its request and limit after admission: Kubernetes takes a limit for the request too, and then what LimitRanges say."""
    limit = resources.get("limits", {}).get(resource)
    request = resources.get("requests", {}).get(resource, limit)
    for rule in ranges:
        if rule["type"] == "Container":
            limit = rule.get("default", {}).get(resource) if limit is None else limit
            request = rule.get("defaultRequest", {}).get(resource) if request is None else request
    return request, limit


def _broken(resource: str, request: str | None, limit: str | None, rule: Object) -> Iterator[str]:
    """What of a LimitRange's rule that breaks."""
    most, least, ratio = (rule.get(name, {}).get(resource) for name in ("max", "min", "maxLimitRequestRatio"))
    of = f"of a {rule['type'].lower()}"
    if most is not None and (limit is None or parse_quantity(limit) > parse_quantity(most)):
        yield f"its {resource} limit is {limit or 'not given'}, and at most {most} may be that {of}"
    if least is not None and (request is None or parse_quantity(request) < parse_quantity(least)):
        yield f"its {resource} request is {request or 'not given'}, and at least {least} must be that {of}"
    if ratio is not None and (
        not request or not limit or parse_quantity(limit) > parse_quantity(ratio) * parse_quantity(request)
    ):
        yield f"its {resource} limit {limit} is more than {ratio} times its request {request}"


def _listed(api: Api, resource: str) -> list[Object]:
    return list(ask(api, "GET", f"/api/v1/namespaces/{{namespace}}/{resource}")["items"])


def _is_of_all_pods(quota: Object) -> bool:
    return not {"scopes", "scopeSelector"} & set(quota["spec"])


def _readable(amount: Decimal, resource: str) -> str:
    return f"{amount / 2**30:.4g}Gi" if resource.endswith("memory") else f"{amount:f}"
