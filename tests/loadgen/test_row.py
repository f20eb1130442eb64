"""From an exchange to its row."""

import json
from typing import Any

import pytest

from loadgen.client import Exchange
from loadgen.rows import Rows
from loadstone.traffic.record import Outcome, RequestRecord, TokensSource
from loadstone.traffic.request import Request
from loadstone.wire.chunks import ErrorObject
from loadstone.wire.reply import ChatReply


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
    request = Request(0, 1.0, 10, 20, "chat")
    row = Rows(t0=100.0).of(request, Exchange(sent=101.0, end=102.0, **exchange))
    assert (row.outcome, row.reconnects) == expected


def test_a_row_has_the_instants_of_each_kind_of_token() -> None:
    """On the run's clock, with what the server calls its error and the kernel's lag."""
    reply = ChatReply(
        events=4, first=101.5, first_answer=101.75, first_tool=102.0, last=103.0,
        output_tokens=4, tokens_source=TokensSource.CHUNKS, answered=True,
        error=ErrorObject("engine died", "EngineDeadError"),
    )  # fmt: skip
    exchange = Exchange(
        sent=101.0, end=103.0, status=200, reply=reply, error="stream_error",
        recv_lag_s=0.001, worst_recv_lag_s=0.002,
    )  # fmt: skip
    row = Rows(t0=100.0).of(Request(0, 1.0, 10, 20, "chat"), exchange)
    assert (row.first_s, row.first_output_s, row.first_tool_s) == (1.5, 1.75, 2.0)
    assert (row.ttft_s, row.ttfo_s, row.reasoned) == (0.5, 0.75, True)
    assert (row.recv_lag_s, row.worst_recv_lag_s) == (0.001, 0.002)
    assert (row.outcome, row.error) == (Outcome.FAILED, "stream_error")
    assert row.error_kind == "EngineDeadError"
    assert RequestRecord.from_json(json.loads(row.to_line())) == row
