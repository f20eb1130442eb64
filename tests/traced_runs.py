"""Runs under OpenTelemetry, and what a collector was told of them."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collector import Collector, Span
from processes import PATIENCE_S, Results, loadstone, read_until, start

ROWS, TOO_LONG, OUTPUT = 60, 40_000, 12
MODEL = "llama-2-70b"
MS = 1_000_000
LOADGEN, MOCK = "loadstone-load", "loadstone-mock"
STAGES = {
    LOADGEN: ["queue", "connect", "time_to_first_token", "decode"],
    MOCK: ["queue", "prefill", "decode"],
}


def environ(**more: str) -> dict[str, str]:
    """Return this environment without telemetry of its own, and with some more."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    return clean | more


@contextmanager
def watched_mock(**more: str) -> Iterator[str]:
    """Run the mock under an environment until it has exported all; yields its URL."""
    process = start("serve", "--port", "0", "--grace", "1s", env=environ(**more))
    try:
        yield read_until(process, "listening on ").split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)


def drive(
    url: str, trace: Path, out: Path, *options: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Replay the trace."""
    return loadstone(
        "run", "chat", "--trace", str(trace), "--host", url, "--duration", "2s",
        "--out", str(out), *options, env=environ(**more),
    )  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """A run and what the collector had been told when it was over."""

    run: Results
    collector: Collector

    def spans(self, service: str) -> list[Span]:
        """Return one side's spans."""
        return [s for s in self.collector.spans if s.service == service]

    def roots(self, service: str) -> dict[str, Span]:
        """Return one side's request spans by trace."""
        kind = {LOADGEN: "client", MOCK: "server"}[service]
        return {s.trace_id: s for s in self.spans(service) if s.kind == kind}

    def stages(self, root: Span) -> list[Span]:
        """Return the stages below a request's span, by time."""
        below = [
            s
            for s in self.spans(root.service)
            if s.parent_id == root.span_id and s.kind == "internal"
        ]
        return sorted(below, key=lambda s: s.begin)


def old_durations(collector: Collector) -> list[Any]:
    """Return the client's durations by their name of v1.41."""
    return collector.named("gen_ai.client.operation.duration")


def sampled(run: Results) -> int:
    """Count the rows with a trace."""
    return sum("trace_id" in row for row in run.rows)


def wait_for(condition: Any) -> None:
    """Poll until `condition()`; fails after a while."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
