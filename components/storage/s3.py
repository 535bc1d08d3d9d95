"""The S3 store's settings, once: for boto3, MLflow and whatever speaks HTTPS beside them.

They are read from the names that AWS's own tools use: AWS_ENDPOINT_URL_S3 (else AWS_ENDPOINT_URL, else MLflow's
MLFLOW_S3_ENDPOINT_URL), AWS_REGION or AWS_DEFAULT_REGION, AWS_CA_BUNDLE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN. Without keys boto3 looks where it always does: a profile, a role, the instance.

boto3 takes long to import: it is imported where it is used.
"""

import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.errors import TryAgainError, UserError

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
AT_ONCE = 8
"""Files that are moved at once, and pieces of large ones."""
ATTEMPTS = 8
"""Of every request: half a minute on average, if the store refuses connections. AWS_MAX_ATTEMPTS says otherwise."""


@dataclass(frozen=True)
class Settings:
    """How to reach the store. '' is what nobody has set."""

    endpoint: str
    region: str
    ca: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str = field(repr=False)
    attempts: int

    @property
    def place(self) -> str:
        """The store's name in messages; what a URL may hold of a password is left out."""
        return urlsplit(self.endpoint).netloc.rpartition("@")[2] or "AWS"


def settings() -> Settings:
    """What the environment says.

    Raises:
        UserError: an endpoint without http:// or https://, or a CA bundle that is not there.
    """
    endpoint_name = next((name for name in ENDPOINTS if os.environ.get(name)), "")
    endpoint = os.environ.get(endpoint_name, "")
    if endpoint and urlsplit(endpoint).scheme not in ("http", "https"):
        raise UserError(f"{endpoint_name} is no address of an S3 store: give it with http:// or https://")
    region = next((os.environ[name] for name in REGIONS if os.environ.get(name)), "us-east-1" if endpoint else "")
    ca = os.environ.get("AWS_CA_BUNDLE", "")
    if ca and not Path(ca).is_file():
        raise UserError(f"AWS_CA_BUNDLE names {ca}, and there is no such file: mount it there, or unset it")
    return Settings(
        endpoint,
        region,
        ca,
        access_key=os.environ.get("AWS_ACCESS_KEY_ID", ""),
        secret_key=os.environ.get("AWS_SECRET_ACCESS_KEY", ""),
        token=os.environ.get("AWS_SESSION_TOKEN", ""),
        attempts=int(os.environ.get("AWS_MAX_ATTEMPTS") or ATTEMPTS),
    )


def environment() -> dict[str, str]:
    """The settings under every name that MLflow, boto3, requests and Python's ssl read, for os.environ or a process to start.

    AWS_ENDPOINT_URL is not among them: it would send AWS's other services to the store as well.
    """
    found = settings()
    keys = {"AWS_ACCESS_KEY_ID": found.access_key, "AWS_SECRET_ACCESS_KEY": found.secret_key, "AWS_SESSION_TOKEN": found.token}
    values = {**dict.fromkeys(REGIONS, found.region), **keys, "AWS_CA_BUNDLE": found.ca}
    if found.endpoint:
        values |= {"AWS_ENDPOINT_URL_S3": found.endpoint, "MLFLOW_S3_ENDPOINT_URL": found.endpoint}
        values["MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE"] = "path"
    if found.ca:
        bundle = _with_public_authorities(Path(found.ca))
        values |= {name: os.environ.get(name) or bundle for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")}
    return {name: value for name, value in values.items() if value}


def client() -> Any:
    """A boto3 client for S3. It may be used from many threads."""
    return _client(settings())


@contextmanager
def answered(uri: str) -> Iterator[None]:
    """Within the block, what goes wrong between boto3 and the store becomes one line that says what to do.

    Raises:
        UserError: refused, absent, or set up wrongly.  TryAgainError: the store is away, or failed by itself.
    """
    from botocore import exceptions as failures
    from botocore.parsers import ResponseParserError
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    except failures.ClientError as error:
        raise _refused(uri, error) from None
    except (failures.NoCredentialsError, failures.PartialCredentialsError, failures.CredentialRetrievalError):
        raise UserError(f"{uri}: no keys for the store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
    except failures.SSLError as error:
        mend = "name the file with its authority's certificate in AWS_CA_BUNDLE"
        raise UserError(f"{uri}: the certificate of {settings().place} cannot be verified: {mend} ({_reason(error)})") from None
    except (failures.HTTPClientError, failures.ConnectionError, failures.IncompleteReadError, RetriesExceededError) as error:
        raise TryAgainError(f"{uri}: the store at {settings().place} does not answer: {_reason(error)}") from None
    except (failures.BotoCoreError, ResponseParserError) as error:
        mend = f"check the URI, and {ENDPOINTS[0]}"
        raise UserError(f"{uri}: {settings().place} gives no answer that makes sense: {mend} ({_reason(error)})") from None


def _refused(uri: str, error: Any) -> UserError | TryAgainError:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    place, bucket = settings().place, urlsplit(uri).netloc
    if status >= 500 or status == 429 or code in ("SlowDown", "RequestTimeout", "Throttling"):
        return TryAgainError(f"{uri}: the store at {place} failed at {error.operation_name}: {code or status}")
    if code in ("BadDigest", "XAmzContentSHA256Mismatch"):
        return TryAgainError(f"{uri}: the store at {place} got other bytes than were sent ({error.operation_name}: {code})")
    if code == "NoSuchBucket":
        return UserError(f"{uri}: {place} has no bucket '{bucket}': create it, or mend the URI")
    if code == "InvalidAccessKeyId":
        return UserError(f"{uri}: {place} does not know the key in AWS_ACCESS_KEY_ID")
    if code == "SignatureDoesNotMatch":
        return UserError(f"{uri}: {place} refused the signature: AWS_SECRET_ACCESS_KEY is not that of AWS_ACCESS_KEY_ID")
    if code in ("ExpiredToken", "InvalidToken"):
        return UserError(f"{uri}: {place} refused AWS_SESSION_TOKEN ({code}): get a new one")
    if code == "RequestTimeTooSkewed":
        return UserError(f"{uri}: the clocks of {place} and of this machine differ: set them")
    if status in (301, 307) or code in ("AuthorizationHeaderMalformed", "PermanentRedirect"):
        return UserError(f"{uri}: bucket '{bucket}' is in another region: set AWS_REGION ({code or status})")
    if status in (401, 403):
        mend = f"allow it {error.operation_name} on '{bucket}', or check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return UserError(f"{uri}: {place} denies it to this key: {mend}")
    if status == 404:
        return UserError(f"there is nothing at {uri} ({place})")
    return UserError(f"{uri}: {place} refused {error.operation_name}: {code or status}; check the URI, and {ENDPOINTS[0]}")


def _reason(error: BaseException) -> str:
    """Without the endpoint's URL, which may hold a password."""
    found = settings()
    said = str(error).replace(found.endpoint, found.place) if found.endpoint else str(error)
    return f"{type(error).__name__}: {' '.join(said.split())[:160]}"


@functools.lru_cache(maxsize=4)
def _client(found: Settings) -> Any:
    from boto3.session import Session
    from botocore.config import Config
    from botocore.utils import conditionally_calculate_md5

    config = Config(
        # The body's own sha256 is signed, so that the store refuses what was changed on the way, also where there is no TLS.
        s3={"addressing_style": "path" if found.endpoint else "auto", "payload_signing_enabled": True},
        retries={"mode": os.environ.get("AWS_RETRY_MODE") or "standard", "total_max_attempts": found.attempts},
        # boto3's newer checksums are more than other stores understand.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=2 * AT_ONCE,
        tcp_keepalive=True,
    )
    keys = ("access_key", "secret_key", "token")
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    given = {name: getattr(found, key) or None for name, key in zip(names, keys, strict=True)}
    where = {"endpoint_url": found.endpoint or None, "region_name": found.region or None, "verify": found.ca or None}
    made = Session().client("s3", config=config, **where, **given)
    for operation in (
        "PutObject",
        "UploadPart",
    ):  # which more stores compare than the sha256: SeaweedFS takes any that is signed
        made.meta.events.register(f"before-call.s3.{operation}", conditionally_calculate_md5)
    return made


def _with_public_authorities(ca: Path) -> str:
    """A file with that authority and the public ones: requests and ssl know those of one file alone."""
    import certifi

    content = Path(certifi.where()).read_bytes() + b"\n" + ca.read_bytes()
    bundle = Path(tempfile.gettempdir()) / f"ca-{hashlib.sha256(content).hexdigest()[:12]}.pem"
    with tempfile.NamedTemporaryFile(dir=bundle.parent, prefix=".ca-", delete=False) as unfinished:
        unfinished.write(content)
    os.replace(unfinished.name, bundle)  # refused where another user has put a file of that name
    return str(bundle)
