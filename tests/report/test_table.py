"""The table of a run: what it says of failures, in colour and in plain text."""

from io import StringIO

import pytest
from msgspec.structs import replace
from rich.console import Console

from loadstone.report.comparison import print_conditions
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


def run(n: int, *, slos: tuple[Slo, ...] = ()) -> str:
    """Return the plain text of a run of so many answers, one each second."""
    rows = [
        replace(
            row(Outcome.OK), intended_s=float(i), sent_s=float(i), first_s=i + 0.5,
            last_s=i + 1.0, end_s=i + 1.0,
        )
        for i in range(n)
    ]  # fmt: skip
    return text_of_summary(summary(*rows) | summarize(rows, slos=slos))


def test_what_too_few_samples_do_not_tell_is_said() -> None:
    """A dash in the table, and what it lacks; no interval of it either."""
    said = run(40)
    assert "Not told    p99 - (n=40 < 100)" in said
    assert "95 % sure   TTFT, from due: p50 500 to 500 ms" in said
    assert "no steady window: 40 answers; it takes 100 to tell" in said
    assert "Not told" not in run(100)
    assert "p50 - (n=1 < 2), p90 - (n=1 < 10), p95" in run(1)


def test_open_side_of_an_interval_is_said() -> None:
    """A hundred samples do not bound their p99 from above; four hundred do."""
    assert "TTFT, from due: p50 500 to 500 ms, p99 over 500 ms" in run(100)
    assert "TTFT, from due: p50 500 to 500 ms, p99 500 to 500 ms" in run(400)


def test_steady_window_and_attainment_are_told() -> None:
    """With what it was like there; older summaries have neither."""
    said = run(200, slos=SLOS)
    assert "(detected): 6 output tokens/s, 1.0 in flight" in said
    assert "p99 there, from due: TTFT 500.0 ms, answer 1.00 s" in said
    assert "within the objectives, 100.0 % (98.1 to 100.0)" in said
    old = summary(row(Outcome.OK), row(Outcome.OK))
    for name in ("window", "goodput", "slices"):
        del old[name]
    assert "steady window" not in text_of_summary(old)


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


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    """A reason may repeat a server, and a server may say anything."""
    told = summary(row(Outcome.OK))
    told["instrument"] = {"verdict": "client_limited", "reasons": ["it said [/INST]"]}
    assert "it said [/INST]" in text_of_summary(told)


def test_so_is_a_setting_that_differs() -> None:
    """`compare` prints names that users and servers chose."""
    out = StringIO()
    print_conditions([("run.model", "[/a]", "[red]b")], Console(file=out, width=80))
    assert "[/a]" in out.getvalue()
    assert "[red]b" in out.getvalue()
