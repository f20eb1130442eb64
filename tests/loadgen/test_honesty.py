"""Whatever happens to the instrument: it is right, or it says that it was not."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from heapq import heapify, heapreplace
from pathlib import Path

import gevent
import pytest
from sessions import Finished, constant, drive, truth_server

from loadgen.session import Session
from loadstone.traffic.quantiles import nearest_rank
from loadstone.traffic.record import Outcome
from loadstone.traffic.request import Request
from loadstone.traffic.verdict import MAX_TTFT_ERROR_S, Verdict
from loadstone.units import Seconds

TTFT_S, GAP_S, TOKENS = 0.02, 0.005, 20
SERVICE_S = TTFT_S + (TOKENS - 1) * GAP_S

WITNESS = """
import time
worst = 0.0
end = time.monotonic() + 3.0
while (due := time.monotonic() + 0.001) < end:
    time.sleep(0.001)
    worst = max(worst, time.monotonic() - due)
print(worst)
"""
"""Another process on the same machine, that only looks how late its sleep ends."""


def nothing(_: Session) -> None:
    """Leave the session alone."""


def block(session: Session) -> None:
    """Hold the hub for 60 ms, ten times a second."""

    def hold() -> None:
        while not session.finished.is_set():
            gevent.sleep(0.04)
            time.sleep(0.06)  # the fault itself

    gevent.spawn(hold)


def stall(session: Session) -> None:
    """Make every flush of the rows take as long as on a bad network share."""
    write = session.rows.write

    def slow(row: object) -> None:
        session.rows._guarded(lambda: time.sleep(0.02))  # the fault itself
        write(row)

    session.rows.write = slow


def run(
    folder: Path,
    fault: Callable[[Session], None],
    *,
    cap: int = 100,
    drain: Seconds = 30.0,
) -> Finished:
    """Drive two seconds of 100 requests/s, about 12 in flight, under a fault."""
    requests = constant(100.0, 2.0, TOKENS)
    with truth_server(ttft=TTFT_S, gap=GAP_S) as server:
        return drive(
            server.url, folder / "run", requests, cap=cap, drain=drain, began=fault
        )


def honest(done: Finished) -> Verdict:
    """Return the verdict, which has to admit an error beyond its bound."""
    verdict, reasons = done.verdict()
    assert done.ttft_error_p99 <= MAX_TTFT_ERROR_S or verdict is not Verdict.OK
    assert (verdict is Verdict.OK) == (not reasons)
    return verdict


def test_an_undisturbed_run_is_not_stamped_without_cause(tmp_path: Path) -> None:
    """Unless the answers were read late, or others were late on this machine, too."""
    witness = subprocess.Popen(
        [sys.executable, "-c", WITNESS], stdout=subprocess.PIPE, text=True
    )
    done = run(tmp_path, nothing)
    lateness = float(witness.communicate(timeout=60)[0])
    verdict = honest(done)
    assert len(done.rows) == 200
    assert all(row.ok and row.output_tokens == TOKENS for row in done.rows)
    if lateness < 0.002 and done.ttft_error_p99 <= MAX_TTFT_ERROR_S:
        assert verdict is Verdict.OK, done.verdict()


@pytest.mark.parametrize(("fault", "reason"), [(block, "loop"), (stall, "writes")])
def test_a_disturbed_run_is_stamped(
    tmp_path: Path, fault: Callable[[Session], None], reason: str
) -> None:
    """By the truth and by the instrument's own figures, which name the cause."""
    done = run(tmp_path, fault)
    assert honest(done) is Verdict.CLIENT_LIMITED
    assert done.ttft_error_p99 > MAX_TTFT_ERROR_S
    assert any(reason in said for said in done.verdict()[1])


def test_a_rate_that_cannot_be_sent_is_stamped(tmp_path: Path) -> None:
    """Two places for what needs a dozen: most is late, and some never sent."""
    done = run(tmp_path, nothing, cap=2, drain=0.1)
    assert honest(done) is not Verdict.OK
    reasons = "; ".join(done.verdict()[1])
    assert "of 200 intended requests were sent" in reasons
    assert "late at p99" in reasons
    whole = done.stats.whole()
    assert whole.dropped == 200 - len(done.rows) > 0


# ---------------------------------------------------------------- the freeze


RATE, CAP = 40.0, 20
FREEZE_AT_S, FREEZE_S, DURATION_S = 1.0, 4.0, 8.0


def exact(requests: list[Request], cap: int, frozen: tuple[float, float]) -> Seconds:
    """Return the p90 of response times of a first-come queue with `cap` places.

    The server reads nothing and writes nothing while it is frozen, and what was due
    meanwhile is written as soon as it is not.
    """
    free = [0.0] * cap
    heapify(free)
    took = []
    for request in requests:
        start = max(request.intended_s, free[0])
        received = frozen[1] if frozen[0] <= start < frozen[1] else start
        end = received + SERVICE_S
        if frozen[0] <= end < frozen[1]:
            end = frozen[1]
        heapreplace(free, end)
        took.append(end - request.intended_s)
    p90 = nearest_rank(sorted(took), 0.9)
    assert p90 is not None
    return p90


def freeze(folder: Path, cap: int) -> tuple[Seconds, Seconds]:
    """Return measured and exact p90 of a run whose server stops for four seconds."""
    requests = constant(RATE, DURATION_S, TOKENS)
    stopped: list[float] = []
    with truth_server(ttft=TTFT_S, gap=GAP_S) as server:

        def stop(session: Session) -> None:
            def act() -> None:
                gevent.sleep(session.t0 + FREEZE_AT_S - time.monotonic())
                server.process.send_signal(signal.SIGSTOP)
                stopped.append(time.monotonic() - session.t0)
                gevent.sleep(FREEZE_S)
                server.process.send_signal(signal.SIGCONT)
                stopped.append(time.monotonic() - session.t0)

            gevent.spawn(act)

        done = drive(server.url, folder, requests, cap=cap, began=stop)
    assert len(done.rows) == len(requests)
    assert {row.outcome for row in done.rows} == {Outcome.OK}
    p90 = nearest_rank(sorted(row.response_time_s for row in done.rows), 0.9)
    assert p90 is not None
    return p90, exact(requests, cap, (stopped[0], stopped[1]))


def test_a_freeze_is_in_the_response_times_also_with_a_cap(tmp_path: Path) -> None:
    """The cap makes requests wait with their intended time kept: it can only add.

    Other clients' p90 falls from 1.9 s to 0.12 s when they are given a cap, because
    what could not be sent is forgotten.
    """
    runs = [
        gevent.spawn(freeze, tmp_path / str(cap), cap)
        for cap in (CAP, int(2 * RATE) * 4)
    ]
    gevent.joinall(runs, raise_error=True)
    (capped, capped_exact), (free, free_exact) = (run.get() for run in runs)
    assert abs(capped / capped_exact - 1) < 0.05
    assert abs(free / free_exact - 1) < 0.05
    assert capped >= free > FREEZE_S / 2
