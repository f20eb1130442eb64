"""The table of a run: what it says of failures, in colour and in plain text."""

from io import StringIO

import pytest
from rich.console import Console

from loadstone.report.table import print_summary, text_of_summary
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.slo import Slo
from loadstone.traffic.summary import summarize

SLOS = (Slo("ttft_s", "p50", 1.0), Slo("ttft_s", "p99", 1.0))
RED = "\x1b[31m"


def row(outcome: Outcome, *, reconnects: int = 0) -> RequestRecord:
    """Return a row with a TTFT of 0.5 s."""
    return RequestRecord(
        id="a", scenario="chat", intended_s=0.0, sent_s=0.0, first_s=0.5, last_s=1.0,
        end_s=1.0, outcome=outcome, output_tokens=6, first_event_tokens=1,
        reconnects=reconnects,
    )  # fmt: skip


def summary(*rows: RequestRecord) -> dict[str, object]:
    """Return what a run with these rows leaves to be printed."""
    cost = {"usd_per_request": None, "usd_per_million_output_tokens": None}
    return {
        **summarize(rows, slos=SLOS),
        "complete": True,
        "cost": cost | {"assumptions": []},
        "instrument": {"verdict": "ok", "reasons": []},
    }


def text(**counts: int) -> str:
    """Return the plain text of a run with so many requests of each outcome."""
    rows = [row(Outcome(name)) for name, n in counts.items() for _ in range(n)]
    return text_of_summary(summary(*rows))


@pytest.mark.parametrize(
    ("counts", "share"),
    [
        ({"ok": 10, "failed": 90}, "90.0 %"),
        ({"ok": 96, "failed": 1, "throttled": 1, "incomplete": 2}, "4.0 %"),
        ({"failed": 3}, "100.0 %"),
        ({"ok": 989, "failed": 11}, "1.1 %"),
        ({"ok": 990, "failed": 10}, None),
        ({"ok": 100}, None),
        ({"ok": 10, "cancelled": 90}, None),
        ({}, None),
    ],
)
def test_more_than_one_failure_in_a_hundred_is_said(
    counts: dict[str, int], share: str | None
) -> None:
    """In per cent of what was sent, but for what we cancelled ourselves."""
    said = text(**counts)
    assert ("of requests were not answered" in said) == (share is not None)
    if share is not None:
        assert f" {share} of requests were not answered" in said


def test_failures_are_red_on_a_terminal_only() -> None:
    """Plain text has no escape codes."""
    out = StringIO()
    console = Console(
        file=out, width=80, force_terminal=True, color_system="standard", _environ={}
    )
    print_summary(summary(row(Outcome.FAILED)), console)
    assert f"{RED}100.0 % of requests were not answered" in out.getvalue()
    assert "\x1b" not in text(failed=1)


def test_an_objective_that_failures_broke_says_so() -> None:
    """There is no value to print; without any sample there is a dash."""
    said = text(ok=80, failed=20)
    assert "met: ttft_s p50 500.0 ms, limit 1.00 s" in said
    assert "NOT MET: ttft_s p99 failures, limit 1.00 s" in said
    assert "no sample: ttft_s p99 -, limit 1.00 s" in text()


def test_reconnects_are_said_if_there_were_any() -> None:
    """Nothing is said of none."""
    assert "1 reconnected" in text_of_summary(summary(row(Outcome.OK, reconnects=1)))
    assert "reconnected" not in text(ok=1)
