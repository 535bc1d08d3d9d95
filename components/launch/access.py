"""What is asked of the Kubernetes API: the rights that a Role must grant, all in this one place."""

from components.launch.api import REVIEWS, Api, Object

Right = tuple[str, str, str, str]
"""(verb, group, resource, subresource)"""

RESOURCES = {"pytorchjob": ("kubeflow.org", "pytorchjobs"), "trainjob": ("trainer.kubeflow.org", "trainjobs")}

NEEDED: tuple[Right, ...] = (
    *((verb, *RESOURCES["pytorchjob"], "") for verb in ("create", "get", "list", "watch", "delete")),
    *((verb, *RESOURCES["trainjob"], "") for verb in ("create", "get", "list", "watch", "delete")),
    *((verb, "", "pods", "") for verb in ("get", "list", "watch")),
    ("get", "", "pods", "log"),
    *((verb, "", "events", "") for verb in ("list", "watch")),
)

OF_QUEUES: tuple[Right, ...] = (("list", "kueue.x-k8s.io", "workloads", ""),)
"""What the Role grants too, to say why a job waits: without it one only sees that it does."""

OF_CLEANING: tuple[Right, ...] = (("list", "argoproj.io", "workflows", ""),)
"""And this, to know that a pipeline run is over whose jobs and runs in MLflow nobody has ended: else they are left alone."""

OF_THE_DOCTOR: tuple[Right, ...] = (("list", "", "resourcequotas", ""), ("list", "", "limitranges", ""))
"""What the Role grants beside them: no job fails for lack of these."""

SERVICE_ACCOUNT_REVIEWS = "/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews"


def missing(api: Api, kind: str, service_account: str = "") -> list[str]:
    """The rights that jobs of this kind need and one does not have, such as "create pytorchjobs.kubeflow.org".

    Args:
        service_account: Whose rights, in the API's namespace; '' for those that this process has.

    Raises:
        ApiError: of a service account's rights, that one may not ask for them. Of one's own one always may.
    """
    others = {group for name, (group, _) in RESOURCES.items() if name != kind}
    asked = [right for right in NEEDED if right[1] not in others]
    return [phrase(right) for right in asked if not allowed(api, right, service_account)]


def phrase(right: Right) -> str:
    """As one says it: "get pods/log"."""
    verb, group, resource, subresource = right
    return f"{verb} {resource}{f'.{group}' if group else ''}{f'/{subresource}' if subresource else ''}"


def allowed(api: Api, right: Right, service_account: str = "") -> bool:
    """Whether that is granted; Kubernetes itself answers."""
    verb, group, resource, subresource = right
    attributes = {"namespace": api.namespace, "verb": verb, "group": group, "resource": resource, "subresource": subresource}
    review: Object = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    path = REVIEWS
    spec: Object = {"resourceAttributes": attributes}
    if service_account:
        review |= {"kind": "LocalSubjectAccessReview", "metadata": {"namespace": api.namespace}}
        path = SERVICE_ACCOUNT_REVIEWS
        spec |= {
            "user": f"system:serviceaccount:{api.namespace}:{service_account}",
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{api.namespace}", "system:authenticated"],
        }
    return bool(api.request("POST", path, {**review, "spec": spec})["status"]["allowed"])
