"""Watching objects: a list, then what changes, for as long as it takes.

Whatever ends a watch (its own time-out, a cut, an API server away, a version that is too old: 410), the next one goes on from
the last version seen, or from a new list, whose differences from what was known are told as changes. Nothing is told twice, and
nothing is missed but what came and went between two lists.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event

from components.errors import TryAgainError
from components.launch.api import Api, ApiError, AwayError, Object

Change = Callable[[str, Object], None]


@dataclass
class Watch:
    """The objects at `path` that match `selector`; `tell(type, object)` gets ADDED, MODIFIED and DELETED."""

    api: Api
    path: str
    selector: Mapping[str, str]
    tell: Change
    stopped: Event
    known: dict[str, Object] = field(default_factory=dict)
    version: str = ""

    def run(self) -> None:
        """Until `stopped`.

        Raises:
            ApiError: the server refuses.
            TryAgainError: it was away for longer than the patience lasts.
        """
        pauses, since = self.api.patience.pauses(), time.monotonic()
        while not self.stopped.is_set():
            try:
                if self.version:
                    self._watch()
                else:
                    self._list()
                pauses, since = self.api.patience.pauses(), time.monotonic()
            except AwayError as error:
                if error.status == 410:
                    self.version = ""
                if not self.stopped.is_set():
                    self.api.heed(error, since, next(pauses))

    def _list(self) -> None:
        listing = self.api.ask("GET", self.path, query=self.selector)
        there = {item["metadata"]["uid"]: item for item in listing["items"]}
        for uid in self.known.keys() - there.keys():
            self.tell("DELETED", self.known.pop(uid))
        for uid, item in there.items():
            before = self.known.get(uid)
            if before is None or before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
                self._change("ADDED" if before is None else "MODIFIED", item)
        self.version = listing["metadata"]["resourceVersion"]

    def _watch(self) -> None:
        query = {
            **self.selector,
            "watch": "true",
            "resourceVersion": self.version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": max(1, round(self.api.patience.watch)),
        }
        started = time.monotonic()
        for line in self.api.lines(self.path, query):
            if self.stopped.is_set():
                return
            try:
                event = json.loads(line)
            except ValueError:
                raise AwayError("a watch was cut in the middle of a line") from None
            item = event["object"]
            if event["type"] == "ERROR":  # the answer began well, so its status says nothing
                raise AwayError(f"{item.get('code')} {item.get('message')}", item.get("code", 0))
            self.version = item["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                self._change(event["type"], item)
        if time.monotonic() - started < self.api.patience.pause:  # a server that ends watches at once
            time.sleep(self.api.patience.pause)

    def _change(self, kind: str, item: Object) -> None:
        if kind == "DELETED":
            self.known.pop(item["metadata"]["uid"], None)
        else:
            self.known[item["metadata"]["uid"]] = item
        self.tell(kind, item)


def run_safely(watch: Watch, failed: Callable[[Exception], None]) -> None:
    """`watch.run()` as a thread's body; what ends it is handed on."""
    try:
        watch.run()
    except (ApiError, TryAgainError) as error:
        failed(error)
