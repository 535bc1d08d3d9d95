"""What the cluster's API can tell of itself and of the namespace: a function for each line of the table (and see room.py)."""

from components.doctor.finding import Finding, ask, missing_right, refused
from components.doctor.pods import pod
from components.launch.access import RESOURCES, missing
from components.launch.api import JOBS, PODS, TRAIN_JOBS, Api, ApiError, AwayError, Object
from components.launch.job import RUNTIME, Job, manifest
from components.launch.namespace import CERTIFICATES, CONFIG, MLFLOW, S3
from components.parameters import JobKind
from components.storage.s3 import ENDPOINTS

NAMES: dict[JobKind, str] = {"pytorchjob": "PyTorchJob", "trainjob": "TrainJob"}
VERSIONS: dict[JobKind, str] = {"pytorchjob": "v1", "trainjob": "v1alpha1"}
OPERATORS = {"pytorchjob": "kubeflow/training-operator", "trainjob": "kubeflow-system/kubeflow-trainer-controller-manager"}
"""Their Deployments, where Kubeflow's own manifests put them."""
SINCE = {"pytorchjob": "the training-operator 1.9", "trainjob": "Kubeflow Trainer 2.3"}
"""From when on they know all fields that the launcher sends."""
DRY_RUN: dict[str, object] = {"dryRun": "All", "fieldValidation": "Strict"}
"""As the launcher posts, but that nothing is created."""

S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
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


def serves(api: Api, kind: JobKind) -> Finding:
    """Whether there is such a thing as a PyTorchJob here."""
    served = [each for each in NAMES if _serves(api, each)]
    if kind in served:
        return Finding("ok", f"{NAMES[kind]} ({RESOURCES[kind][0]}/{VERSIONS[kind]})")
    other = f"give --kind {served[0]}, which there is, or " if served else ""
    install = "Kubeflow Trainer v2" if kind == "trainjob" else "the Kubeflow training operator v1"
    found = f"this cluster has no {NAMES[kind]} ({RESOURCES[kind][0]}/{VERSIONS[kind]})"
    return Finding("failed", found, f"{other}{ASK} to install {install}")


def _serves(api: Api, kind: JobKind) -> bool:
    group, resource = RESOURCES[kind]
    try:
        listed = ask(api, "GET", f"/apis/{group}/{VERSIONS[kind]}")
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return any(each["name"] == resource for each in listed["resources"])


def operates(api: Api, kind: JobKind, job: Job) -> Finding:
    """Whether the operator is there: creating the job as the launcher does, but as a dry run, passes its webhook."""
    mend = f"{ASK} to look at the Deployment {OPERATORS[kind]}"
    deployed = _deployed(api, kind)
    if deployed is not None and not deployed.get("availableReplicas"):
        return Finding("failed", f"no pod of the Deployment {OPERATORS[kind]} is available", mend)
    path = TRAIN_JOBS if kind == "trainjob" else JOBS
    try:
        ask(api, "POST", path, manifest(job, kind), DRY_RUN)
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
        return _refuses(error, kind, job)
    return Finding("ok", "it takes a job (tried without creating one)")


def _refuses(error: ApiError, kind: JobKind, job: Job) -> Finding:
    if "must be created before the TrainJob" in error.message:
        if job.runtime == RUNTIME:
            mend = "add k8s/components/trainer to the components of your overlay, and kubectl apply -k it"
            return Finding("failed", f"there is no TrainingRuntime {RUNTIME}", mend)
        mend = f"give --training-runtime one that kubectl get clustertrainingruntimes lists, or leave it at {RUNTIME}"
        return Finding("failed", f"there is no ClusterTrainingRuntime {job.runtime}", mend)
    if "strict decoding error" in error.message:
        mend = f"{ASK} for {SINCE[kind]} or later, with its CRDs"
        return Finding("failed", f"it does not know all fields of our jobs: {error.message}", mend)
    return Finding("failed", f"it refuses a small job: {error.message}", f"{ASK} which policy that is")


def _deployed(api: Api, kind: JobKind) -> Object | None:
    """The operator's Deployment's status; None where one may not read it, or it is elsewhere."""
    namespace, name = OPERATORS[kind].split("/")
    try:
        return dict(ask(api, "GET", f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}").get("status", {}))
    except ApiError as error:
        if error.status in (403, 404):
            return None
        raise


def permits(api: Api, kind: JobKind, service_account: str, by_token: bool = False) -> Finding:
    """Whether all that the launcher asks for is granted: to the service account, else to oneself.

    Args:
        by_token: Whether it is the service account itself that asks here.
    """
    whose, doubt = service_account or "you", ""
    try:
        lacking = missing(api, kind, "" if by_token else service_account)
    except ApiError as error:
        if not (service_account and error.status == 403):
            raise
        whose = "you"
        doubt = (
            f"this says nothing of {service_account}: run the doctor as a pipeline, under that account, "
            "or get the right to create serviceaccounts/token"
        )
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
        ask(api, "POST", PODS, pod("adapt-doctor", image, ["true"], service_account), DRY_RUN)
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
