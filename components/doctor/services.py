"""What is not Kubernetes: the object store and MLflow, as this very process reaches them."""

import os
import re
import urllib.request

from components.doctor.finding import Finding
from components.errors import TryAgainError, UserError


def stores(uri: str) -> Finding:
    """Write, read and delete a small object below `uri`, by the settings that every stage uses."""
    if not uri:
        return Finding("skipped", "no place given: give --uri s3://BUCKET/PREFIX")

    from components.storage import transfer  # boto3 takes a while

    transfer.check(uri)
    return Finding("ok", f"{uri}: written, read, deleted")


def tracks(tracking_uri: str) -> Finding:
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        return Finding("skipped", "no MLflow server named: give --tracking-uri, or set MLFLOW_TRACKING_URI")
    os.environ |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}

    import mlflow  # seconds
    from mlflow.exceptions import MlflowException

    from components.tracking.runs import reachable

    mlflow.set_tracking_uri(uri)
    try:
        with reachable():
            mlflow.MlflowClient().search_experiments(max_results=1)
    except MlflowException as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(without_login(f"{uri} is no MLflow server that lets us in: {reason}")) from None
    except TryAgainError as error:
        raise TryAgainError(without_login(str(error))) from None
    return Finding("ok", f"{without_login(uri)}{_version(uri)}")


def without_login(text: str) -> str:
    """Without what may stand before the host in a URL: a user and a password."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _version(uri: str) -> str:
    """Who answers there, as far as it says."""
    if not uri.startswith("http"):
        return ""
    try:
        with urllib.request.urlopen(f"{without_login(uri).rstrip('/')}/version", timeout=5) as answer:
            text = answer.read(100).decode().strip()
    except (OSError, ValueError):
        return ""
    return f", MLflow {text}" if re.fullmatch(r"[\w.+-]{1,30}", text) else ""
