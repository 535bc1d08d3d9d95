"""The part of the Hugging Face hub's HTTP API that its library asks for models and data, on a loopback port."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

INFO = re.compile(r"/api/(models|datasets)/(.+?)(?:/revision/([^/]+))?")
TREE = re.compile(r"/api/(models|datasets)/(.+?)/tree/([^/]+)/?")
FILE = re.compile(r"(/datasets)?/(.+?)/resolve/([^/]+)/(.+)")
LARGE = (".safetensors", ".bin", ".parquet")
"""What the hub keeps in its large file storage, and names by its sha256."""


@dataclass
class Repository:
    """commits: commit -> path -> bytes.  refs: branch or tag -> commit.  refusal: status and code for who has no token."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    refusal: tuple[int, str] | None = None

    def commit(self, files: dict[str, bytes], ref: str = "main") -> str:
        """A new commit on a branch."""
        named = "".join(f"{path} {hashlib.sha256(content).hexdigest()}\n" for path, content in sorted(files.items()))
        name = hashlib.sha1(f"{len(self.commits)} {named}".encode()).hexdigest()
        self.commits[name], self.refs[ref] = files, name
        return name

    def found(self, revision: str) -> str | None:
        known = [self.refs.get(revision, ""), *(it for it in self.commits if it.startswith(revision) and len(revision) > 6)]
        return next((it for it in known if it), None)


@dataclass
class Hub:
    """token: who has it may have what is refused.  failing: a status that every request gets.  cut: bytes that files lack."""

    url: str = ""
    token: str = "hf_of-the-stub"
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    failing: int = 0
    cut: int = 0
    spoilt: bool = False
    """Files have the right size and other bytes."""

    def add(self, kind: str, name: str) -> Repository:
        return self.repositories.setdefault((f"{kind}s", name), Repository())


def of_folder(folder: Path, *paths: str) -> dict[str, bytes]:
    """Path -> bytes, of some files of a folder or of all."""
    found = paths or [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return {path: (folder / path).read_bytes() for path in found}


@contextmanager
def hub_stub() -> Iterator[Hub]:
    stub = Hub()
    handler = type("Handler", (_Handler,), {"stub": stub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        stub.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield stub
        server.shutdown()


@contextmanager
def library_at(url: str, cache: Path) -> Iterator[None]:
    """The library, which reads its settings when it is imported, pointed there within this process."""
    from huggingface_hub import constants

    from components.storage import hub

    with pytest.MonkeyPatch.context() as patched:
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        settings = {"ENDPOINT": url, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_CACHE": str(cache)}
        for name, value in {**settings, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
            patched.setattr(constants, name, value)
        patched.setattr(time, "sleep", lambda seconds: None)  # between the library's tries
        patched.delenv("HF_TOKEN", raising=False)
        forget()
        yield
    forget()
    assert hub.pinned.cache_info().currsize == 0


def forget() -> None:
    """What this process has learned of the hub."""
    from components.storage import hub

    hub.pinned.cache_clear()
    hub.folder_of.cache_clear()


def environment(url: str, cache: Path) -> dict[str, str]:
    """Of a process that is to talk to it."""
    return {"HF_ENDPOINT": url, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    stub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.stub.requests.append(f"{self.command} {unquote(path)}")
        if self.stub.failing:
            self._send(self.stub.failing, b"")
        elif match := TREE.fullmatch(path):
            self._tree(*match.groups())
        elif path.startswith("/api/") and (match := INFO.fullmatch(path)):
            self._info(*match.groups())
        elif match := FILE.fullmatch(path):
            self._file("datasets" if match[1] else "models", *match.groups()[1:])
        else:
            self._send(404, b"")

    def _repository(self, kind: str, name: str, revision: str | None) -> tuple[Repository, str] | None:
        """The repository and the commit; None where it was refused."""
        known = self.stub.repositories.get((kind, unquote(name)))
        has_token = self.headers.get("Authorization") == f"Bearer {self.stub.token}"
        if known is None:
            self._send(404 if has_token else 401, b"", **{"X-Error-Code": "RepoNotFound"})
        elif known.refusal and not has_token:
            self._send(known.refusal[0], b"", **{"X-Error-Code": known.refusal[1]})
        elif commit := known.found(unquote(revision or "main")):
            return known, commit
        else:
            self._send(404, b"", **{"X-Error-Code": "RevisionNotFound"})
        return None

    def _info(self, kind: str, name: str, revision: str | None) -> None:
        if found := self._repository(kind, name, revision):
            repository, commit = found
            siblings = [{"rfilename": path} for path in repository.commits[commit]]
            self._json({"id": unquote(name), "sha": commit, "siblings": siblings, "private": False, "tags": [], "downloads": 0})

    def _tree(self, kind: str, name: str, revision: str) -> None:
        if found := self._repository(kind, name, revision):
            repository, commit = found
            rows = []
            for path, content in repository.commits[commit].items():
                row: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}
                if path.endswith(LARGE):
                    row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
                rows.append(row)
            self._json(rows)

    def _file(self, kind: str, name: str, revision: str, path: str) -> None:
        if found := self._repository(kind, name, revision):
            repository, commit = found
            content = repository.commits[commit].get(unquote(path))
            if content is None:
                self._send(404, b"", **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
                return
            named = hashlib.sha256(content).hexdigest() if path.endswith(LARGE) else _oid(content)
            about = {"X-Repo-Commit": commit, "ETag": f'"{named}"', "X-Linked-Size": str(len(content))}
            content = content[: len(content) - self.stub.cut]
            self._send(200, b"?" * len(content) if self.stub.spoilt else content, **about)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass
