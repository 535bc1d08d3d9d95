"""A small Kubeflow Pipelines: its v2beta1 API as far as `kfp run create` and pipelines.submit use it, and runs that go on."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, dict[str, Any] | str]
START = "2026-11-20T10:00:00Z"
EPOCH = "1970-01-01T00:00:00Z"


def task(name: str, state: str, minutes: int = 0, **more: Any) -> dict[str, Any]:
    """As 2.17 tells of one. What has not ended has the year 1 as its end."""
    end = f"2026-11-20T10:{minutes:02}:30Z" if minutes else "0001-01-01T00:00:00Z"
    times = {"create_time": START, "start_time": START, "end_time": end}
    return {"task_id": f"id-{name}", "display_name": name, "state": state, **times, **more}


class Kubeflow:
    """`course` is what a run goes through: at each look it is one further; `states`, what one whose name ends so does."""

    def __init__(self) -> None:
        self.multi_user = False
        self.token = ""
        self.away = 0  # requests that are answered 503, from now on
        self.course: list[dict[str, Any]] = [{"state": "SUCCEEDED"}]
        self.experiments: dict[tuple[str, str], str] = {}
        self.runs: list[dict[str, Any]] = []
        self.states: dict[str, list[str]] = {}
        self.looks = 0
        self.page_size = 2  # at most, whatever is asked for
        self.asked: list[tuple[str, str]] = []
        handler = type("Handler", (_Handler,), {"kubeflow": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def running(self) -> Iterator["Kubeflow"]:
        with self.server:
            threading.Thread(target=self.server.serve_forever, daemon=True).start()
            yield self
            self.server.shutdown()

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> Answer:
        if path.endswith("/healthz"):
            return 200, {"multi_user": self.multi_user}
        if path.endswith("/experiments"):
            namespace = body.get("namespace") or query.get("namespace", [""])[0]
            if self.multi_user != bool(namespace):
                return 400, {"message": f"Invalid input error: namespace '{namespace}' with multi_user {self.multi_user}"}
            if method == "POST":
                name = body["display_name"]
                self.experiments[namespace, name] = f"e{len(self.experiments)}"
            else:
                name = json.loads(query["filter"][0])["predicates"][0]["stringValue"]
            if (namespace, name) not in self.experiments:
                return 200, {}
            found = {"experiment_id": self.experiments[namespace, name], "display_name": name}
            return 200, found if method == "POST" else {"experiments": [found]}
        if path.endswith("/runs") and method == "POST":
            self.runs.append(body)
            return 200, {**body, "run_id": f"r{len(self.runs) - 1}", "created_at": START}
        if path.endswith(":terminate") and method == "POST":
            self.states[self.runs[int(path.rpartition("/")[2][1:].partition(":")[0])]["display_name"]] = ["CANCELED"]
            return 200, {}
        if path.endswith("/runs") and method == "GET":
            return 200, self.listed(query)
        if "/runs/" in path and method == "GET" and (states := self.states_of(path.rpartition("/")[2])):
            run = self.told(path.rpartition("/")[2])
            if len(states) > 1:
                states.pop(0)
            return 200, run
        if "/runs/" in path and method == "GET":
            self.looks += 1
            return 200, {
                "run_id": path.rpartition("/")[2],
                "created_at": START,
                "finished_at": "2026-11-20T10:05:00Z",
                **self.course[min(self.looks, len(self.course)) - 1],
            }
        return 404, {"message": "not found"}

    def states_of(self, run_id: str) -> list[str]:
        name = self.runs[int(run_id[1:])]["display_name"]
        return next((states for ending, states in self.states.items() if name.endswith(ending)), [])

    def told(self, run_id: str) -> dict[str, Any]:
        """A run as it stands, with the first of its states; its stage train has failed where it has."""
        state = (self.states_of(run_id) or ["SUCCEEDED"])[0]
        times = {"created_at": START, "finished_at": "2026-11-20T10:05:00Z" if state in ("SUCCEEDED", "FAILED") else EPOCH}
        error = {"message": "error: no such column\nexit status 2"}
        failed = [task("train", "FAILED", 1, error=error)] if state == "FAILED" else []
        run = {**self.runs[int(run_id[1:])], "run_id": run_id, "state": state, **times}
        return {**run, "run_details": {"task_details": failed}}

    def listed(self, query: dict[str, list[str]]) -> dict[str, Any]:
        """Of the experiment, the newest first."""
        (predicate,) = json.loads(query["filter"][0])["predicates"]
        assert (predicate["operation"], predicate["key"]) == ("IS_SUBSTRING", "display_name")
        assert query["sort_by"] == ["created_at desc"]
        found = [
            self.told(f"r{number}")
            for number, run in reversed(list(enumerate(self.runs)))
            if run["experiment_id"] == query["experiment_id"][0] and predicate["stringValue"] in run["display_name"]
        ]
        first = int(query.get("page_token", ["0"])[0])
        last = first + min(self.page_size, int(query["page_size"][0]))
        return {"runs": found[first:last], **({"next_page_token": str(last)} if last < len(found) else {})}


class _Handler(http.server.BaseHTTPRequestHandler):
    kubeflow: Kubeflow

    def _handle(self) -> None:
        url = urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        there = self.kubeflow
        there.asked.append((self.command, url.path))
        if there.away > 0:
            there.away -= 1
            code, answer = 503, "upstream connect error"
        elif there.token and self.headers.get("Authorization") != f"Bearer {there.token}":
            code, answer = 401, {"message": "Unauthenticated: no token, or not a valid one"}  # type: ignore[assignment]
        else:
            code, answer = there.answer(self.command, url.path, parse_qs(url.query), body)  # type: ignore[assignment]
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = _handle  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass
