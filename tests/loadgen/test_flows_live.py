"""Flows of a live session: their rows, and what becomes of one that cannot go on."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sessions import Finished, TruthServer, constant, drive, truth_server

from loadstone.errors import LoadstoneError
from loadstone.traffic.flow import Ask, Flow, Local
from loadstone.traffic.record import Outcome
from loadstone.traffic.request import Request


@pytest.fixture(scope="module")
def server() -> Iterator[TruthServer]:
    """Serve answers of known timing."""
    with truth_server(ttft=0.02, gap=0.005) as running:
        yield running


def driven(
    server: TruthServer, folder: Path, flow: Callable[[Request], Flow]
) -> Finished:
    """Let ten requests be asked by a flow."""
    due = [r.but(flow="it") for r in constant(20, 0.5, 4)]
    return drive(server.url, folder / "run", due, cap=10, flows={"it": flow})


def failing(code: str = "store") -> Any:
    """Fail as something does that we can explain."""
    raise LoadstoneError("it is away", code=code)


def test_a_flow_that_only_asks_leaves_plain_rows(
    server: TruthServer, tmp_path: Path
) -> None:
    """No stages, no field that a request without a flow has not."""

    def flow(request: Request) -> Flow:
        yield Ask(request)
        return None

    done = driven(server, tmp_path, flow)
    assert [row.outcome for row in done.rows] == [Outcome.OK] * 10
    assert {row.stages for row in done.rows} == {()}


def test_what_is_asked_beside_is_a_row_of_its_own(
    server: TruthServer, tmp_path: Path
) -> None:
    """The due one has the stages of both and what the flow told."""

    def flow(request: Request) -> Flow:
        answer = yield Ask(request.but(stage="draft"), beside=True)
        assert answer.ok
        yield Local("look", lambda: None)
        yield Ask(request)
        return {"hits": 2}

    done = driven(server, tmp_path, flow)
    beside = [row for row in done.rows if row.beside]
    whole = [row for row in done.rows if not row.beside]
    assert (len(beside), len(whole)) == (10, 10)
    assert {row.id for row in beside} == {f"{row.id}-1" for row in whole}
    for row in whole:
        assert [name for name, _ in row.stages] == ["draft", "look", "generate"]
        assert sum(s for _, s in row.stages) == pytest.approx(row.e2e_s, abs=1e-5)
        assert row.hits == 2
        assert row.generation_ttft_s is not None
        assert row.ttft_s is not None
        assert 0.02 <= row.generation_ttft_s < row.ttft_s - 0.02
    # A TTFT error is of the answer; the draft before it takes 40 ms.
    assert done.ttft_error_p99 < 0.02
    counts = done.stats.whole()
    assert counts.in_flight == 0
    assert counts.scheduled == counts.sent == 20


def test_blocking_work_is_done_in_another_thread(
    server: TruthServer, tmp_path: Path
) -> None:
    """And asking again after the answer is beside it."""
    here = threading.get_ident()
    seen: dict[bool, set[int]] = {True: set(), False: set()}

    def flow(request: Request) -> Flow:
        for blocking in seen:
            yield Local(
                "who", lambda b=blocking: seen[b].add(threading.get_ident()),
                blocking=blocking,
            )  # fmt: skip
        yield Ask(request)
        yield Ask(request)
        return None

    done = driven(server, tmp_path, flow)
    assert seen[False] == {here}
    assert here not in seen[True]
    ids = sorted(row.id for row in done.rows)
    assert len(set(ids)) == 20
    assert sum(row.beside for row in done.rows) == 10
    whole = [row for row in done.rows if not row.beside]
    names = [name for name, _ in whole[0].stages]
    assert names == ["who", "who", "generate", "generate"]


@pytest.mark.parametrize(
    ("error", "code"), [(failing, "store"), (lambda: 1 / 0, "internal")]
)
def test_work_that_fails_fails_the_request(
    server: TruthServer,
    tmp_path: Path,
    error: Callable[[], Any],
    code: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With its code, or as ours; it is never asked, and its stages tell how far."""

    def flow(request: Request) -> Flow:
        yield Local("first", lambda: None)
        yield Local("second", error)
        yield Ask(request)
        return None

    done = driven(server, tmp_path, flow)
    assert len(done.rows) == 10
    for row in done.rows:
        assert (row.outcome, row.error) == (Outcome.FAILED, code)
        assert [name for name, _ in row.stages] == ["first", "second"]
        assert sum(s for _, s in row.stages) == pytest.approx(row.e2e_s, abs=1e-5)
    # What we can explain needs no traceback.
    assert ("ended by an error" in caplog.text) == (code == "internal")


def test_work_after_the_answer_may_fail_too(
    server: TruthServer, tmp_path: Path
) -> None:
    """Then its user has nothing, though the server answered."""

    def flow(request: Request) -> Flow:
        yield Ask(request)
        yield Local("postprocess", failing)
        return None

    done = driven(server, tmp_path, flow)
    assert {(row.outcome, row.error) for row in done.rows} == {
        (Outcome.FAILED, "store")
    }
    assert all(row.status == 200 and row.output_tokens == 4 for row in done.rows)


def test_a_flow_that_is_under_way_at_the_end_is_incomplete(
    server: TruthServer, tmp_path: Path
) -> None:
    """Also while nothing of it is sent: each due request has one row."""
    import gevent

    def flow(request: Request) -> Flow:
        yield Local("wait", lambda: gevent.sleep(60), blocking=False)
        yield Ask(request)
        return None

    due = [r.but(flow="it") for r in constant(20, 0.2, 4)]
    done = drive(
        server.url, tmp_path / "run", due, cap=10, flows={"it": flow}, drain=0.2
    )
    assert {row.outcome for row in done.rows} == {Outcome.INCOMPLETE}
    assert len(done.rows) == len(due)
    assert [name for name, _ in done.rows[0].stages] == ["wait"]
