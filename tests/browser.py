"""A real headless Chromium, driven over the DevTools protocol."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
SWITCHES = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)
SECONDS = 60


class Page:
    """A tab. What went wrong in it, and what it asked for, is kept."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=SECONDS)
        self.numbers = itertools.count()
        self.loaded = False
        self.complaints: list[str] = []
        """Errors and warnings of the console, uncaught exceptions, failed requests."""
        self.requested: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message["method"], message["params"])

    def open(self, path: Path, width: int, height: int = 844, dark: bool = False) -> None:
        """Load the file in a window of so many CSS pixels."""
        self.loaded = False
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        while not self.loaded:
            message = json.loads(self.socket.recv())
            self._note(message["method"], message["params"])

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page, as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _note(self, method: str, event: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Network.requestWillBeSent":
            self.requested.append(event["request"]["url"])
        elif method in ("Runtime.exceptionThrown", "Network.loadingFailed"):
            self.complaints.append(json.dumps(event))
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(event["args"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            self.complaints.append(event["entry"]["text"])


@contextlib.contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """A browser with an empty profile in the folder `profile`; it and all its processes are gone when the block ends."""
    assert CHROMIUM
    command = [CHROMIUM, *SWITCHES, f"--user-data-dir={profile}", "about:blank"]
    environment = {**os.environ, "HOME": str(profile)}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=environment
    ) as process:
        try:
            page = Page(_address(profile, process))
            yield page
            page.call("Browser.close")
            process.wait(SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _address(profile: Path, process: "subprocess.Popen[bytes]") -> str:
    """Of the first tab's socket, once the browser says where it listens."""
    file = profile / "DevToolsActivePort"
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(OSError, IndexError):
            port = file.read_text().splitlines()[0]
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with direct.open(f"http://127.0.0.1:{port}/json/list", timeout=SECONDS) as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise RuntimeError(f"{CHROMIUM} did not start")
