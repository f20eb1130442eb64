"""Measure the streaming client against known truth, and another one beside it.

    python bench/client.py                     the standard loads
    python bench/client.py --via unix tls      the same over a Unix socket and TLS
    python bench/client.py --peer              with a load generator from PyPI beside it

`bench/streams.py` serves from a process of its own and puts the stamps of its writes
into the last chunk. The client is a `Session` as Locust drives it: a greenlet per
stream on one hub, rows built, counted and written. CPU is user and system time of this
process, from the first request to the last row. The machine is rarely quiet: compare
within one run, and read the lags beside the errors.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import gevent
from peer import compare

from loadgen.client import Endpoint, StreamingClient
from loadgen.connection import Timeouts
from loadgen.results import RowWriter
from loadgen.session import Session
from loadgen.stats import ClientStats
from loadgen.tracing import Traces
from loadstone.traffic.plan import Plan
from loadstone.traffic.quantiles import nearest_rank
from loadstone.traffic.record import RequestRecord
from loadstone.traffic.request import Request
from loadstone.traffic.share import Share
from loadstone.traffic.verdict import Evidence, judge

ROOT = Path(__file__).resolve().parents[1]
TTFT_S = 0.1
LOADS = ((100, 50.0), (500, 50.0), (2000, 30.0))
"""Streams at once, and events/s of each."""


@contextmanager
def streams(*options: str) -> Iterator[str]:
    """Run the server of known truth; yields its URL."""
    command = [sys.executable, str(ROOT / "bench/streams.py"), *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()


@dataclass
class Trial:
    """What one trial saw; figures only, since kept rows would cost collections."""

    stats: ClientStats
    cpu_s: float = 0.0
    wall_s: float = 0.0
    requests: int = 0
    failures: int = 0
    events: int = 0
    ttft: "array[float]" = field(default_factory=lambda: array("d"))
    tpot: "array[float]" = field(default_factory=lambda: array("d"))
    errors: "array[float]" = field(default_factory=lambda: array("d"))

    def add(self, row: RequestRecord) -> None:
        """Take what the tables need of a row."""
        self.requests += 1
        self.failures += not row.ok
        self.events += row.events
        for name, values in (("ttft_s", self.ttft), ("tpot_s", self.tpot)):
            if (value := getattr(row, name)) is not None:
                values.append(value)
        if row.ttft_error_s is not None:
            self.errors.append(abs(row.ttft_error_s))

    def error_ms(self, q: float) -> float:
        """Return a quantile of the size of the TTFT error."""
        return (nearest_rank(sorted(self.errors), q) or 0.0) * 1e3

    def verdict(self) -> str:
        """Return what a run with these figures would be stamped."""
        return judge(
            Evidence(
                samples=self.requests,
                ttft_error={"p99": self.error_ms(0.99) / 1e3},
                loop_lag_p99=self.stats.loop_lag.quantile(0.99),
                recv_lag_p99=self.stats.recv_lags.p99,
                vitals=self.stats.vitals,
            )
        )[0].value


def trial(
    url: str, users: int, *, tokens: int, life_s: float, seconds: float,
    ca_file: str | None = None,
) -> Trial:  # fmt: skip
    """Keep `users` streams of `life_s` each in flight, their starts spread."""
    stats = ClientStats()
    seen = Trial(stats)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(
            Plan(hosts=(url,), model="m", users=users, duration_s=seconds,
                 drain_s=life_s + 30),
            share=Share(),
            requests=[],
            drawn=((Request(i, 0.0, 8, tokens),) for i in count()),
            clients=[StreamingClient(Endpoint.parse(url, ca_file=ca_file),
                                     timeouts=Timeouts())],
            rows=RowWriter(Path(folder) / "requests.jsonl", _unexpected),
            stats=stats,
            traces=Traces(0, run="bench", ratio=0.0),
            t0=time.monotonic() + 0.05,
            on_row=seen.add,
        )  # fmt: skip
        session._clients.own[0].warm(users)  # noqa: SLF001 - all of them, not only the first 64
        session.start()
        cpu, wall = time.process_time(), time.monotonic()

        def user(number: int) -> None:
            gevent.sleep(number / users * life_s)
            session.serve(lambda: False)

        gevent.joinall([gevent.spawn(user, number) for number in range(users)])
        seen.cpu_s, seen.wall_s = time.process_time() - cpu, time.monotonic() - wall
        session.stop()
    return seen


def _unexpected(failed: OSError) -> None:
    raise failed


def table(arguments: argparse.Namespace, via: str) -> Iterator[str]:
    """Run the loads over one kind of connection."""
    with tempfile.TemporaryDirectory() as folder:
        options, ca_file = _place(via, Path(folder))
        with streams("--ttft", "0.02", *options) as url:
            alone = trial(url, 200, tokens=1, life_s=0.02, ca_file=ca_file,
                          seconds=arguments.seconds / 2)  # fmt: skip
        single_us = alone.cpu_s / alone.requests * 1e6
        yield (
            f"\nvia {via}: a request of one event costs {single_us:.0f} us of CPU"
            f" ({alone.requests} requests, {alone.failures} failed)"
        )
        yield (
            "streams x ev/s  events/s  us/event  us/request besides  events/CPU-s  core"
            "  TTFT error p50/p99 ms  kernel lag p99 ms  failed  verdict"
        )
        for users, rate in arguments.loads:
            life_s = TTFT_S + (arguments.tokens - 1) / rate
            with streams(
                "--ttft", str(TTFT_S), "--gap", str(1 / rate), *options
            ) as url:
                seen = trial(url, users, tokens=arguments.tokens, life_s=life_s,
                             seconds=max(arguments.seconds, 1.5 * life_s),
                             ca_file=ca_file)  # fmt: skip
            yield _line(f"{users} x {rate:g}", seen, single_us, arguments.tokens)


def _line(name: str, seen: Trial, single_us: float, tokens: int) -> str:
    # What a request costs besides its events, and what each event costs: two unknowns,
    # from requests of one event and of many.
    many_us = seen.cpu_s * 1e6 / seen.requests
    event_us = (many_us - single_us) / (tokens - 1)
    lag = seen.stats.recv_lags.p99
    return (
        f"{name:>14} {seen.events / seen.wall_s:9.0f} {event_us:9.1f}"
        f" {single_us - event_us:19.0f} {seen.events / seen.cpu_s:13.0f}"
        f" {seen.cpu_s / seen.wall_s:5.2f}"
        f" {seen.error_ms(0.5):12.2f} / {seen.error_ms(0.99):6.2f}"
        f" {'absent' if lag is None else f'<= {lag * 1e3:g}':>17} {seen.failures:7d}"
        f"  {seen.verdict()}"
    )


def _place(via: str, folder: Path) -> tuple[list[str], str | None]:
    """Return the server's options for a kind of connection, and whom to trust."""
    if via == "unix":
        return ["--uds", str(folder / "s")], None
    if via == "tls":
        sys.path.append(str(ROOT / "tests"))
        from authority import Authority  # noqa: PLC0415 - only it needs cryptography

        authority = Authority(folder)
        authority.server("127.0.0.1")
        return ["--tls-pem", str(folder / "127.0.0.1.pem")], authority.file
    return [], None


def beside(arguments: argparse.Namespace) -> Iterator[str]:
    """Measure ours and a peer on the same load, short streams for few clients."""
    with streams("--ttft", "0.02", "--gap", "0.005") as url:

        def ours() -> dict[str, Any]:
            seen = trial(url, arguments.peer_clients, tokens=100, life_s=0.515,
                         seconds=arguments.seconds)  # fmt: skip
            return {
                "ttft": list(seen.ttft),
                "tpot": list(seen.tpot),
                "cpu_s": seen.cpu_s,
                "tokens": seen.events,
            }

        yield from compare(url, ours, clients=arguments.peer_clients, tokens=100,
                           seconds=arguments.seconds)  # fmt: skip


def _load(text: str) -> tuple[int, float]:
    users, _, rate = text.partition("x")
    return int(users), float(rate)


def main() -> None:
    """Read the options and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--loads", type=_load, nargs="+", default=LOADS, metavar="STREAMSxRATE",
        help="default: 100x50 500x50 2000x30",
    )  # fmt: skip
    parser.add_argument("--tokens", type=int, default=256, help="events per request")
    parser.add_argument("--seconds", type=float, default=8.0, help="per trial")
    parser.add_argument("--via", nargs="+", choices=("tcp", "unix", "tls"),
                        default=["tcp"])  # fmt: skip
    parser.add_argument("--peer", action="store_true",
                        help="install another load generator beside it")  # fmt: skip
    parser.add_argument("--peer-clients", type=int, default=50)
    arguments = parser.parse_args()
    for via in arguments.via:
        for line in table(arguments, via):
            print(line, flush=True)
    if arguments.peer:
        for line in beside(arguments):
            print(line, flush=True)


if __name__ == "__main__":
    main()
