"""A real Prometheus, on a port and in a folder of its own."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Final

import pytest
from processes import REPOSITORY

_START_S: Final = 20.0
_UNPACKED: Final = REPOSITORY / ".tools" / "usr" / "bin"
Series = list[dict[str, Any]]


def tool(name: str) -> str:
    """Return the path of a program of Prometheus's package.

    Without it a test is skipped on a developer's machine; CI has no excuse.
    """
    found = shutil.which(name, path=f"{_UNPACKED}{os.pathsep}{os.environ['PATH']}")
    if found is None and os.environ.get("CI"):
        pytest.fail(f"no {name}: `make tools` did not bring it")
    if found is None:
        pytest.skip(f"no {name} here: `make tools` brings it")
    return found


@dataclass(frozen=True)
class Prometheus:
    """A running server and the file that tells it whom to scrape."""

    url: str
    targets: Path

    def scrape(self, **jobs: str) -> None:
        """Scrape these URLs from now on, each under the name of its job."""
        groups = []
        for job, url in jobs.items():
            parts = urllib.parse.urlsplit(url)
            labels = {"job": job, "__metrics_path__": parts.path}
            groups.append({"targets": [parts.netloc], "labels": labels})
        # It watches the file: half a file must never be there.
        draft = self.targets.with_suffix(".draft")
        draft.write_text(json.dumps(groups))
        draft.rename(self.targets)

    def get(self, path: str, **params: Any) -> Any:
        """Ask the HTTP API; `AssertionError` says what is wrong with a query."""
        query = urllib.parse.urlencode(params, doseq=True)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}") as answer:
                body = json.load(answer)
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{params}: {refused.read().decode()}") from None
        assert body["status"] == "success"
        assert not body.get("warnings"), body["warnings"]
        return body["data"]

    def instant(self, expr: str, at: float | None = None) -> Series:
        """Return the series of an instant query."""
        when = {} if at is None else {"time": at}
        found: Series = self.get("query", query=expr, **when)["result"]
        return found

    def range(self, expr: str, start: float, end: float, step: float = 1.0) -> Series:
        """Return the series of a range query."""
        found: Series = self.get(
            "query_range", query=expr, start=start, end=end, step=step
        )["result"]
        return found

    def value(self, expr: str, at: float | None = None) -> float:
        """Return the one value of an instant query."""
        (series,) = self.instant(expr, at)
        return float(series["value"][1])

    def _errors(self) -> list[str]:
        """Return what went wrong at the last scrapes."""
        targets = self.get("targets")["activeTargets"]
        return [f"{one['scrapeUrl']} {one['lastError']}" for one in targets]

    def wait_for(self, expr: str, patience_s: float = 15.0) -> None:
        """Wait until an instant query finds something."""
        deadline = time.monotonic() + patience_s
        while not self.instant(expr):
            assert time.monotonic() < deadline, f"{expr} stays empty: {self._errors()}"
            time.sleep(0.1)


def finite(found: Series) -> list[float]:
    """Return the values of series that are numbers."""
    pairs = [
        pair for one in found for pair in one.get("values", [one.get("value")]) if pair
    ]
    return [value for _, text in pairs if isfinite(value := float(text))]


@contextmanager
def prometheus(
    folder: Path, rules: Sequence[Path] = (), *, config: Path | None = None
) -> Iterator[Prometheus]:
    """Run Prometheus for a `with` block; it looks at everything once a second.

    `config`: a file of its own to go by, in the place of rules and targets.
    """
    program = tool("prometheus")
    targets = folder / "targets.json"
    targets.write_text("[]")
    default = folder / "prometheus.json"  # JSON is YAML
    default.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(path) for path in rules],
                "scrape_configs": [
                    {
                        "job_name": "file",
                        "file_sd_configs": [
                            {"files": [str(targets)], "refresh_interval": "1s"}
                        ],
                    }
                ],
            }
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen(
        [
            program,
            f"--config.file={config or default}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=warn",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
    )
    try:
        _await_ready(process, f"http://{address}/-/ready")
        yield Prometheus(f"http://{address}", targets)
    finally:
        process.terminate()
        process.communicate(timeout=_START_S)


def _await_ready(process: subprocess.Popen[str], url: str) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                said, _ = process.communicate()
                raise AssertionError(f"Prometheus did not start: {said}") from None
            time.sleep(0.05)
