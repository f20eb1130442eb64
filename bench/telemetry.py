"""Measure what telemetry costs the load generator: CPU per output token.

A mock and a collector that swallows everything run beside Locust under one open-loop
plan, the same requests each time. Each round runs every variant once, in turns. CPU is
that of the Locust process alone, from /proc, while requests arrive; start-up and the
end are left out. What else runs on the machine only ever adds to it, by 5 % and more:
so the table compares the least of all rounds, and shows how far the rounds are apart.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WARM_S = 4.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
NAMES = ("off", "Prometheus, 1 s", "OTel, 1 %", "OTel, 100 %")


class Swallow(BaseHTTPRequestHandler):
    """Answers every export with 200."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read and forget."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@dataclass
class Trial:
    """One run: CPU seconds so far and tokens streamed so far, twice a second."""

    marks: list[tuple[float, int]] = field(default_factory=list)

    @property
    def us_per_token(self) -> float:
        """CPU of the load generator, in microseconds per output token."""
        (cpu0, tokens0), (cpu1, tokens1) = self.marks[0], self.marks[-1]
        return (cpu1 - cpu0) / (tokens1 - tokens0) * 1e6


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


@contextmanager
def mock() -> Iterator[str]:
    """Run the mock; yields its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loadstone", "serve", "--port", "0", "--grace", "1s"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, env=plain(),
    )  # fmt: skip
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "listening on " in line:
                yield line.split()[-1]
                break
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def streamed(host: str) -> int:
    """Return how many tokens the mock has given so far."""
    with urllib.request.urlopen(f"{host}/metrics") as page:
        lines = page.read().decode().splitlines()
    given = (n for n in lines if n.startswith("vllm:generation_tokens_total"))
    return round(sum(float(line.split()[-1]) for line in given))


def plain() -> dict[str, str]:
    """Return the environment without telemetry."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    return clean | {"PYTHONPATH": str(ROOT)}


def run(name: str, host: str, sink: str, options: argparse.Namespace) -> Trial:
    """Run Locust once and watch its CPU."""
    environ, more = plain(), []
    if name.startswith("OTel"):
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = sink
        ratio = float(name.split()[1]) / 100
        environ |= {"OTEL_TRACES_SAMPLER_ARG": str(ratio)}
    if name.startswith("Prom"):
        more = ["--metrics-port", "0"]
    read_fd, write_fd = os.pipe()
    with tempfile.TemporaryDirectory() as out:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "locust", "-f", "loadgen/locustfile.py",
                "--headless", "--users", "512", "--host", host, "--out", out,
                "--rate", str(options.rate), "--duration", f"{options.seconds}s",
                "--drain", "2s", *more,
            ],
            cwd=ROOT, pass_fds=(write_fd,), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environ | {"LOADSTONE_TELL_FD": str(write_fd)},
        )  # fmt: skip
        os.close(write_fd)
        trial = follow(process.pid, read_fd, host, options.seconds)
        process.wait()
    return trial


def follow(pid: int, read_fd: int, host: str, seconds: float) -> Trial:
    """Note CPU and tokens as Locust tells of its progress."""
    trial, stop = Trial(), threading.Event()
    with os.fdopen(read_fd) as told:
        for line in told:
            what, facts = json.loads(line)
            if what == "metrics":
                arguments = (facts["url"], stop)
                threading.Thread(target=scrape, args=arguments, daemon=True).start()
            elif what == "progress" and WARM_S <= facts["elapsed_s"] <= seconds:
                trial.marks.append((cpu_s(pid), streamed(host)))
    stop.set()
    return trial


def scrape(url: str, stop: threading.Event) -> None:
    """Read the metrics every second."""
    while not stop.wait(1.0):
        try:
            with urllib.request.urlopen(url) as page:
                page.read()
        except OSError:
            return


def table(rounds: list[dict[str, Trial]]) -> Iterator[str]:
    """Compare the least costs, and the medians of the rounds' ratios."""
    yield f"{'telemetry':<16} least us/token   ratio   ratio by round, median (range)"
    leasts = {name: min(r[name].us_per_token for r in rounds) for name in NAMES}
    for name, least in leasts.items():
        ratios = sorted(r[name].us_per_token / r["off"].us_per_token for r in rounds)
        middle, spread = statistics.median(ratios), f"{ratios[0]:.3f}-{ratios[-1]:.3f}"
        yield (
            f"{name:<16} {least:14.2f}   {least / leasts['off']:5.3f}"
            f"   {middle:.3f} ({spread})"
        )


def main() -> None:
    """Read the options, run the rounds, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=20.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sink = ThreadingHTTPServer(("127.0.0.1", 0), Swallow)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{sink.server_port}"
    rounds: list[dict[str, Trial]] = []
    with mock() as host:
        for number in range(options.rounds):
            # Each round begins with another variant, so that none is always first.
            order = NAMES[number % len(NAMES) :] + NAMES[: number % len(NAMES)]
            rounds.append({name: run(name, host, url, options) for name in order})
            costs = (f"{rounds[-1][name].us_per_token:.2f}" for name in NAMES)
            print(f"round {number + 1}: {' '.join(costs)} us/token", flush=True)
    for line in table(rounds):
        print(line)


if __name__ == "__main__":
    main()
