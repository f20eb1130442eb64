"""A run's session in this process, against a server of known truth in another."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import gevent

from loadgen.client import Endpoint, StreamingClient
from loadgen.results import RowWriter
from loadgen.session import Session
from loadgen.stats import ClientStats
from loadgen.tracing import Traces
from loadstone.runs import read_rows
from loadstone.traffic.flow import Flows
from loadstone.traffic.plan import Plan
from loadstone.traffic.record import RequestRecord
from loadstone.traffic.request import Request
from loadstone.traffic.share import Share
from loadstone.traffic.summary import describe, summarize
from loadstone.traffic.verdict import Evidence, Verdict, judge
from loadstone.units import Seconds

SERVER = Path(__file__).parents[1] / "bench" / "streams.py"
LEAD_S = 0.3


@dataclass(frozen=True)
class TruthServer:
    """A running `bench/streams.py`."""

    process: "subprocess.Popen[str]"
    url: str


@contextmanager
def truth_server(*more: str, ttft: Seconds, gap: Seconds) -> Iterator[TruthServer]:
    """Serve streams of that timing from a process of their own."""
    command = [sys.executable, str(SERVER), "--ttft", str(ttft), "--gap", str(gap)]
    command += more
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield TruthServer(process, process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def constant(rate: float, duration: Seconds, tokens: int) -> list[Request]:
    """Return evenly spaced requests for that many tokens each."""
    times = range(round(rate * duration))
    return [Request(index, index / rate, 8, tokens) for index in times]


@dataclass
class Finished:
    """What a session left: its rows, read back from disk, and its totals."""

    rows: list[RequestRecord]
    stats: ClientStats
    t0: Seconds

    @property
    def ttft_error_p99(self) -> Seconds:
        """Of the client's TTFT against the server's truth, by nearest rank."""
        errors = (abs(e) for r in self.rows if (e := r.ttft_error_s) is not None)
        p99 = describe(errors)["p99"]
        assert p99 is not None
        return p99

    def verdict(self) -> tuple[Verdict, list[str]]:
        """Judge it as a run is judged."""
        figures = summarize(self.rows)
        errors = (abs(e) for r in self.rows if (e := r.ttft_error_s) is not None)
        return judge(
            Evidence(
                samples=int(figures["ttft_s"]["n"]),
                ttft_error=describe(errors),
                loop_lag_p99=self.stats.loop_lag.quantile(0.99),
                recv_lag_p99=self.stats.recv_lags.p99,
                vitals=self.stats.vitals,
                send_lag_p99=figures["send_lag_s"]["p99"],
                scheduled=self.stats.whole().scheduled,
                sent=figures["requests"]["sent"],
            )
        )


def drive(
    url: str,
    folder: Path,
    requests: list[Request],
    *,
    cap: int,
    drain: Seconds = 30.0,
    most: int | None = None,
    began: Callable[[Session], object] = lambda _: None,
    flows: Flows = MappingProxyType({}),
) -> Finished:
    """Run an open loop to its end, `cap` requests in flight and `most` in all.

    `began` is told of the session shortly before its t0.
    """
    folder.mkdir(parents=True)

    def unexpected(failed: OSError) -> None:
        raise AssertionError(failed)

    plan = Plan(
        hosts=(url,), model="m", rate=1.0, users=cap, drain_s=drain,
        duration_s=requests[-1].intended_s + 0.01,
    )  # fmt: skip
    session = Session(
        plan,
        share=Share(),
        requests=requests,
        drawn=iter(()),
        clients=[StreamingClient(Endpoint.parse(url))],
        rows=RowWriter(folder / "requests.jsonl", unexpected),
        stats=ClientStats(),
        traces=Traces(0, run="test", ratio=0.0),
        t0=time.monotonic() + LEAD_S,
        on_row=lambda _: None,
        most=most,
        flows=flows,
    )
    users: list[gevent.Greenlet[..., None]] = []
    session.start()
    try:
        began(session)
        users += [gevent.spawn(session.serve, lambda: False) for _ in range(cap)]
        session.finished.wait()
    finally:
        # Else a test that fails leaves the session's watch on under all that follow.
        session.stop()
        gevent.killall(users)
    return Finished(list(read_rows(folder)), session.stats, session.t0)
