"""Where files are stored, one file at a time: below an S3 key, or below a path. A place may also be a single file, named ''."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from components.artifacts.folders import file_digest
from components.errors import UserError
from components.storage.s3 import AT_ONCE, client

PIECE = 16 * 2**20
"""Bytes: larger files go in pieces of as many."""
RECORDED = "sha256"
UNFINISHED = ".partial"

Progress = Callable[[int], object]


@dataclass(frozen=True)
class Stored:
    """A file in a place.  changed: seconds since 1970.  version: differs when the bytes do, where the place can tell."""

    size: int
    changed: float
    version: str = ""


class Place(Protocol):
    """What storage needs of one. Names are relative, with slashes."""

    def name(self, file: str) -> str:
        """For messages."""

    def files(self) -> dict[str, Stored]:
        """All that is there."""

    def recorded(self, file: str) -> str:
        """The sha256 that the file was stored with; '' where nobody recorded one."""

    def digest(self, file: str) -> str:
        """The sha256 of the bytes that are there now."""

    def read(self, file: str) -> bytes | None:
        """The whole of a small file; None where there is none."""

    def write(self, file: str, content: bytes) -> None:
        """A small file, at once."""

    def get(self, file: str, path: Path, progress: Progress) -> None:
        """To a path here, which appears whole."""

    def put(self, path: Path, file: str, sha256: str, progress: Progress) -> None:
        """From a path here; the file appears whole. Bytes that are changed on the way are refused."""

    def holds(self, file: str, size: int, sha256: str) -> bool:
        """Whether it is what was just put there, and not what somebody else has put since."""

    def delete(self, file: str) -> None:
        """Nothing happens where there is none."""

    def close(self, cancel: bool) -> None:
        """End the transfers; `cancel` does not wait for them to be whole."""


class S3Folder:
    """The objects below s3://BUCKET/KEY/, or the object of that key."""

    def __init__(self, uri: str) -> None:
        from boto3.s3.transfer import TransferConfig, create_transfer_manager

        self.bucket, _, key = uri.partition("://")[2].partition("/")
        self.key = key.strip("/")
        self._client = client()
        config = TransferConfig(PIECE, AT_ONCE, PIECE, preferred_transfer_client="classic")
        self._transfers = create_transfer_manager(self._client, config)

    def name(self, file: str) -> str:
        return f"s3://{self.bucket}/{self._key(file)}"

    def files(self) -> dict[str, Stored]:
        below = f"{self.key}/" if self.key else ""
        found = {}
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=below):
            for entry in page.get("Contents", []):
                file = entry["Key"].removeprefix(below)
                if not file or file.endswith("/"):  # what some tools store for a folder
                    continue
                if not set(file.split("/")).isdisjoint(("", ".", "..")):
                    raise UserError(f"s3://{self.bucket}/{entry['Key']} cannot be a path here: rename it")
                found[file] = Stored(entry["Size"], entry["LastModified"].timestamp(), entry["ETag"])
        if not found and self.key and (head := self._head("")):
            found[""] = Stored(head["ContentLength"], head["LastModified"].timestamp(), head["ETag"])
        return found

    def recorded(self, file: str) -> str:
        return (self._head(file) or {}).get("Metadata", {}).get(RECORDED, "")

    def digest(self, file: str) -> str:
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        for left in (2, 1, 0):
            sha256 = hashlib.sha256()
            try:
                body = self._client.get_object(Bucket=self.bucket, Key=self._key(file))["Body"]
                for part in body.iter_chunks(2**20):
                    sha256.update(part)
                break
            except (HTTPClientError, IncompleteReadError):  # boto3 tries requests again, not the reading of their answers
                if not left:
                    raise
        return sha256.hexdigest()

    def read(self, file: str) -> bytes | None:
        try:
            content: bytes = self._client.get_object(Bucket=self.bucket, Key=self._key(file))["Body"].read()
        except self._client.exceptions.NoSuchKey:
            return None
        return content

    def write(self, file: str, content: bytes) -> None:
        recorded = {RECORDED: hashlib.sha256(content).hexdigest()}
        self._client.put_object(Bucket=self.bucket, Key=self._key(file), Body=content, Metadata=recorded)

    def get(self, file: str, path: Path, progress: Progress) -> None:
        from boto3.s3.transfer import ProgressCallbackInvoker

        subscribers = [ProgressCallbackInvoker(progress)]
        self._transfers.download(self.bucket, self._key(file), str(path), subscribers=subscribers).result()

    def put(self, path: Path, file: str, sha256: str, progress: Progress) -> None:
        from boto3.s3.transfer import ProgressCallbackInvoker

        if path.stat().st_size >= PIECE:
            self._forget_pieces(file)
        recorded = {"Metadata": {RECORDED: sha256}}
        subscribers = [ProgressCallbackInvoker(progress)]
        self._transfers.upload(str(path), self.bucket, self._key(file), extra_args=recorded, subscribers=subscribers).result()

    def holds(self, file: str, size: int, sha256: str) -> bool:
        head = self._head(file) or {}
        return head.get("ContentLength") == size and head.get("Metadata", {}).get(RECORDED, sha256) == sha256

    def delete(self, file: str) -> None:
        self._client.delete_object(Bucket=self.bucket, Key=self._key(file))

    def close(self, cancel: bool) -> None:
        from s3transfer.exceptions import CancelledError

        # Not shutdown(cancel=True), which fails over its own arguments where something is to be cancelled.
        reason = (CancelledError, CancelledError("stopped"), None) if cancel else (None, None, None)
        self._transfers.__exit__(*reason)

    def _key(self, file: str) -> str:
        return "/".join(part for part in (self.key, file) if part)

    def _head(self, file: str) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            head: dict[str, Any] = self._client.head_object(Bucket=self.bucket, Key=self._key(file))
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            return None
        return head

    def _forget_pieces(self, file: str) -> None:
        """Of uploads of this file that were cut off: they are paid for until somebody says so."""
        from botocore.exceptions import ClientError

        with contextlib.suppress(ClientError):  # not every store lists them, nor for every key
            known = self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=self._key(file))
            for upload in known.get("Uploads", []):
                if upload["Key"] == self._key(file):
                    self._client.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])


class Folder:
    """The files below a path, or the file of that path: a shared volume."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def name(self, file: str) -> str:
        return str(self.path / file)

    def files(self) -> dict[str, Stored]:
        paths = [self.path] if self.path.is_file() else self.path.rglob("*")
        found = {}
        for path in paths:
            if path.is_file() and not path.name.endswith(UNFINISHED):
                status = path.stat()
                relative = path.relative_to(self.path)
                found["" if path == self.path else relative.as_posix()] = Stored(status.st_size, status.st_mtime)
        return found

    def recorded(self, file: str) -> str:
        return file_digest(self.path / file)

    digest = recorded

    def read(self, file: str) -> bytes | None:
        try:
            return (self.path / file).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, file: str, content: bytes) -> None:
        self._put(file, lambda unfinished: unfinished.write_bytes(content))

    def get(self, file: str, path: Path, progress: Progress) -> None:
        shutil.copyfile(self.path / file, path)
        progress(path.stat().st_size)

    def put(self, path: Path, file: str, sha256: str, progress: Progress) -> None:
        self._put(file, lambda unfinished: shutil.copyfile(path, unfinished))
        progress(path.stat().st_size)

    def holds(self, file: str, size: int, sha256: str) -> bool:
        return self.digest(file) == sha256

    def delete(self, file: str) -> None:
        (self.path / file).unlink(missing_ok=True)

    def close(self, cancel: bool) -> None:
        pass

    def _put(self, file: str, write: Callable[[Path], object]) -> None:
        path = self.path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}{UNFINISHED}")
        try:
            write(unfinished)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
