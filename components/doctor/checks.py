"""What the cluster's API can tell of itself and of the namespace: a function for each line of the table."""

from decimal import Decimal

from kubernetes.utils.quantity import parse_quantity

from components.doctor.finding import Finding, ask, missing_right, refused
from components.doctor.pods import job, pod
from components.launch.access import RESOURCES, missing
from components.launch.api import JOBS, PODS, TRAIN_JOBS, Api, ApiError, AwayError, Object
from components.launch.namespace import CERTIFICATES, CONFIG, MLFLOW, S3
from components.storage.s3 import ENDPOINTS

NAMES = {"pytorchjob": "PyTorchJob", "trainjob": "TrainJob"}
VERSIONS = {"pytorchjob": "v1", "trainjob": "v1alpha1"}
OPERATORS = {"pytorchjob": "kubeflow/training-operator", "trainjob": "kubeflow-system/kubeflow-trainer-controller-manager"}
"""Their Deployments, where Kubeflow's own manifests put them."""

S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
GPU = "nvidia.com/gpu"
LEVEL = "pod-security.kubernetes.io/enforce"
ASK = "ask who runs the cluster"
APPLY = "kubectl apply -k k8s/overlays/..."


def answers(api: Api) -> Finding:
    version = ask(api, "GET", "/version")["gitVersion"]
    try:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = ask(api, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
        user = answer["status"]["userInfo"]["username"]
    except ApiError as error:
        if error.status == 401:
            raise
        user = "somebody whom it does not name"  # before Kubernetes 1.28
    return Finding("ok", f"{version} at {api.configuration.host}, namespace {api.namespace}, as {user}")


def serves(api: Api, kind: str) -> Finding:
    """Whether there is such a thing as a PyTorchJob here."""
    served = [each for each in RESOURCES if _serves(api, each)]
    if kind in served:
        return Finding("ok", f"{NAMES[kind]} ({RESOURCES[kind][0]}/{VERSIONS[kind]})")
    other = f"give --kind {served[0]}, which there is, or " if served else ""
    install = "Kubeflow Trainer v2" if kind == "trainjob" else "the Kubeflow training operator v1"
    found = f"this cluster has no {NAMES[kind]} ({RESOURCES[kind][0]}/{VERSIONS[kind]})"
    return Finding("failed", found, f"{other}{ASK} to install {install}")


def _serves(api: Api, kind: str) -> bool:
    group, resource = RESOURCES[kind]
    try:
        listed = ask(api, "GET", f"/apis/{group}/{VERSIONS[kind]}")
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return any(each["name"] == resource for each in listed["resources"])


def operates(api: Api, kind: str, image: str) -> Finding:
    """Whether the operator is there: creating a job, as a dry run, passes its webhook."""
    mend = f"{ASK} to look at the Deployment {OPERATORS[kind]}"
    deployed = _deployed(api, kind)
    if deployed is not None and not deployed.get("availableReplicas"):
        return Finding("failed", f"no pod of the Deployment {OPERATORS[kind]} is available", mend)
    path = TRAIN_JOBS if kind == "trainjob" else JOBS
    try:
        ask(api, "POST", path, job(kind, "adapt-doctor", image), {"dryRun": "All"})
    except AwayError as error:
        if "webhook" not in str(error):
            raise
        return Finding("failed", f"its webhook does not answer: {error}", mend)
    except ApiError as error:
        if error.status == 404:
            return Finding("skipped", f"there is no {NAMES[kind]}, or no namespace {api.namespace}")
        if missing_right(error) and deployed is not None:
            return Finding("ok", f"the Deployment {OPERATORS[kind]} is available; {refused(error).found} to try more")
        if missing_right(error):
            raise
        return Finding("failed", f"it refuses a small job: {error.message}", f"{ASK} which policy that is")
    return Finding("ok", "it takes a job (tried without creating one)")


def _deployed(api: Api, kind: str) -> Object | None:
    """The operator's Deployment's status; None where one may not read it, or it is elsewhere."""
    namespace, name = OPERATORS[kind].split("/")
    try:
        return dict(ask(api, "GET", f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}").get("status", {}))
    except ApiError as error:
        if error.status in (403, 404):
            return None
        raise


def permits(api: Api, kind: str, service_account: str) -> Finding:
    """Whether all that the launcher asks for is granted: to the service account, else to oneself."""
    whose, doubt = service_account or "you", ""
    try:
        lacking = missing(api, kind, service_account)
    except ApiError as error:
        if not (service_account and error.status == 403):
            raise
        whose = "you"
        doubt = f"this says nothing of {service_account}: run the doctor as a pipeline, under that account"
        lacking = missing(api, kind)
    if lacking:
        return Finding("failed", f"{whose} may not {', '.join(lacking)}", f"{APPLY}, or {ASK} for its Role")
    return Finding("warning" if doubt else "ok", f"{whose} may do all that the launcher does", doubt)


def admits(api: Api, image: str, service_account: str) -> Finding:
    """The namespace's Pod Security level, and whether it takes a pod of ours."""
    known = True
    try:
        labels = ask(api, "GET", "/api/v1/namespaces/{namespace}")["metadata"].get("labels", {})
        level = f"{labels[LEVEL]} is enforced" if LEVEL in labels else "no level is enforced by the namespace"
    except ApiError as error:
        if error.status == 404:
            return Finding("failed", f"there is no namespace {api.namespace}", "give --namespace one that there is")
        if not missing_right(error):
            raise
        level, known = "one may not read the namespace's level", False
    try:
        ask(api, "POST", PODS, pod("adapt-doctor", image, ["true"], service_account), {"dryRun": "All"})
    except ApiError as error:
        if right := missing_right(error):
            return Finding("ok" if known else "skipped", f"{level}; to try a pod needs the right to {right}")
        return Finding("failed", f"{level}; a pod of ours is refused: {error.message}", f"{ASK} which policy that is")
    return Finding("ok", f"{level}; a pod of ours is admitted")


def has_account(api: Api, service_account: str) -> Finding:
    name = service_account or "default"
    there = _keys(api, "serviceaccounts", name)
    if there is None:
        mend = "give --service-account one that there is: pipeline-runner, or a profile's default-editor"
        return Finding("failed", f"there is no service account {name}", mend)
    return Finding("ok", name)


def has_settings(api: Api) -> Finding:
    """The configuration, and the CA if there is one: the names of their keys."""
    keys = _keys(api, "configmaps", CONFIG)
    if keys is None:
        return Finding("failed", f"there is no config map {CONFIG}", f"{APPLY}, with your settings in it")
    ca = _keys(api, "configmaps", CERTIFICATES)
    if ca is not None and "ca.crt" not in ca:
        return Finding("failed", f"{CERTIFICATES} has no ca.crt", f"kubectl create configmap {CERTIFICATES} --from-file=ca.crt")
    return Finding("ok", f"{CONFIG} ({', '.join(keys) or 'empty'}); {CERTIFICATES if ca is not None else 'no CA of your own'}")


def has_secrets(api: Api) -> Finding:
    keys = _keys(api, "secrets", S3)
    mend = f"kubectl create secret generic {S3} --from-env-file=FILE, with {' and '.join(S3_KEYS)} in it"
    if keys is None:
        settings = _data(api, "configmaps", CONFIG)
        if settings is None or any(settings.get(name) for name in ENDPOINTS):  # AWS alone may know pods by their account
            return Finding("failed", f"there is no secret {S3}", mend)
        return Finding("warning", f"there is no secret {S3}", f"where the pods' service account does not let them in: {mend}")
    if lacking := [key for key in S3_KEYS if key not in keys]:
        return Finding("failed", f"{S3} has no {', '.join(lacking)}", mend)
    mlflow = "; no login for MLflow" if _keys(api, "secrets", MLFLOW) is None else f", {MLFLOW}"
    return Finding("ok", f"{S3}{mlflow}")


def _keys(api: Api, resource: str, name: str) -> list[str] | None:
    """Names of what it holds, never a value; None where there is no such thing."""
    data = _data(api, resource, name)
    return None if data is None else sorted(data)


def _data(api: Api, resource: str, name: str) -> dict[str, str] | None:
    try:
        return ask(api, "GET", f"/api/v1/namespaces/{{namespace}}/{resource}/{name}").get("data") or {}
    except ApiError as error:
        if error.status == 404:
            return None
        raise


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


def has_room(api: Api, num_workers: int, cpu: str, memory: str, num_gpus: int) -> Finding:
    """Whether the namespace's quotas leave room for the workers."""
    quotas = ask(api, "GET", "/api/v1/namespaces/{namespace}/resourcequotas")["items"]
    of_all_pods = [each for each in quotas if not {"scopes", "scopeSelector"} & set(each["spec"])]
    if not of_all_pods:
        return Finding("ok", "no quota" if not quotas else "only quotas for some pods, which are not looked at")
    each_asks = {"pods": 1, "cpu": parse_quantity(cpu or 0), "memory": parse_quantity(memory or 0), GPU: num_gpus}
    short: list[str] = []
    for quota in of_all_pods:
        status = quota.get("status", {})
        for name, hard in status.get("hard", {}).items():
            resource = name.removeprefix("requests.").removeprefix("limits.")
            asked = Decimal(each_asks.get("pods" if name == "count/pods" else resource, 0)) * num_workers
            used = status.get("used", {}).get(name, "0")
            if asked and parse_quantity(used) + asked > parse_quantity(hard):
                short.append(f"{name}: {_readable(asked, name)} asked for, {used} of {hard} used")
    if short:
        return Finding("failed", "; ".join(short), f"ask for less, end what uses it, or {ASK} for more quota")
    return Finding("ok", f"room for {num_workers} x ({cpu or 0} CPUs, {memory or 0} memory, {num_gpus} GPUs)")


def _readable(amount: Decimal, resource: str) -> str:
    return f"{amount / 2**30:.4g}Gi" if resource.endswith("memory") else f"{amount:f}"
