"""Objectives: both sides of a limit, and files that hold none."""

import re

import pytest

from loadstone.errors import UsageError
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.slo import METRICS, STATS, Slo, goodput, read_slos
from loadstone.traffic.summary import LATENCIES, describe

FILE = """
[[slo]]
metric = "ttft_intended_s"
stat = "p99"
max_s = 0.5

[[slo]]
metric = "tpot_s"
stat = "mean"
max_s = 1
"""


def row(**changes: object) -> RequestRecord:
    """Return a row with a TTFT of 0.5 s and a TPOT of 0.1 s."""
    stamps: dict[str, object] = {
        "intended_s": 0.0, "sent_s": 0.0, "first_s": 0.5, "last_s": 1.0, "end_s": 1.0,
        "output_tokens": 6, "first_event_tokens": 1, "outcome": Outcome.OK,
    }  # fmt: skip
    return RequestRecord(id="a", scenario="chat", **(stamps | changes))


def test_file_is_read_in_order() -> None:
    """A whole number of seconds will do for a limit."""
    assert read_slos(FILE, name="slo.toml") == (
        Slo("ttft_intended_s", "p99", 0.5),
        Slo("tpot_s", "mean", 1.0),
    )


def test_every_metric_and_statistic_is_in_a_summary() -> None:
    """What can be asked for can be judged."""
    assert set(METRICS) <= set(LATENCIES)
    assert set(STATS) == set(describe([])) - {"n"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no [[slo]] entries"),
        ("slo = []", "holds no [[slo]] entries"),
        ("[slo]\nmetric = 'ttft_s'", "holds no [[slo]] entries"),
        (FILE + "[other]\nx = 1", "or other things too"),
        ("slo = [1]", "number 1: needs exactly"),
        (FILE + "[[slo]]\nmetric = 'ttft_s'\nstat = 'p99'", "number 3: needs exactly"),
        (FILE.replace("max_s = 1", "max_s = 1\nunit = 's'"), "number 2: needs exactly"),
        (FILE.replace("tpot_s", "tpot"), "number 2: metric 'tpot' is none of ttft_s,"),
        (FILE.replace("p99", "p999"), "number 1: stat 'p999' is none of mean, p50"),
        (FILE.replace("0.5", "0"), "number 1: max_s must be a positive number"),
        (FILE.replace("0.5", "-1.0"), "number 1: max_s must be"),
        (FILE.replace("0.5", "nan"), "number 1: max_s must be"),
        (FILE.replace("0.5", "inf"), "number 1: max_s must be"),
        (FILE.replace("0.5", "true"), "number 1: max_s must be"),
        (FILE.replace("0.5", "'0.5'"), "number 1: max_s must be"),
        ("[[slo]", "slo.toml: "),
    ],
)
def test_wrong_file_is_refused_by_entry(text: str, why: str) -> None:
    """The message has the file, the entry and the value."""
    with pytest.raises(UsageError, match=r"^slo\.toml: ") as caught:
        read_slos(text, name="slo.toml")
    assert re.search(re.escape(why), caught.value.message)


@pytest.mark.parametrize(("limit", "met"), [(0.5, True), (0.4999, False)])
def test_request_meets_a_limit_it_just_keeps(limit: float, *, met: bool) -> None:
    """At most means at most."""
    assert Slo("ttft_s", "p99", limit).met_by(row()) is met


def test_one_token_has_no_tpot_to_miss() -> None:
    """A figure that does not exist breaks no limit; a failed request breaks each."""
    slo = Slo("tpot_s", "p99", 0.0001)
    assert not slo.met_by(row())
    assert slo.met_by(row(output_tokens=1, last_s=0.5))
    assert not slo.met_by(row(output_tokens=1, outcome=Outcome.INCOMPLETE))


@pytest.mark.parametrize(
    ("value", "met"), [(0.5, True), (0.50001, False), (None, None), (0.0, True)]
)
def test_judgement_of_a_summary(value: float | None, met: bool | None) -> None:  # noqa: FBT001 - a column
    """Without a sample it is neither met nor missed."""
    line = Slo("ttft_s", "p99", 0.5).judge({"ttft_s": {"p99": value, "p50": 9.0}})
    assert line == {
        "metric": "ttft_s", "stat": "p99", "max_s": 0.5, "value_s": value, "met": met,
    }  # fmt: skip


def test_goodput_by_hand() -> None:
    """Two of three within the limit in four seconds; none where nothing was asked."""
    rows = [row(), row(), row(first_s=0.6)]
    slos = (Slo("ttft_s", "p99", 0.5),)
    assert goodput(rows, slos, 4.0) == 0.5
    assert goodput(rows, (), 4.0) is None
    assert goodput(rows, slos, 0.0) is None
