"""Asking in a service account's name, as the steps of a pipeline will."""

import copy

from components.doctor.finding import ask
from components.launch.api import Api, ApiError

SECONDS = 600  # the least that Kubernetes gives


def acting_as(api: Api, service_account: str) -> Api | None:
    """The same API with a short-lived token of that account; None where one may not have one, or there is no account."""
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": SECONDS}}
    try:
        answer = ask(api, "POST", f"/api/v1/namespaces/{{namespace}}/serviceaccounts/{service_account}/token", request)
    except ApiError:
        return None
    configuration = copy.copy(api.configuration)
    configuration.api_key = {"authorization": f"Bearer {answer['status']['token']}"}
    configuration.api_key_prefix = {}
    configuration.refresh_api_key_hook = None
    configuration.cert_file = configuration.key_file = None  # a certificate would say that it is oneself
    return Api(api.namespace, configuration, api.patience)
