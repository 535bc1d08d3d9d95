"""What a namespace may hold for our pods, by name: k8s/base makes the ConfigMap, you make the Secrets. All is optional."""

from collections.abc import Mapping

from components.image import SETTINGS_DIR

CONFIG, S3, MLFLOW = "adapt-config", "adapt-s3", "adapt-mlflow"
MOUNTS: Mapping[str, tuple[str, str]] = {
    CONFIG: ("configMap", f"{SETTINGS_DIR}/config"),
    S3: ("secret", f"{SETTINGS_DIR}/s3"),
    MLFLOW: ("secret", f"{SETTINGS_DIR}/mlflow"),
}
"""ConfigMap or Secret -> its kind, and where it is mounted: every key of it is a variable of our programs."""

CERTIFICATES = "adapt-ca"
CERTIFICATES_DIR = f"{SETTINGS_DIR}/ca"
"""ConfigMap with ca.crt, and where it is mounted."""

USER = 65532
"""That our images run as; numeric, as runAsNonRoot wants it."""
