"""How Argo's workflow controller is set up, which runs the steps of Kubeflow's pipelines."""

from typing import Any

import yaml

from components.doctor.finding import Finding, ask, missing_right
from components.launch.api import Api, ApiError, Object

NAMESPACE, NAME = "kubeflow", "workflow-controller-configmap"
OF_ERRORS = ("OnError", "OnTransientError")


def retries(api: Api) -> Finding:
    """What it tries again, whatever a pipeline says. There is nothing to mend: the launcher itself starts ranks again."""
    try:
        defaults = section(api, "workflowDefaults").get("spec") or {}
    except ApiError as error:
        if right := missing_right(error):
            return Finding("skipped", f"cannot be read: needs the right to {right} in namespace {NAMESPACE}")
        if error.status == 404:
            return Finding("skipped", f"there is no config map {NAME} in namespace {NAMESPACE}")
        raise
    strategy: Object = (defaults.get("templateDefaults") or {}).get("retryStrategy") or defaults.get("retryStrategy") or {}
    if not strategy:
        return Finding("ok", "the workflow controller adds none to those that a pipeline asks for")
    policy = strategy.get("retryPolicy") or ("Always" if strategy.get("expression") else "OnFailure")
    again = "is not tried again" if policy in OF_ERRORS else "is tried again too, at every level of a pipeline"
    said = f"retryPolicy {policy}, limit {strategy.get('limit', 'none')}"
    return Finding("ok", f"the workflow controller merges {said} into every step: one that ended with an exit code {again}")


def section(api: Api, name: str) -> dict[str, Any]:
    """One of its settings, which stand by themselves or together in one text."""
    data = ask(api, "GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}").get("data") or {}
    found = yaml.safe_load(data[name]) if name in data else (yaml.safe_load(data.get("config", "")) or {}).get(name)
    return found or {}
