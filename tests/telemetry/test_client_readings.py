"""What the load generator exports of its own instrument, and the live verdict."""

from pathlib import Path

import pytest

from loadgen.coordinator import Run
from loadgen.folder import RunFolder
from loadgen.options import OPTIONS, read_options
from loadgen.stats import ClientStats
from loadstone.telemetry.client import read_client
from loadstone.telemetry.prometheus import Reading
from loadstone.traffic.machine import EVENTS, REQUESTS, Bracket, Profile, Standing
from loadstone.traffic.machine import Machine as Known
from loadstone.traffic.plan import Plan
from loadstone.traffic.record import Outcome, RequestRecord, Truth
from loadstone.traffic.verdict import VITALS, Verdict

ON = Known(cpu="x", cores=2, system="Linux", python="3.11", loadstone="1")


def profile(events: float, requests: float) -> Profile:
    """Return a profile with these limits."""
    limits = {EVENTS: events, REQUESTS: requests}
    return Profile(ON, "2026", {k: Bracket(v, 2 * v) for k, v in limits.items()})


def answered(i: int, worker: int = 0) -> RequestRecord:
    """Return one of ten answers a second, of 20 events each, read 1 ms late."""
    at = i / 10
    return RequestRecord(
        id=str(i), scenario="chat", intended_s=at, sent_s=at, first_s=at + 0.101,
        last_s=at + 1.0, end_s=at + 1.0, outcome=Outcome.OK, output_tokens=20,
        first_event_tokens=1, events=20, worker=worker,
        truth=Truth(at, at + 0.07, at + 0.1, at + 1.0, 0),
    )  # fmt: skip


def stats_of(n: int) -> ClientStats:
    """Return the totals of so many answers."""
    stats = ClientStats()
    for i in range(n):
        stats.slice_of("chat", "default", "generate").scheduled += 1
        stats.add(answered(i))
    return stats


def run_of(folder: Path, known: Profile | None) -> Run:
    """Return a run that has sent nothing yet."""
    return Run(
        RunFolder(folder),
        plan=Plan(hosts=("http://127.0.0.1:1",)),
        requests=[],
        digest="",
        workers=1,
        slos=(),
        standing=Standing("profile.json", known, "" if known else "none"),
        values=read_options({option.name: option.default for option in OPTIONS}),
    )


def readings(run: Run) -> dict[str, Reading]:
    """Return what is exported, by name."""
    return {reading[0].name: reading for reading in read_client(run)}


@pytest.mark.parametrize(
    ("events", "requests", "beyond"),
    [(1e4, 1e4, False), (190.0, 1e4, True), (1e4, 9.5, True), (350.0, 25.0, False),
     (350.0, 20.0, True)],
)  # fmt: skip
def test_live_verdict_knows_the_selfcheck_profile(
    tmp_path: Path, events: float, requests: float, *, beyond: bool
) -> None:
    """The load is 196 events/s and 9.8 requests/s: both limits' shares add up."""
    run = run_of(tmp_path, profile(events, requests))
    run.live = stats_of(490)
    run.live.mock_lag = type(run.live.mock_lag)()  # judged by another test
    verdict, reasons = run.verdict_now()
    assert verdict is (Verdict.CLIENT_LIMITED if beyond else Verdict.OK)
    assert any("profile.json" in reason for reason in reasons) == beyond


def test_each_process_is_judged_alone(tmp_path: Path) -> None:
    """Two workers share the load; the limits are of one."""
    run = run_of(tmp_path, profile(300.0, 1e4))
    part = stats_of(490)
    part.mock_lag = type(part.mock_lag)()
    run.snapshots = {"a": part.snapshot(), "b": part.snapshot()}
    assert run.stats().whole().load.events_per_s > 300.0
    assert run.verdict_now()[0] is Verdict.OK


def test_vitals_are_exported_with_the_verdict(tmp_path: Path) -> None:
    """Shares by what the time went into, lags by quantile, reasons by their number."""
    run = run_of(tmp_path, None)
    run.live = stats_of(490)
    run.live.vitals = dict.fromkeys(VITALS, 0.002) | {"worst_disk_stop_s": 0.25}
    run.live.recv_lags.histogram.add(0.001)
    told = readings(run)
    assert dict(told["loadstone_time_share"][1]) == {
        (name,): 0.002 for name in ("gc", "disk", "cpu", "cpu_wait", "steal")
    }
    assert told["loadstone_disk_stop_max_seconds"][1] == [((), 0.25)]
    assert dict(told["loadstone_recv_lag_seconds"][1])["0.99",] == 0.001
    mock_lag = dict(told["loadstone_mock_lag_seconds"][1])["0.99",]
    assert mock_lag == pytest.approx(0.03, rel=0.01)
    # The mock is 30 ms late at p99, and its answers say so.
    assert told["loadstone_verdict_reasons"][1] == [((), 1)]
    run.live = ClientStats()
    silent = readings(run)
    assert not silent["loadstone_recv_lag_seconds"][1]
    assert not silent["loadstone_time_share"][1]
