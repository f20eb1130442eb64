"""The accounts of a run: in order as they are made, and each planted fault is found."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.traffic.audit import NAMED, Books, Check, audit, metric_key
from loadstone.traffic.record import Outcome, RequestRecord, TokensSource
from loadstone.traffic.request import Request
from loadstone.traffic.served import Served
from loadstone.traffic.summary import summarize

OUTCOMES = list(Outcome)
STATUSES = {Outcome.OK: 200, Outcome.FAILED: 500, Outcome.THROTTLED: 429}
"""What each was answered with; of the others the server heard no more."""


def row_of(request: Request, outcome: Outcome = Outcome.OK) -> RequestRecord:
    """Return the row of a request that was sent a little late."""
    at = request.intended_s
    ok = outcome is Outcome.OK
    return RequestRecord(
        id=request.id, scenario="chat", intended_s=at, sent_s=at + 0.001,
        end_s=at + 0.5, outcome=outcome, first_s=at + 0.1 if ok else None,
        last_s=at + 0.5 if ok else None, error=None if ok else "boom",
        asked_input_tokens=request.input_tokens,
        asked_output_tokens=request.output_tokens,
        input_tokens=request.input_tokens if ok else 0,
        output_tokens=request.output_tokens if ok else 0,
        tokens_source=TokensSource.USAGE if ok else TokensSource.NONE,
        status=STATUSES.get(outcome),
    )  # fmt: skip


def books_of(planned: list[Request], rows: list[RequestRecord]) -> Books:
    """Return the books as a run that was in order would leave them."""
    summary: dict[str, Any] = summarize(rows, dropped=len(planned) - len(rows))
    ok = summary["requests"]["ok"]
    locust = {"requests": len(rows), "failures": len(rows) - ok}
    metrics = {
        metric_key("loadstone_requests_total", outcome.value): float(
            sum(row.outcome is outcome for row in rows)
        )
        for outcome in Outcome
    } | {
        "loadstone_input_tokens_total": float(summary["tokens"]["input"]),
        "loadstone_output_tokens_total": float(summary["tokens"]["output"]),
        "loadstone_requests_scheduled_total": float(len(planned)),
        "loadstone_requests_dropped_total": float(len(planned) - len(rows)),
    }
    served = Served(
        statuses=Counter(row.status or 499 for row in rows),
        unfinished=0,
        input_tokens=summary["tokens"]["input"],
        output_tokens=summary["tokens"]["output"],
    )
    return Books(
        planned=planned, hash_planned="ab", hash_drawn="ab", metrics=metrics,
        served=served,
        summary=summary | {"complete": True, "instrument": {"locust": locust}},
    )  # fmt: skip


def states(rows: list[RequestRecord], books: Books) -> dict[str, str]:
    """Return each check's state."""
    return {check.name: check.state for check in audit(rows, books)}


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from([*OUTCOMES, None]))),
    st.randoms(use_true_random=False),
)
def test_what_was_sent_and_what_was_not_adds_up(
    ends: list[tuple[int, Outcome | None]], rng: Any
) -> None:
    """Rows in any order, requests that were never sent: nothing is found."""
    planned = [Request(i, us / 1e6, 3 + i, 2) for i, (us, _) in enumerate(ends)]
    rows = [row_of(r, o) for r, (_, o) in zip(planned, ends, strict=True) if o]
    rng.shuffle(rows)
    assert set(states(rows, books_of(planned, rows)).values()) == {"ok"}


PLANNED = [Request(i, i / 10, 7 + i, 5) for i in range(20)]
ROWS = [row_of(request) for request in PLANNED]
Rows = list[RequestRecord]


def changed(at: int, **changes: Any) -> Callable[[Rows], Rows]:
    """Return what changes one row."""
    return lambda rows: [*rows[:at], rows[at].but(**changes), *rows[at + 1 :]]


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (
            lambda rows: rows[1:],
            {"none_lost", "summary", "metrics", "locust", "server"},
        ),
        (
            lambda rows: [*rows, rows[3]],
            {"one_outcome", "summary", "metrics", "locust", "server"},
        ),
        (
            lambda rows: [*rows[1:], rows[3]],
            {"one_outcome", "none_lost", "summary", "metrics", "server"},
        ),
        (changed(2, id="000777"), {"as_planned", "none_lost"}),
        (changed(2, intended_s=0.25, sent_s=0.25), {"as_planned"}),
        (changed(2, asked_output_tokens=6), {"as_planned"}),
        (changed(2, output_tokens=4), {"summary", "metrics", "server"}),
        (changed(2, input_tokens=8), {"summary", "metrics", "server"}),
        (changed(2, sent_s=0.1), {"in_order"}),
        (changed(2, first_s=0.2 - 1e-3), {"in_order"}),
        (changed(2, end_s=0.3), {"in_order"}),
        (changed(2, error="boom"), {"in_order"}),
        (
            # It may have been whole when we gave it up, so the server cannot know.
            changed(2, outcome=Outcome.CANCELLED),
            {"summary", "metrics", "locust"},
        ),
        (
            changed(2, outcome=Outcome.FAILED, status=500),
            {"summary", "metrics", "locust", "in_order", "server"},
        ),
    ],
)
def test_what_was_planted_is_found(
    plant: Callable[[Rows], Rows], found: set[str]
) -> None:
    """By those who must see it, and by nobody else."""
    seen = states(plant(ROWS), books_of(PLANNED, ROWS))
    assert {name for name, state in seen.items() if state == "wrong"} == found


def test_a_stamp_is_right_to_the_microsecond() -> None:
    """As it is written: both sides of what rounding can do."""
    books = books_of(PLANNED, ROWS)
    near = changed(2, intended_s=0.2 + 1e-6)(ROWS)
    assert states(near, books)["as_planned"] == "ok"
    off = changed(2, intended_s=0.2 + 4e-6)(ROWS)
    assert states(off, books)["as_planned"] == "wrong"


def test_another_schedule_is_found() -> None:
    """The plan that is drawn now is not the one that was run."""
    books = replace(books_of(PLANNED, ROWS), hash_drawn="cd")
    assert states(ROWS, books)["plan_hash"] == "wrong"


def one(name: str, rows: Rows, books: Books) -> Check:
    """Return the check of that name."""
    return next(check for check in audit(rows, books) if check.name == name)


def test_what_cannot_be_told_is_said() -> None:
    """A killed run has rows and a plan; a closed loop has no schedule."""
    killed = Books(planned=PLANNED, hash_planned="ab", hash_drawn="ab")
    check = one("none_lost", ROWS[:15], killed)
    assert (check.state, check.found) == ("not_checked", None)
    assert check.why == "the run was killed: 15 recorded, 5 dropped"
    assert states(ROWS[:15], killed)["as_planned"] == "ok"
    closed = replace(books_of(PLANNED, ROWS), planned=None, why_not="a closed loop")
    seen = states(ROWS, closed)
    assert {n for n, s in seen.items() if s == "not_checked"} == {
        "as_planned", "none_lost",
    }  # fmt: skip
    for books, why in (
        (replace(books_of(PLANNED, ROWS), served="it was restarted"), "restarted"),
        (replace(books_of(PLANNED, ROWS), summary=None), "killed"),
    ):
        check = one("server", ROWS, books)
        assert check.state == "not_checked"
        assert why in check.why


def test_a_run_that_was_stopped_has_requests_that_were_not_due() -> None:
    """Fewer dropped than have no row is right for it, more never is."""
    rows, books = ROWS[:12], books_of(PLANNED, ROWS[:12])
    assert books.summary is not None
    for dropped, state in ((3, "ok"), (8, "ok"), (9, "wrong")):
        requests = books.summary["requests"] | {"dropped": dropped}
        summary = {**books.summary, "complete": False, "requests": requests}
        check = one("none_lost", rows, replace(books, summary=summary))
        assert check.state == state
    whole = {**books.summary, "requests": books.summary["requests"] | {"dropped": 3}}
    assert one("none_lost", rows, replace(books, summary=whole)).state == "wrong"


def test_locust_does_not_know_the_last_of_a_lost_worker() -> None:
    """It may have heard of fewer requests than there are rows, never of more."""
    books = books_of(PLANNED, ROWS)
    assert books.summary is not None
    for workers, heard, state in (
        ({"expected": 2, "reported": 1}, 19, "ok"),
        ({"expected": 2, "reported": 1}, 21, "wrong"),
        ({"expected": 2, "reported": 2}, 19, "wrong"),
    ):
        locust = {"requests": heard, "failures": 0}
        instrument = {"locust": locust, "workers": workers}
        summary = {**books.summary, "instrument": instrument}
        check = one("locust", ROWS, replace(books, summary=summary))
        assert check.state == state


def test_the_first_few_are_told_and_all_are_counted() -> None:
    """A million lost rows do not make a page of a million lines."""
    rows = [row.but(id=f"x{i}") for i, row in enumerate(ROWS)]
    check = one("as_planned", rows, books_of(PLANNED, ROWS))
    assert check.wrong == len(ROWS)
    assert check.found is not None
    assert len(check.found) == NAMED
    assert check.to_json()["state"] == "wrong"
