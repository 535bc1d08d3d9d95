"""The replayed cluster's answers on the wire: JSON, chunked streams, and the ways in which they fail."""

import json
import math
import re
import select
import socket
import struct
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

from apiserver import Cluster
from asked import TRUE, Request, check_fields, kind_of, parse, selected
from recorded import FIRST_VERSION, ApiError, Job, Json, Run

BOOKMARK_SECONDS = 60.0
LIST_EXPIRED = "The resourceVersion for the provided list is too old."
FAULTS = {
    "429": ApiError(429, "TooManyRequests", "Too many requests, please try again later."),
    "500": ApiError(500, "InternalError", "Internal error occurred: a fault that the test wanted"),
    "503": ApiError(503, "ServiceUnavailable", "the server is currently unable to handle the request"),
    "410": ApiError(410, "Expired", LIST_EXPIRED),
}


class HungUpError(ConnectionError):
    """The test wanted this connection to break."""


class Answering(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any
    request_number: int

    @property
    def cluster(self) -> Cluster:
        return self.server.cluster

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: cluster.requests has it."""

    def answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        objects = self.cluster.objects
        self.fault = ""
        with objects.changed:
            request, served = parse(self.command, self.path, self.cluster.served)
            self.fault = self.cluster.fault_of(request)
            self.request_number = len(self.cluster.requests) - 1
        self.chunks = 0
        if self.fault == "timeout":
            self.hold()
        streaming = request.verb == "watch" or (request.subresource == "log" and request.query.get("follow") in TRUE)
        if self.fault == "reset" and not streaming:
            self.hang_up()
        try:
            if self.fault == "410" and request.verb == "watch":
                self.expired_watch(request)
            elif self.fault in FAULTS:
                raise FAULTS[self.fault]
            elif not served or not request.resource:
                self.about(served)
            else:
                self.cluster.check_rights(request, self.headers.get("Authorization", ""))
                self.dispatch(request, raw)
        except ApiError as error:
            self.send_error_status(error)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    def dispatch(self, r: Request, raw: bytes) -> None:
        cluster = self.cluster
        body: Json = json.loads(raw) if raw else {}
        if r.verb in ("watch", "list"):
            check_fields(r)
        if r.verb == "watch":
            self.watch(r)
        elif r.subresource == "log":
            self.send_log(r)
        elif (r.verb, r.resource) == ("create", "pytorchjobs") and (refusal := cluster.refusal()):
            name = body["metadata"].get("name", "")
            text = refusal["body"].replace("@JOB@", name).replace("@NAMESPACE@", r.namespace)
            self.send(refusal["status"], text.encode(), refusal["headers"])
        else:
            with cluster.objects.changed:
                text = json.dumps(cluster.answer(r, body, self.headers.get("Content-Type", "")))
            self.send(201 if r.verb == "create" else 200, text.encode())

    def about(self, served: bool) -> None:
        """What the server says of itself."""
        path = self.path.split("?")[0].strip("/")
        version = path.removeprefix("apis/").removeprefix("api/")
        text = {"Content-Type": "text/plain; charset=utf-8"}
        if path == "version":
            self.send_json({"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
        elif path in ("readyz", "livez", "healthz"):
            self.send(200, b"ok", text)
        elif path == "apis":
            groups = [{"name": api.split("/")[0]} for api in self.cluster.served if "/" in api]
            self.send_json({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        elif served:
            names = sorted(self.cluster.served[version])
            resources = [{"name": name, "kind": kind_of(name), "namespaced": True} for name in names]
            self.send_json({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources})
        else:
            self.send(404, b"404 page not found\n", text)

    def watch(self, r: Request) -> None:
        objects = self.cluster.objects
        asked = r.query.get("resourceVersion", "")
        if not re.fullmatch(r"\d*", asked):
            why = f'resourceVersion: Invalid value: "{asked}": strconv.ParseUint: parsing "{asked}": invalid syntax'
            raise ApiError(500, "", why)
        with objects.changed:
            objects.advance()
            position = len(objects.past) if asked in ("", "0") else int(asked) - FIRST_VERSION
            batch = [("ADDED", item) for item in objects.all(r.resource, r.namespace)] if asked in ("", "0") else []
            begun = objects.now()
        if position < 0:
            self.expired_watch(r)
            return
        end = begun + float(r.query.get("timeoutSeconds", "inf"))
        bookmarks = r.query.get("allowWatchBookmarks") in TRUE
        bookmark = begun + BOOKMARK_SECONDS if bookmarks else math.inf
        self.begin_stream("application/json")
        while True:
            for kind, item in batch:
                if kind == "BOOKMARK" or selected(r, item):
                    self.chunk(json.dumps({"type": kind, "object": item}).encode() + b"\n")
            with objects.changed:
                objects.advance()
                news = objects.past[position:]
                if not news and not self.cluster.closing and objects.now() < end:
                    objects.wait(min(end, bookmark))
                    objects.advance()
                    news = objects.past[position:]
                now, version = objects.now(), objects.version()
            position += len(news)
            spaces = ("", r.namespace) if r.namespace else None
            batch = [(one.type, one.object) for one in news if one.resource == r.resource]
            batch = [(kind, item) for kind, item in batch if not spaces or item["metadata"].get("namespace", "") in spaces]
            if self.cluster.closing or (now >= end and not news):
                self.end_stream()
                return
            if now >= bookmark and not news:
                bookmark = now + BOOKMARK_SECONDS
                batch = [("BOOKMARK", {"kind": kind_of(r.resource), "metadata": {"resourceVersion": str(version)}})]

    def expired_watch(self, r: Request) -> None:
        asked = r.query.get("resourceVersion", "")
        status = ApiError(410, "Expired", f"too old resource version: {asked} ({FIRST_VERSION})").status
        self.begin_stream("application/json")
        self.chunk(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
        self.fault = ""
        self.end_stream()

    def send_log(self, r: Request) -> None:
        objects, query = self.cluster.objects, r.query
        with objects.changed:
            run = self.cluster.log(r)
            begun = objects.now()
            job = objects.job_of(self.cluster.item(r))
        if run is None:
            self.send(204, b"", {})
            return
        written = [line for line in run.lines if line[0] <= begun]
        if job and "sinceTime" in query:  # the API server hands on whole seconds
            since = math.floor(datetime.fromisoformat(query["sinceTime"]).timestamp())
            written = [line for line in written if job.stamp(line[0]).timestamp() >= since]
        if "sinceSeconds" in query:
            written = [line for line in written if line[0] >= begun - float(query["sinceSeconds"])]
        if "tailLines" in query:
            written = written[len(written) - min(len(written), int(query["tailLines"])) :]
        follow = query.get("follow") in TRUE
        coming = [line for line in run.lines if line[0] > begun] if follow else []
        self.begin_stream("text/plain")
        for moment, line in written + coming:
            if not self.wait_for(moment, run, job, begun):
                break
            if job and query.get("timestamps") in TRUE:  # a chunk of its own, as was seen
                self.chunk(f"{job.stamp(moment):%Y-%m-%dT%H:%M:%S.%f}000Z ".encode())
            self.chunk(line.encode() + b"\n")
        if follow:
            self.wait_for(math.inf, run, job, begun)
        self.end_stream()

    def wait_for(self, moment: float, run: Run, job: Job | None, begun: float) -> bool:
        """Until the line of that moment is written; False where the stream ends before."""
        objects = self.cluster.objects
        with objects.changed:
            while True:
                end = run.end if run.end is not None else math.inf
                if job and job.lost and begun < job.lost[0]:
                    end = min(end, job.lost[0])
                now = objects.now()
                if self.cluster.closing or (moment > end and now >= end):
                    return False
                if moment <= now and moment <= end:
                    return True
                objects.changed.wait(min(moment - now, end - now, 1e6) / objects.speed)

    # The wire.

    def send_json(self, body: Json) -> None:
        self.send(200, json.dumps(body).encode())

    def send_error_status(self, error: ApiError) -> None:
        headers = {"Content-Type": "application/json"}
        if error.code == 429:
            headers["Retry-After"] = str(self.cluster.retry_after)
        self.send(error.code, json.dumps(error.status).encode() + b"\n", headers)

    def send(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        if self.fault == "lost":
            self.hang_up()
        self.note(code)
        self.send_response(code)
        for name, value in ({"Content-Type": "application/json"} if headers is None else headers).items():
            self.send_header(name, value)
        if code != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def note(self, code: int) -> None:
        with self.cluster.objects.changed:
            requests = self.cluster.requests
            requests[self.request_number] = requests[self.request_number]._replace(status=code)

    def begin_stream(self, content_type: str) -> None:
        self.note(200)
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.chunks += 1
        whole = f"{len(data):x}\r\n".encode() + data + b"\r\n"
        if self.fault in ("reset", "lost") and self.chunks == 2:
            self.wfile.write(whole[: len(whole) // 2])
            time.sleep(0.02)  # lets the client read so far
            self.hang_up()
        self.wfile.write(whole)

    def end_stream(self) -> None:
        if self.fault in ("reset", "lost"):
            self.hang_up()
        self.wfile.write(b"0\r\n\r\n")

    def hold(self) -> None:
        """Say nothing until the client gives up."""
        while not self.cluster.closing:
            if select.select([self.connection], [], [], 0.05)[0] and not self.connection.recv(1, socket.MSG_PEEK):
                break
        raise HungUpError

    def hang_up(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise HungUpError
