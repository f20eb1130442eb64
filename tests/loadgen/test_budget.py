"""Limits: which one is reached, who may send how much, and that answers still end."""

from pathlib import Path
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quirks import Quirk, endpoint_with
from sessions import constant, drive

from loadgen.budget import Budget
from loadgen.session import Session
from loadstone.traffic.record import Outcome

UNSPENT = {"usd": 0.0, "requests": 0.0, "tokens": 0.0}


def budget(**limits: float | None) -> Budget:
    """Return a budget of options; None where not given."""
    names = ("usd", "requests", "tokens")
    return Budget.of({f"max_{name}": limits.get(name) for name in names})


@pytest.mark.parametrize(
    ("spent", "reached"),
    [
        ({}, None),
        ({"usd": 0.99, "requests": 9, "tokens": 99}, None),
        ({"usd": 1.0}, "max_usd"),
        ({"requests": 10}, "max_requests"),
        ({"tokens": 101}, "max_tokens"),
    ],
)
def test_the_limit_that_is_reached(
    spent: dict[str, float], reached: str | None
) -> None:
    """At the limit, not before; by the name of the option."""
    limits = budget(usd=1.0, requests=10, tokens=100)
    assert limits.reached(UNSPENT | spent) == reached
    assert budget().reached(UNSPENT | spent) is None
    said = limits.summary(UNSPENT | spent, 1, 3.0)
    assert said["stopped_by"] == reached
    assert said["limits"] == {"usd": 1.0, "requests": 10, "tokens": 100}


@given(limit=st.integers(1, 1000), workers=st.integers(1, 40))
def test_shares_add_up(limit: int, workers: int) -> None:
    """Over all ranks they are the limit, and nobody has two more than another."""
    limits = budget(requests=float(limit))
    shares = [limits.share_of_requests(rank, workers) for rank in range(workers)]
    known = [share for share in shares if share is not None]
    assert sum(known) == limit
    assert max(known) - min(known) <= 1
    assert budget(usd=1.0).share_of_requests(0, 1) is None


def run(
    folder: Path, most: int | None, *, seconds: float = 1.0, **more: Any
) -> list[Outcome]:
    """Drive 40 requests a second; return how those that were sent ended."""
    with endpoint_with(Quirk(models=("m",), gap_s=0.02)) as url:
        done = drive(url, folder, constant(40, seconds, 10), cap=40, most=most, **more)
    return [row.outcome for row in done.rows]


def test_no_request_beyond_the_limit(tmp_path: Path) -> None:
    """It ends once those that were sent are answered."""
    assert run(tmp_path / "run", 7) == [Outcome.OK] * 7


def test_closed_arrivals_let_answers_end(tmp_path: Path) -> None:
    """What is in flight drains; what was not sent stays unsent."""

    def began(session: Session) -> None:
        session._on_row = lambda _: session.close_arrivals()

    outcomes = run(tmp_path / "run", None, seconds=20, began=began)
    assert set(outcomes) == {Outcome.OK}
    assert 1 <= len(outcomes) < 800


def test_tokens_in_flight_are_reserved(tmp_path: Path) -> None:
    """They count from when they are asked for until the answer says how many it has."""
    seen: list[tuple[int, list[int]]] = []

    def began(session: Session) -> None:
        def look() -> None:
            while not session.finished.is_set():
                seen.append(
                    (session.stats.whole().in_flight, list(session.stats.reserved))
                )
                gevent.sleep(0.01)

        gevent.spawn(look)

    run(tmp_path / "run", 5, began=began)
    assert any(flying for flying, _ in seen)
    assert all(reserved == [8 * n, 10 * n] for n, reserved in seen)
