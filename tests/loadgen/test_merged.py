"""Figures from totals alone are those of the rows, as far as totals can tell."""

from random import Random

import pytest
from msgspec.structs import replace

from loadgen.merged import figures, judge
from loadgen.stats import LATENCIES, ClientStats
from loadstone.traffic.quantiles import QUANTILES
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.slo import Slo
from loadstone.traffic.summary import summarize


def row(rng: Random, number: int) -> RequestRecord:
    """Return a row of any outcome and scenario."""
    sent = number / 10
    first = sent + rng.expovariate(3)
    return RequestRecord(
        id=f"{number:06d}",
        scenario=rng.choice(("chat", "rag")),
        intended_s=sent - rng.random() / 100,
        sent_s=sent,
        first_s=first,
        last_s=first + rng.expovariate(1),
        end_s=first + 2.0,
        outcome=rng.choice((Outcome.OK, Outcome.OK, Outcome.OK, *Outcome)),
        input_tokens=rng.randint(1, 99),
        output_tokens=rng.randint(1, 99),
        first_event_tokens=1,
        warmup=number < 5,
        reconnects=rng.randint(0, 1),
    )


def rows(seed: int, n: int = 200) -> list[RequestRecord]:
    """Return the rows of a run."""
    rng = Random(seed)
    return [row(rng, number) for number in range(n)]


def totals(of: list[RequestRecord]) -> ClientStats:
    """Return the totals of a process that saw these."""
    stats = ClientStats()
    for each in of:
        stats.add(each)
    return stats


SLOS = tuple(
    Slo(metric, stat, limit)
    for metric in ("ttft_s", "response_time_s")
    for stat in ("mean", "p50", "p90", "p99")
    for limit in (0.3, 3.0)
)


@pytest.mark.parametrize("seed", range(5))
def test_totals_say_what_rows_say(seed: int) -> None:
    """Counts, tokens and rates exactly, percentiles and objectives to 1 %."""
    seen = rows(seed)
    ours, exact = figures(totals(seen), SLOS), summarize(seen, slos=SLOS)
    for name, count in ours["requests"].items():
        assert count == exact["requests"][name]
    assert ours["tokens"] == exact["tokens"]
    assert ours["makespan_s"] == exact["makespan_s"]
    for name, rate in ours["throughput"].items():
        # What only rows can tell is None, and not a guess.
        assert rate in (None, pytest.approx(exact["throughput"][name]))
    for name in LATENCIES:
        assert ours[name]["n"] == exact[name]["n"]
        for stat in QUANTILES:
            if ours[name]["n"] >= 100:
                assert ours[name][stat] == pytest.approx(exact[name][stat], rel=0.01)
    for mine, theirs in zip(ours["slo"], exact["slo"], strict=True):
        for key in ("metric", "stat", "max_s", "met", "failed_as_inf"):
            assert mine[key] == theirs[key], mine
        value = theirs["value_s"]
        assert mine["value_s"] == (value and pytest.approx(value, rel=0.01))


def test_an_objective_is_not_met_by_survivors_alone() -> None:
    """Of ten, nine answered: p90 is the slowest answer, p95 falls on the failure."""
    base = replace(row(Random(0), 9), outcome=Outcome.OK, warmup=False)
    ok = [replace(base, first_s=base.sent_s + 0.1)] * 9
    whole = totals([*ok, replace(base, outcome=Outcome.FAILED)]).whole()
    at_90 = judge(Slo("ttft_s", "p90", 0.2), whole)
    assert (at_90["met"], at_90["failed_as_inf"]) == (True, 1)
    assert at_90["value_s"] == pytest.approx(0.1, rel=0.01)
    for stat in ("p95", "p99", "mean"):
        assert judge(Slo("ttft_s", stat, 9.0), whole)["met"] is False
        assert judge(Slo("ttft_s", stat, 9.0), whole)["value_s"] is None


def test_nothing_seen_is_not_judged() -> None:
    """No sample, no verdict, no rate."""
    empty = figures(ClientStats(), (Slo("ttft_s", "p99", 1.0),))
    assert empty["slo"][0]["met"] is None
    assert empty["makespan_s"] == 0.0
    assert set(empty["throughput"].values()) == {None}
