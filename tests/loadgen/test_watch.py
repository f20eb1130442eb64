"""The instrument's own troubles are planted, and the verdict has to name each."""

import gc
import io
import json
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest

from loadgen.results import RowWriter
from loadgen.stats import ClientStats
from loadgen.watch import Machine, Stops, Watch
from loadstone.garbage import IN_USE, LEAST
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.verdict import MAX_LOOP_LAG_S, Evidence, Verdict, judge

ROW = RequestRecord(
    id="1", scenario="chat", intended_s=0.0, sent_s=0.0, end_s=1.0, outcome=Outcome.OK
)


@contextmanager
def watching(disk: Stops | None = None, since: float = 0.0) -> Iterator[ClientStats]:
    """Watch this process."""
    stats = ClientStats()
    watch = Watch(stats, disk, since)
    watch.start()
    try:
        yield stats
    finally:
        watch.stop()


def reasons(stats: ClientStats) -> str:
    """Return the verdict on a run of which only this is known, with its reasons."""
    verdict, found = judge(
        Evidence(
            samples=1000,
            loop_lag_p99=stats.loop_lag.quantile(0.99),
            vitals=stats.vitals,
        )
    )
    return f"{verdict}: {'; '.join(found)}"


def test_a_blocked_hub_is_stamped() -> None:
    """Somebody who sleeps without gevent stops every read for as long."""
    with watching() as stats:
        gevent.sleep(0.05)
        time.sleep(0.2)  # the fault itself
        gevent.sleep(0.05)
    said = reasons(stats)
    assert said.startswith(Verdict.CLIENT_LIMITED)
    assert "event loop" in said


def test_what_blocks_the_hub_before_the_first_request_is_not_counted() -> None:
    """Only what of it is left at t0: there the places must be made."""
    began = time.monotonic()
    with watching(since=began + 0.5) as stats:
        gevent.sleep(0)
        time.sleep(max(0.0, began + 0.7 - time.monotonic()))  # the fault itself
        gevent.sleep(0.05)
    worst = stats.loop_lag.quantile(1.0)
    assert worst is not None
    assert 0.15 < worst < time.monotonic() - began - 0.5


def test_garbage_collections_are_stamped() -> None:
    """A collection over a million objects is longer than one time in a hundred."""
    with watching() as stats:
        heap: list[Any] = []
        while stats.worst_pause_s <= 2 * MAX_LOOP_LAG_S:
            heap += [[] for _ in range(200_000)]
            gc.collect()
        gevent.sleep(0)
    assert stats.vitals["gc_share"] > 0.01
    said = reasons(stats)
    assert said.startswith(Verdict.CLIENT_LIMITED)
    assert "garbage collections" in said


def test_a_slow_disk_is_stamped(tmp_path: Path) -> None:
    """A write that takes 30 ms held the hub for 30 ms."""

    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            time.sleep(0.03)  # the fault itself
            return super().write(text)

    def unexpected(failed: OSError) -> None:
        raise AssertionError(failed)

    writer = RowWriter(tmp_path / "requests.jsonl", unexpected)
    with watching(writer.stops) as stats:
        writer.write(ROW)
        assert writer.stops.total_s <= writer.stops.worst_s
        quick, writer._file = writer._file, Slow()
        for _ in range(5):
            writer.write(ROW)
            gevent.sleep(0)
        writer._file = quick
    writer.close()
    assert stats.vitals["worst_disk_stop_s"] >= 0.03
    said = reasons(stats)
    assert said.startswith(Verdict.CLIENT_LIMITED)
    assert "writes of rows" in said


def test_short_stops_are_not_counted() -> None:
    """What harms no stamp by more than its limit is in `worst_s` alone."""
    stops = Stops()
    stops.add(MAX_LOOP_LAG_S)
    assert (stops.worst_s, stops.total_s) == (MAX_LOOP_LAG_S, 0.0)
    stops.add(2 * MAX_LOOP_LAG_S)
    stops.add(0.0)
    assert (stops.worst_s, stops.total_s) == (2 * MAX_LOOP_LAG_S,) * 2


STARVED = """
import json, os, subprocess, sys, time
core = {min(os.sched_getaffinity(0))}
os.sched_setaffinity(0, core)
burn = [sys.executable, "-c", "while True: pass"]
burners = [subprocess.Popen(burn) for _ in range(3)]  # they inherit the core
try:
    import gevent
    from loadgen.stats import ClientStats
    from loadgen.watch import Watch
    stats = ClientStats()
    watch = Watch(stats)
    watch.start()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        sum(range(20_000))
        gevent.sleep(0)
    watch.stop()
finally:
    for burner in burners:
        burner.kill()
        burner.wait()
print(json.dumps(stats.vitals | {"lag": stats.loop_lag.quantile(0.99)}))
"""


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="the kernel keeps no schedstat"
)
def test_a_starved_process_is_stamped() -> None:
    """Three others on the same core: it waits for the core, and says so."""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", STARVED],
        capture_output=True, text=True, timeout=60, check=True, cwd=root,
        env=os.environ | {"PYTHONPATH": root},
    )  # fmt: skip
    vitals = json.loads(done.stdout)
    lag = vitals.pop("lag")
    assert vitals["cpu_wait_share"] > 0.25
    assert vitals["cpu_share"] < 0.75
    verdict, found = judge(Evidence(samples=1000, loop_lag_p99=lag, vitals=vitals))
    assert verdict is Verdict.CLIENT_LIMITED
    assert any("off the core" in reason for reason in found)


def test_shares_are_of_the_time_between() -> None:
    """Half a second of CPU in two seconds is a quarter; what is not told is absent."""
    before = Machine(wall=10.0, cpu=1.0, waited=0.5, stolen=None)
    after = Machine(wall=12.0, cpu=1.5, waited=1.5, stolen=3.0)
    assert after.shares_since(before) == {"cpu_share": 0.25, "cpu_wait_share": 0.5}
    cores = os.cpu_count() or 1
    stolen = Machine(wall=12.0, cpu=1.5, waited=None, stolen=3.0 + 0.5 * cores)
    shares = stolen.shares_since(Machine(wall=10.0, cpu=1.0, waited=0.5, stolen=3.0))
    assert shares == {"cpu_share": 0.25, "steal_share": 0.25}


def test_a_watch_that_never_began_can_be_stopped() -> None:
    """And leaves no callback behind."""
    before = list(gc.callbacks)
    Watch(ClientStats()).stop()
    with watching():
        assert len(gc.callbacks) == len(before) + 1
    assert gc.callbacks == before


def test_garbage_is_looked_for_when_there_may_be_enough_of_it() -> None:
    """Python does not while the watch is on, and does again afterwards."""

    class Knot:
        def __init__(self) -> None:
            self.me = self

    assert gc.isenabled()
    stats = ClientStats()
    held: list[Any] = []
    watch = Watch(stats, places=(places := 100))
    watch.start()
    try:
        assert not gc.isenabled()
        knot = weakref.ref(Knot())
        held += [[] for _ in range(LEAST)]
        watch._collect()
        assert knot() is not None, "they may be in use by what is in flight"
        held += [[] for _ in range(IN_USE * places)]
        watch._collect()
        assert knot() is None
        assert stats.worst_pause_s > 0.0
    finally:
        watch.stop()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
