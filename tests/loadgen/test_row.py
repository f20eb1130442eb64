"""From an exchange to its row."""

from types import SimpleNamespace
from typing import Any

import pytest

from loadgen.client import Exchange
from loadgen.session import Session, Share
from loadstone.traffic.record import Outcome
from loadstone.traffic.request import Request


@pytest.mark.parametrize(
    ("exchange", "expected"),
    [
        ({"status": 200, "reconnects": 1}, (Outcome.OK, 1)),
        ({"error": "reset"}, (Outcome.FAILED, 0)),
        ({"status": 200, "error": "empty_answer"}, (Outcome.FAILED, 0)),
        ({"status": 429, "error": "http_429", "reconnects": 1}, (Outcome.THROTTLED, 1)),
    ],
)
def test_a_row_says_how_it_ended_and_how_often_it_was_sent(
    exchange: dict[str, Any], expected: tuple[Outcome, int]
) -> None:
    """Also if there was no answer to tell of."""
    session = Session.__new__(Session)
    session.t0, session.share = 100.0, Share()
    session.plan = SimpleNamespace(warmup_s=0.0)
    request = Request(0, 1.0, 10, 20, "chat")
    row = session._row(request, Exchange(sent=101.0, end=102.0, **exchange))
    assert (row.outcome, row.reconnects) == expected
