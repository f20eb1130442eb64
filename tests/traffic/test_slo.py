"""Objectives: both sides of a limit, and files that hold none."""

import json
import re
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import UsageError
from loadstone.traffic.quantiles import QUANTILES, nearest_rank
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.slo import METRICS, STATS, Slo, meets_all, read_slos
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


@pytest.mark.parametrize("metric", ["ttft_s", "ttft_intended_s", "tpot_s"])
def test_an_answer_without_a_token_at_a_time_misses(metric: str) -> None:
    """Only a single token is an excuse: who saw no token waited for all of it."""
    hidden = row(first_s=None, last_s=None)
    assert not Slo(metric, "p99", 1e9).met_by(hidden)
    assert Slo("e2e_s", "p99", 1.0).met_by(hidden)


# ---------------------------------------------------------------- the judgement


FAST = row(first_s=0.25)
FAILURES = [
    row(outcome=outcome, first_s=None, last_s=None)
    for outcome in (Outcome.FAILED, Outcome.THROTTLED, Outcome.INCOMPLETE)
]


@pytest.mark.parametrize(("limit", "met"), [(0.5, True), (0.4999, False)])
def test_judgement_by_hand(limit: float, *, met: bool) -> None:
    """Of two fast and one slow, nearest rank: at most means at most."""
    assert Slo("ttft_s", "p90", limit).judge([FAST, row(), FAST]) == {
        "metric": "ttft_s",
        "stat": "p90",
        "max_s": limit,
        "value_s": 0.5,
        "met": met,
        "failed_as_inf": 0,
    }


@pytest.mark.parametrize(
    ("stat", "value", "met"),
    [("p50", 0.25, True), ("p90", None, False), ("p99", None, False),
     ("mean", None, False)],
)  # fmt: skip
@pytest.mark.parametrize("failure", FAILURES)
def test_a_request_that_failed_never_came(
    failure: RequestRecord, stat: str, value: float | None, *, met: bool
) -> None:
    """One failure in nine is slower than any answer; a mean cannot hold it at all."""
    line = Slo("ttft_s", stat, 0.5).judge([FAST] * 8 + [failure])
    assert (line["value_s"], line["met"]) == (value, met)
    assert line["failed_as_inf"] == 1


def test_survivors_do_not_meet_an_objective() -> None:
    """With 90 % failures the p99 of the rest says nothing."""
    line = Slo("ttft_s", "p99", 10.0).judge([FAST] * 10 + FAILURES * 30)
    assert (line["value_s"], line["met"], line["failed_as_inf"]) == (None, False, 90)


def test_one_failure_in_a_hundred_is_within_p99() -> None:
    """The 99th smallest of a hundred was measured; two failures are one too many."""
    slo = Slo("e2e_s", "p99", 1.0)
    assert slo.judge([FAST] * 99 + FAILURES[:1])["met"] is True
    assert slo.judge([FAST] * 98 + FAILURES[:2])["met"] is False


def test_what_is_not_the_servers_is_left_out() -> None:
    """Warm-up, requests we cancelled ourselves, and the TPOT of a single token."""
    others = [
        row(outcome=Outcome.CANCELLED),
        row(outcome=Outcome.FAILED, warmup=True),
        row(warmup=True, first_s=0.9),
    ]
    line = Slo("ttft_s", "p99", 0.25).judge([FAST, *others])
    assert (line["value_s"], line["met"], line["failed_as_inf"]) == (0.25, True, 0)
    single = row(output_tokens=1, last_s=0.5)
    line = Slo("tpot_s", "p99", 0.1).judge([row(), single])
    assert (line["value_s"], line["met"], line["failed_as_inf"]) == (0.1, True, 0)


@pytest.mark.parametrize("rows", [[], [row(outcome=Outcome.CANCELLED)]])
@pytest.mark.parametrize("stat", STATS)
def test_without_a_sample_it_is_neither_met_nor_missed(
    rows: list[RequestRecord], stat: str
) -> None:
    """None, and not a zero that would be met."""
    line = Slo("ttft_s", stat, 0.5).judge(rows)
    assert (line["value_s"], line["met"], line["failed_as_inf"]) == (None, None, 0)


def test_a_missing_ttft_counts_as_a_failure() -> None:
    """An answer of hidden reasoning is ok, and nobody saw its first token."""
    line = Slo("ttft_s", "p99", 0.5).judge([FAST, row(first_s=None, last_s=None)])
    assert (line["value_s"], line["met"], line["failed_as_inf"]) == (None, False, 1)


@given(
    st.lists(st.none() | st.floats(0.001, 1e4), max_size=60),
    st.sampled_from(sorted(QUANTILES)),
)
def test_judgement_is_nearest_rank_with_failures_as_infinity(
    waits: list[float | None], stat: str
) -> None:
    """And JSON never has to write infinity."""
    rows = [FAILURES[0] if w is None else row(first_s=w) for w in waits]
    line = Slo("ttft_s", stat, 2.0).judge(rows)
    rank = nearest_rank(sorted(inf if w is None else w for w in waits), QUANTILES[stat])
    assert line["value_s"] == (None if rank == inf else rank)
    assert line["met"] == (None if rank is None else rank <= 2.0)
    assert line["failed_as_inf"] == waits.count(None)
    json.dumps(line, allow_nan=False)


# ---------------------------------------------------------------- goodput


def test_goodput_is_of_requests_that_meet_every_limit() -> None:
    """By their own values; where nothing is asked, all do."""
    slow_first = row(first_s=0.6)
    limits = Slo("ttft_s", "p99", 0.5), Slo("tpot_s", "p50", 0.1)
    assert meets_all(row(), limits)
    assert not meets_all(slow_first, limits)
    assert meets_all(slow_first, limits[1:])
    assert not meets_all(row(last_s=1.01), limits)
    assert not meets_all(row(outcome=Outcome.FAILED), limits)
    assert meets_all(slow_first, ())
