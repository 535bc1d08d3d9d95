"""What a namespace may hold for our pods, by name: k8s/base makes the ConfigMap, you make the Secrets. All is optional."""

from collections.abc import Mapping, Sequence

CONFIG = "adapt-config"
SETTINGS = (
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE", "AWS_MAX_ATTEMPTS"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_S3_ENDPOINT_URL", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
    *("HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
"""Variables of the ConfigMap."""

S3, MLFLOW = "adapt-s3", "adapt-mlflow"
SECRETS: Mapping[str, Sequence[str]] = {
    S3: ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    MLFLOW: ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
}
"""Secret -> its variables."""

CERTIFICATES = "adapt-ca"
CERTIFICATES_DIR = "/etc/adapt/ca"
"""ConfigMap with ca.crt, and where it is mounted."""

USER = 65532
"""That our images run as; numeric, as runAsNonRoot wants it."""
