"""Between folders here and a real SeaweedFS, also over connections that break and over TLS."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.awsrequest import AWSPreparedRequest
from proxy import Proxy, private_authority, proxy_to
from pyarrow.fs import S3FileSystem
from servers import BUCKET, S3_KEYS, free_ports, s3_server
from support import ROOT

from components.artifacts.folders import FILE, Artifact, file_digest, read_manifest
from components.artifacts.provenance import is_remote, uri_of
from components.errors import StageError, TryAgainError, UserError
from components.storage import s3, transfer
from components.storage.places import PIECE, Folder, S3Folder
from components.storage.state import check_state

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture(autouse=True)
def environment(server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Settings for the server, with few tries, so that a server that is away is away at once."""
    of_others = ("MLFLOW_S3_ENDPOINT_URL", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
    for name in [name for name in os.environ if name.startswith("AWS_") or name in of_others]:
        monkeypatch.delenv(name)
    known = {**server, "AWS_MAX_ATTEMPTS": "2", "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    return known


@pytest.fixture
def uri(request: pytest.FixtureRequest) -> str:
    """A place in the bucket for the test alone."""
    return f"s3://{BUCKET}/{re.sub(r'[^a-zA-Z0-9]+', '-', request.node.name)[-60:]}/place"


@pytest.fixture
def slow_line(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxy_to(environment["AWS_ENDPOINT_URL"]) as proxy:
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.setenv(name, proxy.url)
        yield proxy


def result(path: Path, **files: bytes) -> Path:
    """What a stage would write."""
    with Artifact(path, "tokenize", {"files": sorted(files)}, {"source": "abc"}).building() as folder:
        for name, content in files.items():
            file = folder / name.replace("__", "/")
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def keys(uri: str) -> set[str]:
    return set(S3Folder(uri).files())


@pytest.mark.parametrize("scheme", ["s3://", "minio://", "file://", ""])
def test_what_is_stored_comes_back_with_its_manifest(uri: str, scheme: str, tmp_path: Path) -> None:
    place = uri.replace("s3://", scheme) if "s3" in scheme or "minio" in scheme else f"{scheme}{tmp_path / 'shared'}"
    made = result(tmp_path / "made", a=b"a", deep__b=b"b" * 10, empty=b"")
    transfer.store(made, place)
    transfer.fetch(place, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(made)
    read_manifest(tmp_path / "back", "tokenize")
    assert {path.name for path in tmp_path.iterdir()} == {"made", "back"} | ({"shared"} if "shared" in place else set())
    transfer.fetch(place, tmp_path / "back")  # it is there


def test_a_file_and_a_folder_without_a_manifest_come_back_too(uri: str, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("text,label\n")
    transfer.store(tmp_path / "own.csv", f"{uri}/own.csv")
    transfer.fetch(f"{uri}/own.csv", tmp_path / "back.csv")
    assert (tmp_path / "back.csv").read_text() == "text,label\n"
    transfer.fetch(uri, tmp_path / "folder")
    assert contents(tmp_path / "folder") == {"own.csv": b"text,label\n"}
    assert transfer.digests(uri) == transfer.digests(f"{uri}/own.csv") == {"own.csv": file_digest(tmp_path / "own.csv")}


def test_large_files_go_in_pieces_and_come_back_whole(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = result(tmp_path / "made", large=os.urandom(2 * PIECE + 12345), small=b"s")
    transfer.store(made, uri)
    assert S3Folder(uri).files()["large"].version.endswith('-3"')
    transfer.fetch(uri, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(made)
    assert "2 files, 33.6 MB in " in capsys.readouterr().out


def test_a_broken_fetch_leaves_no_folder_and_goes_on_where_it_was(uri: str, tmp_path: Path, slow_line: Proxy) -> None:
    parts = {f"file{number}": os.urandom(MEGABYTE // 4) for number in range(32)}  # more than at once: some are whole
    made = result(tmp_path / "made", **parts)
    transfer.store(made, uri)
    slow_line.left = 5 * MEGABYTE
    with pytest.raises(TryAgainError, match=r"place: the store at 127\.0\.0\.1:\d+ does not answer"):
        transfer.fetch(uri, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    slow_line.left, slow_line.received = float("inf"), 0
    transfer.fetch(uri, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(made)
    assert MEGABYTE < slow_line.received < 8 * MEGABYTE
    assert {path.name for path in tmp_path.iterdir()} == {"made", "back"}


def test_connections_that_are_cut_now_and_then_stop_nothing(
    uri: str, tmp_path: Path, slow_line: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "8")
    made = result(tmp_path / "made", one=os.urandom(6 * MEGABYTE), other=os.urandom(MEGABYTE))
    slow_line.left_up = slow_line.left = 3 * MEGABYTE
    with ThreadPoolExecutor() as pool:

        def move() -> None:
            transfer.store(made, uri)
            transfer.fetch(uri, tmp_path / "back")

        moved = pool.submit(move)
        cuts = 0
        while not moved.done():
            if slow_line.left <= 0 or slow_line.left_up <= 0:
                cuts += 1
                slow_line.left_up = slow_line.left = (3 + cuts) * MEGABYTE
            time.sleep(0.05)
        moved.result()
    assert cuts > 1
    assert contents(tmp_path / "back") == contents(made)


def test_a_broken_store_has_no_manifest_and_goes_on_where_it_was(uri: str, tmp_path: Path, slow_line: Proxy) -> None:
    made = result(tmp_path / "made", **{f"file{number}": os.urandom(MEGABYTE) for number in range(12)})
    slow_line.left_up = 9.5 * MEGABYTE
    with pytest.raises(TryAgainError, match="does not answer"):
        transfer.store(made, uri)
    slow_line.left_up, slow_line.sent = float("inf"), 0
    assert 0 < len(keys(uri)) < 12
    assert FILE not in keys(uri)
    transfer.store(made, uri)
    assert slow_line.sent < 11 * MEGABYTE
    transfer.fetch(uri, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(made)
    slow_line.sent = 0
    transfer.store(made, uri)
    assert slow_line.sent < MEGABYTE  # all of it was there


def test_a_reader_never_finds_a_manifest_beside_other_files(
    uri: str, tmp_path: Path, environment: dict[str, str], slow_line: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer.store(result(tmp_path / "old", a=os.urandom(MEGABYTE), gone=b"g"), uri)
    new = result(tmp_path / "new", a=os.urandom(MEGABYTE), b=os.urandom(MEGABYTE))
    slow_line.left_up = MEGABYTE
    with pytest.raises(TryAgainError):
        transfer.store(new, uri)
    slow_line.left_up = float("inf")
    assert FILE not in keys(uri)
    transfer.store(new, uri)
    assert keys(uri) == {"a", "b", FILE}


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_a_store_that_is_stopped_leaves_no_manifest_and_no_pieces_for_ever(
    uri: str, tmp_path: Path, slow_line: Proxy, stop: signal.Signals
) -> None:
    made = result(tmp_path / "made", large=os.urandom(2 * PIECE))
    code = (
        "import sys; from pathlib import Path; from components.storage import transfer\n"
        "from components.errors import exit_codes\n"
        "with exit_codes(): transfer.store(Path(sys.argv[1]), sys.argv[2])"
    )
    slow_line.pause = 0.02
    with subprocess.Popen([sys.executable, "-c", code, made, uri], cwd=ROOT) as process:
        while slow_line.sent < MEGABYTE:
            time.sleep(0.02)
        process.send_signal(stop)
        assert process.wait(30) == (143 if stop == signal.SIGTERM else -stop)
    slow_line.pause = 0
    assert keys(uri) == set()
    transfer.store(made, uri)
    assert keys(uri) == {"large", FILE}
    prefix = uri.removeprefix(f"s3://{BUCKET}/")
    assert not s3.client().list_multipart_uploads(Bucket=BUCKET, Prefix=f"{prefix}/large").get("Uploads")


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_flipped_byte_in_the_store_is_found_by_name(uri: str, tmp_path: Path, with_manifest: bool) -> None:
    made = result(tmp_path / "made", a=b"a" * 100, deep__b=b"b" * 100)
    if not with_manifest:
        (made / FILE).unlink()
    transfer.store(made, uri)
    s3.client().put_object(  # with what was recorded of it
        Bucket=BUCKET,
        Key=f"{uri.removeprefix(f's3://{BUCKET}/')}/deep/b",
        Body=b"b" * 50 + b"B" + b"b" * 49,
        Metadata={"sha256": file_digest(made / "deep" / "b")},
    )
    with pytest.raises(UserError, match=rf"{uri}/deep/b is not the file that was stored"):
        transfer.fetch(uri, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@contextmanager
def changed_on_the_way(operation: str) -> Iterator[list[str]]:
    """The first byte of what is sent is another than was signed. Yields the digests that were sent with it."""
    sent: list[str] = []

    def change(request: AWSPreparedRequest, **_: object) -> None:
        body = request.body.read() if hasattr(request.body, "read") else bytes(request.body)
        request.body = bytes([body[0] ^ 1]) + body[1:]
        sent.append(request.headers["X-Amz-Content-SHA256"].decode())

    events = s3.client().meta.events
    events.register(f"before-send.s3.{operation}", change)
    try:
        yield sent
    finally:
        events.unregister(f"before-send.s3.{operation}", change)


@pytest.mark.parametrize("over_tls", [False, True])
@pytest.mark.parametrize(("operation", "size"), [("PutObject", 100), ("UploadPart", PIECE + 1)])
def test_what_is_changed_on_the_way_to_the_store_is_refused_there(
    uri: str,
    tmp_path: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    size: int,
    over_tls: bool,
) -> None:
    (tmp_path / "ca").mkdir()
    authority, certificate = private_authority(tmp_path / "ca")
    made = result(tmp_path / "made", a=os.urandom(size))
    with proxy_to(environment["AWS_ENDPOINT_URL"], certificate if over_tls else None) as proxy:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        with (
            changed_on_the_way(operation) as sent,
            pytest.raises(TryAgainError, match=f"{uri}: the store at .* got other bytes than were sent .{operation}"),
        ):
            transfer.store(made, uri)
        if operation == "PutObject":
            assert sent == [file_digest(made / "a")]
        assert keys(uri) == set()
        transfer.store(made, uri)
        assert keys(uri) == {"a", FILE}


def test_what_is_stored_is_not_fetched_again(uri: str, tmp_path: Path, slow_line: Proxy) -> None:
    made = result(tmp_path / "made", large=os.urandom(PIECE + 1), small=os.urandom(MEGABYTE))
    transfer.store(made, uri)
    assert slow_line.sent > PIECE
    assert slow_line.received < MEGABYTE // 10
    transfer.fetch(uri, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(made)


@pytest.mark.parametrize("theirs", [b"b" * 100, b"longer" * 100])
def test_what_somebody_else_writes_to_the_same_place_meanwhile_is_found(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: bytes
) -> None:
    (tmp_path / "a").write_bytes(b"a" * 100)
    put = S3Folder.put

    def then_theirs(place: S3Folder, *arguments: Any) -> None:
        put(place, *arguments)
        place.write("", theirs)

    monkeypatch.setattr(S3Folder, "put", then_theirs)
    with pytest.raises(UserError, match=f"{uri}/a is not what was stored there"):
        transfer.store(tmp_path / "a", f"{uri}/a")


@pytest.mark.parametrize("place", ["s3", "folder"])
def test_a_file_that_changes_while_it_is_stored_is_found(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    made = tmp_path / "a"
    made.write_bytes(b"a" * 100)
    kind = S3Folder if place == "s3" else Folder
    put = kind.put

    def changed(where: Any, *arguments: Any) -> None:
        made.write_bytes(b"b" * 100)
        put(where, *arguments)

    monkeypatch.setattr(kind, "put", changed)
    with pytest.raises(UserError, match="a has changed while it was stored"):
        transfer.store(made, f"{uri}/a" if place == "s3" else str(tmp_path / "there"))


def test_a_missing_file_and_a_damaged_folder_here_are_found_by_name(uri: str, tmp_path: Path) -> None:
    made = result(tmp_path / "made", a=b"a", b=b"b")
    transfer.store(made, uri)
    transfer.remove(f"{uri}/b")
    with pytest.raises(UserError, match=f"{uri}/b is missing"):
        transfer.fetch(uri, tmp_path / "back")
    (made / "a").write_text("A")
    with pytest.raises(UserError, match=r"made/a is not what .*manifest\.json says"):
        transfer.store(made, uri)
    with pytest.raises(UserError, match=r"made exists and is not what is at"):
        transfer.fetch(f"{uri}/a", made)
    assert (made / "a").read_text() == "A"


def forget() -> None:
    """As another process knows nothing."""
    transfer.local.cache_clear()
    transfer.state_of.cache_clear()


def test_a_state_that_is_no_longer_there_is_refused(uri: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("one")
    transfer.store(tmp_path / "a.csv", f"{uri}/a.csv")
    state = transfer.state_of(uri)
    for known in (state, ""):
        check_state(uri, known)
    forget()
    check_state(uri, state)
    (tmp_path / "a.csv").write_text("two")
    transfer.store(tmp_path / "a.csv", f"{uri}/a.csv")
    forget()
    with pytest.raises(UserError, match=f"{uri} has changed since this run was resolved"):
        check_state(uri, state)
    assert transfer.state_of(str(tmp_path)) == ""


def test_a_new_state_of_a_source_is_fetched_anew_and_the_same_is_not(uri: str, tmp_path: Path) -> None:
    s3.client().put_object(Bucket=BUCKET, Key=f"{uri.removeprefix(f's3://{BUCKET}/')}/a.csv", Body=b"one")
    first = transfer.local(uri, tmp_path)
    assert uri_of(first) == uri
    assert uri_of(first / "a.csv") == f"{uri}/a.csv"
    changed = (first / "a.csv").stat().st_ctime_ns
    forget()
    assert transfer.local(uri, tmp_path) == first
    assert (first / "a.csv").stat().st_ctime_ns == changed
    s3.client().put_object(Bucket=BUCKET, Key=f"{uri.removeprefix(f's3://{BUCKET}/')}/a.csv", Body=b"two")
    assert (transfer.local(uri, tmp_path) / "a.csv").read_bytes() == b"one"  # a process sees one state from first to last
    forget()
    assert (transfer.local(uri, tmp_path) / "a.csv").read_bytes() == b"two"
    assert (first / "a.csv").read_bytes() == b"one"


def test_processes_that_fetch_the_same_at_once_fetch_it_once(uri: str, tmp_path: Path) -> None:
    transfer.store(result(tmp_path / "made", a=os.urandom(MEGABYTE)), uri)
    code = (
        "import sys; from pathlib import Path; from components.storage import transfer\n"
        "print(transfer.local(sys.argv[1], Path(sys.argv[2])))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, uri, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in "123"
    ]
    outputs = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sum("fetched" in line and "2 files" in line for output in outputs for line in output.splitlines()) == 1


def test_what_is_mounted_is_named_by_its_uri(tmp_path: Path) -> None:
    assert uri_of("/s3/bucket/a/b") == uri_of(Path("/minio/bucket/a/b")) == "s3://bucket/a/b"
    assert uri_of("minio://bucket/a/") == "s3://bucket/a"
    assert uri_of(tmp_path / "s3" / "bucket") == str(tmp_path / "s3" / "bucket")
    assert is_remote("minio://bucket/a")
    assert not is_remote("/s3/bucket/a")


def test_texts_and_removal(uri: str, tmp_path: Path) -> None:
    for place in (uri, str(tmp_path / "place")):
        assert transfer.read_text(f"{place}/t") is None
        transfer.write_text(f"{place}/t", "é\n")
        transfer.write_text(f"{place}/deep/u", "u")
        assert transfer.read_text(f"{place}/t") == "é\n"
        transfer.check(place)
        transfer.remove(place)
        transfer.remove(place)
        assert transfer.read_text(f"{place}/t") is None
        with pytest.raises(UserError, match="there is nothing at"):
            transfer.fetch(place, tmp_path / "back")
    assert list(tmp_path.iterdir()) == []
    for whole in (f"s3://{BUCKET}", "s3://", "/"):
        with pytest.raises(UserError, match="name a folder in it"):
            transfer.remove(whole)


def wrong(name: str, value: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setenv(name, value)


def unset(*names: str) -> Callable[[pytest.MonkeyPatch], None]:
    def change(monkeypatch: pytest.MonkeyPatch) -> None:
        for name in names:
            monkeypatch.delenv(name)

    return change


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (wrong("AWS_SECRET_ACCESS_KEY", "not-the-secret"), UserError, "AWS_SECRET_ACCESS_KEY is not that of"),
        (wrong("AWS_ACCESS_KEY_ID", "nobody"), UserError, "does not know the key in AWS_ACCESS_KEY_ID"),
        (unset("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), UserError, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (wrong("AWS_ENDPOINT_URL_S3", "minio:9000"), UserError, "AWS_ENDPOINT_URL_S3 is no address .* with http:// or https://"),
        (wrong("AWS_ENDPOINT_URL_S3", f"http://u:hidden@127.0.0.1:{free_ports(1)[0]}"), TryAgainError, "does not answer"),
        (wrong("AWS_CA_BUNDLE", "/no/such.crt"), UserError, "AWS_CA_BUNDLE names /no/such.crt"),
    ],
)  # fmt: skip
def test_what_is_set_wrongly_is_named_in_one_line_without_any_secret(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch], None],
    kind: type[StageError], says: str,
) -> None:  # fmt: skip
    change(monkeypatch)
    made = result(tmp_path / "made", a=b"a")
    for action in (
        lambda: transfer.store(made, uri),
        lambda: transfer.fetch(uri, tmp_path / "back"),
        lambda: transfer.read_text(f"{uri}/a"),
        lambda: transfer.check(uri),
    ):
        with pytest.raises(kind, match=says) as raised:
            action()
        assert "\n" not in str(raised.value)
        assert not [
            secret for secret in ("not-the-secret", "hidden", S3_KEYS["AWS_SECRET_ACCESS_KEY"]) if secret in str(raised.value)
        ]
    assert {path.name for path in tmp_path.iterdir()} == {"made"}


def test_an_absent_bucket_is_named(tmp_path: Path) -> None:
    made = result(tmp_path / "made", a=b"a")
    for action in (
        lambda: transfer.store(made, "s3://nobody-has-it/x"),
        lambda: transfer.fetch("s3://nobody-has-it/x", tmp_path / "back"),
        lambda: transfer.read_text("s3://nobody-has-it/x"),
    ):
        with pytest.raises(UserError, match="has no bucket 'nobody-has-it'"):
            action()
    with pytest.raises(UserError, match="check the URI"):
        transfer.read_text("s3://")


def test_the_settings_show_no_secret(environment: dict[str, str]) -> None:
    assert environment["AWS_SECRET_ACCESS_KEY"] not in repr(s3.settings())


def test_one_set_of_settings_serves_pyarrow_and_mlflow(
    uri: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Named as MLflow names them alone."""
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", environment["AWS_ENDPOINT_URL"])
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name)
    all_clients_reach(uri, tmp_path, monkeypatch)


def filesystem() -> S3FileSystem:
    """pyarrow's own client, which reads no endpoint and no CA from the environment."""
    found = s3.settings()
    address = urlsplit(found.endpoint)
    options = {
        "access_key": found.access_key,
        "secret_key": found.secret_key,
        "region": found.region,
        "endpoint_override": address.netloc,
        "scheme": address.scheme,
        "tls_ca_file_path": found.ca,
    }
    return S3FileSystem(connect_timeout=10, request_timeout=60, **{name: value for name, value in options.items() if value})


def all_clients_reach(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3, pyarrow and MLflow."""
    transfer.store(result(tmp_path / "made", a=b"a"), uri)
    path = uri.removeprefix("s3://")
    pq.write_table(pa.table({"x": [1, 2]}), f"{path}/t.parquet", filesystem=filesystem())
    assert pq.read_table(f"{path}/t.parquet", filesystem=filesystem())["x"].to_pylist() == [1, 2]
    with monkeypatch.context() as patched:
        for name, value in s3.environment().items():
            patched.setenv(name, value)
        assert Path(mlflow.artifacts.download_artifacts(f"{uri}/a", dst_path=str(tmp_path))).read_bytes() == b"a"


def test_a_private_authority_is_believed_where_it_is_named_and_nowhere_else(
    uri: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ca").mkdir()
    authority, certificate = private_authority(tmp_path / "ca")
    with proxy_to(environment["AWS_ENDPOINT_URL"], certificate) as proxy:
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.setenv(name, proxy.url)
        with pytest.raises(UserError, match=r"the certificate of 127\.0\.0\.1:\d+ cannot be verified: .* AWS_CA_BUNDLE"):
            transfer.read_text(f"{uri}/a")
        with pytest.raises(OSError, match="certificate"):
            filesystem().get_file_info(uri.removeprefix("s3://"))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        all_clients_reach(uri, tmp_path, monkeypatch)
        code = "import requests, sys; print(requests.get(sys.argv[1]).status_code)"
        done = subprocess.run(
            [sys.executable, "-c", code, proxy.url],
            capture_output=True,
            text=True,
            env={**os.environ, **s3.environment()},
        )
        assert done.stdout.strip() == "403", done.stderr
        (tmp_path / "no.crt").write_text("nothing")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "no.crt"))
        with pytest.raises(UserError, match="AWS_CA_BUNDLE"):
            transfer.read_text(f"{uri}/a")


def test_importing_it_loads_no_client() -> None:
    code = "import sys, components.storage.transfer; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not set(done.stdout.split()) & {"boto3", "botocore", "s3transfer", "pyarrow", "mlflow", "torch", "kfp", "kubernetes"}


def test_threads_may_make_the_bundle_of_authorities_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "own.pem").write_text("own\n")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(s3._with_public_authorities, [tmp_path / "own.pem"] * 40))
    assert len(set(made)) == 1
    assert Path(made[0]).read_text().endswith("\nown\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == [Path(made[0]).name, "own.pem"]
