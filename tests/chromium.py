"""Chromium without a window and without a network, told what to do over a pipe."""

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe",
)  # fmt: skip


class Page:
    """A page that was opened, with everything that happened on it."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._next = 0
        self._rest = b""
        self._session: str | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        """What the browser told by itself: method, parameters."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Network.emulateNetworkConditions", offline=True, latency=0,
            downloadThroughput=0, uploadThroughput=0,
        )  # fmt: skip

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have a method done and return its result."""
        self._next += 1
        message = {"id": self._next, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._next:
                assert "error" not in heard, heard["error"]
                result: dict[str, Any] = heard["result"]
                return result

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._read, 1 << 16)
            assert piece, "Chromium ended"
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\0")
        heard: dict[str, Any] = json.loads(line)
        if "method" in heard:
            self.events.append((heard["method"], heard["params"]))
        return heard

    def open(self, path: Path) -> None:
        """Open a file and wait until it is loaded."""
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(method == "Page.loadEventFired" for method, _ in self.events):
            self._hear()

    def online(self) -> None:
        """Turn the network on: for a server of the test's own."""
        self.call(
            "Network.emulateNetworkConditions", offline=False, latency=0,
            downloadThroughput=-1, uploadThroughput=-1,
        )  # fmt: skip

    def visit(self, url: str) -> None:
        """Go to an address; `until` tells when something is there."""
        self.call("Page.navigate", url=url)

    def until(self, expression: str, patience_s: float = 30) -> None:
        """Wait until a JavaScript expression is true, on whatever page there is."""
        end = time.monotonic() + patience_s
        while True:
            told = self.call(
                "Runtime.evaluate", expression=expression, returnByValue=True
            )
            if told["result"].get("value") is True:
                return
            assert time.monotonic() < end, f"never: {expression}"
            time.sleep(0.05)

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression on the page."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def pdf(self) -> bytes:
        """Print the page as its styles say."""
        printed = self.call(
            "Page.printToPDF", preferCSSPageSize=True, printBackground=False
        )
        return base64.b64decode(printed["data"])

    @property
    def complaints(self) -> list[Any]:
        """What was logged or thrown."""
        kinds = (
            "Log.entryAdded",
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
        )
        return [facts for method, facts in self.events if method in kinds]

    @property
    def fetched(self) -> list[str]:
        """Every address that was asked for, by its first 60 characters."""
        return [
            facts["request"]["url"][:60]
            for method, facts in self.events
            if method == "Network.requestWillBeSent"
        ]


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """Run Chromium for the block; yields an empty page, with the network off."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    # It talks on descriptors 3 and 4, whatever ours are.
    script = f'exec "$@" 3<&{to_read} 4>&{from_write}'
    process = subprocess.Popen(
        [
            "bash",
            "-c",
            script,
            "bash",
            "chromium",
            *_FLAGS,
            f"--user-data-dir={profile}",
        ],
        pass_fds=(to_read, from_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(from_write)
    try:
        yield Page(to_write, from_read)
    finally:
        process.terminate()
        process.wait(30)
        os.close(to_write)
        os.close(from_read)
