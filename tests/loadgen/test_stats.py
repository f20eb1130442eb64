"""Running totals: each row counts where it should, and processes add up."""

import json
from array import array
from itertools import permutations
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from loadgen.stats import LATENCIES, ClientStats, SliceStats, total
from loadstone.buckets import bucket_of
from loadstone.traffic.record import Outcome, RequestRecord, Truth
from loadstone.traffic.summary import summarize

OK = RequestRecord(
    id="1",
    scenario="chat",
    intended_s=0.0,
    sent_s=0.002,
    first_s=0.302,
    last_s=1.302,
    end_s=1.4,
    outcome=Outcome.OK,
    input_tokens=100,
    output_tokens=11,
    first_event_tokens=1,
    icl=((bucket_of(0.1), 9), (bucket_of(0.3), 1)),
)


def random_row(rng: Random) -> RequestRecord:
    """Return a row of any outcome, scenario, tenant and stage."""
    sent = rng.random() * 100
    first = sent + rng.expovariate(3)
    last = first + rng.expovariate(0.5)
    truth = Truth(0.0, 0.0, rng.expovariate(3), 1.0, engine=0)
    return OK.but(
        scenario=rng.choice(("chat", "rag")),
        tenant=rng.choice(("a", "b")),
        stage=rng.choice(("generate", "embed")),
        intended_s=sent - rng.expovariate(100),
        sent_s=sent,
        first_s=rng.choice((None, first, first)),
        last_s=last,
        end_s=last,
        outcome=rng.choice((Outcome.OK, *Outcome)),
        input_tokens=rng.randint(1, 1000),
        output_tokens=rng.randint(1, 100),
        warmup=rng.random() < 0.2,
        truth=rng.choice((None, truth)),
    )


def feed(stats: ClientStats, seed: int) -> ClientStats:
    """Let a process see the random rows of a seed."""
    rng = Random(seed)
    for _ in range(200):
        row = random_row(rng)
        stats.add(row)
        part = stats.slice_of(row.scenario, row.tenant, row.stage)
        part.scheduled += rng.randint(0, 2)
        part.dropped += rng.randint(0, 1)
        part.in_flight += rng.randint(0, 1)
        stats.loop_lag.add(rng.expovariate(1000))
    stats.worst_pause_s = max(stats.worst_pause_s, rng.random())
    stats.recv_lags.add(array("d", [rng.expovariate(1000) for _ in range(50)]))
    stats.recv_lags.clock_set += rng.randint(0, 2)
    share = max(stats.vitals.get("cpu_share", 0.0), rng.random())
    stats.vitals = {"cpu_share": share}
    return stats


def worker(seed: int) -> ClientStats:
    """Return the totals of a process that saw random rows."""
    return feed(ClientStats(), seed)


def slices(snapshot: dict[str, Any]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the slices of a snapshot by their names."""
    return {tuple(names): part for *names, part in snapshot["slices"]}


def assert_equal(one: ClientStats, other: ClientStats) -> None:
    """Every count is the same, and sums of seconds are but for rounding."""
    a, b = one.snapshot(), other.snapshot()
    lag, other_lag = (s["recv_lags"].pop("total") for s in (a, b))
    assert lag == pytest.approx(other_lag)
    assert {k: v for k, v in a.items() if k != "slices"} == {
        k: v for k, v in b.items() if k != "slices"
    }
    parts, others = slices(a), slices(b)
    assert set(parts) == set(others)
    for names, part in parts.items():
        for field in ("counts", "outcomes", "percentiles"):
            assert part[field] == others[names][field]
        for name, (counts, sum_s) in part["histograms"].items():
            assert counts == others[names]["histograms"][name][0]
            assert sum_s == pytest.approx(others[names]["histograms"][name][1])


def test_answered_request_is_in_every_histogram() -> None:
    """By hand: TTFT 0.3 and 0.302, TPOT 0.1, answer 1.398 and 1.4 s, ten gaps."""
    stats = SliceStats()
    stats.add(OK)
    sums = {name: histogram.total for name, histogram in stats.histograms.items()}
    gaps = sums.pop("icl_s")
    assert gaps == pytest.approx(9 * 0.1 + 0.3, rel=0.01)
    assert sums == pytest.approx(
        {
            "ttft_s": 0.3,
            "ttft_intended_s": 0.302,
            "tpot_s": 0.1,
            "e2e_s": 1.398,
            "response_time_s": 1.4,
            "send_lag_s": 0.002,
        }
    )
    for name, histogram in stats.histograms.items():
        n = 10 if name == "icl_s" else 1
        assert (histogram.count, stats.percentiles[name].count) == (n, n)
    assert stats.percentiles["ttft_s"].pairs() == ((bucket_of(0.3), 1),)
    assert stats.percentiles["icl_s"].pairs() == OK.icl
    assert (stats.input_tokens, stats.output_tokens) == (100, 11)
    assert (stats.outcomes["ok"], stats.sent) == (1, 1)


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.OK])
def test_failed_request_is_counted_and_not_timed(outcome: Outcome) -> None:
    """Under its own outcome, without its tokens."""
    stats = SliceStats()
    stats.add(OK.but(outcome=outcome))
    assert stats.outcomes == {o.value: int(o is outcome) for o in Outcome}
    assert (stats.input_tokens, stats.output_tokens) == (0, 0)
    assert sum(histogram.count for histogram in stats.histograms.values()) == 0
    assert sum(histogram.count for histogram in stats.percentiles.values()) == 0


def test_warm_up_gives_tokens_and_no_latency() -> None:
    """As in the summary."""
    stats = SliceStats()
    stats.add(OK.but(warmup=True))
    assert (stats.outcomes["ok"], stats.output_tokens) == (1, 11)
    assert sum(histogram.count for histogram in stats.histograms.values()) == 0
    assert sum(histogram.count for histogram in stats.percentiles.values()) == 0


def test_figure_that_does_not_exist_is_not_counted() -> None:
    """One token has no TPOT and no gap, and no zero stands for them."""
    stats = SliceStats()
    stats.add(OK.but(output_tokens=1, icl=()))
    counts = {name: histogram.count for name, histogram in stats.histograms.items()}
    assert (counts.pop("tpot_s"), counts.pop("icl_s")) == (0, 0)
    assert set(counts.values()) == {1}


def test_in_flight_was_sent_too() -> None:
    """Sent are those that ended and those that run."""
    stats = SliceStats()
    for _ in range(3):
        stats.add(OK)
    stats.in_flight = 2
    assert stats.sent == 5
    assert repr(stats) == "<SliceStats sent=5 in_flight=2>"


def test_rows_are_told_apart_by_scenario_tenant_and_stage() -> None:
    """Each slice has its own totals, and the whole is their sum."""
    stats = ClientStats()
    stats.add(OK)
    stats.add(OK.but(stage="embed"))
    stats.add(OK.but(tenant="gold", output_tokens=5))
    stats.add(OK.but(tenant="gold", output_tokens=7))
    found = {tuple(key): part.output_tokens for key, part in stats.slices.items()}
    assert found == {
        ("chat", "default", "generate"): 11,
        ("chat", "default", "embed"): 11,
        ("chat", "gold", "generate"): 12,
    }
    whole = stats.whole()
    assert (whole.sent, whole.output_tokens) == (4, 34)
    assert whole.histograms["ttft_s"].count == 4
    assert repr(stats) == "<ClientStats 3 slices, <SliceStats sent=4 in_flight=0>>"


def test_error_against_the_truth_is_a_size() -> None:
    """Early or late by 100 ms is the same; without truth or an answer there is none."""
    stats = ClientStats()
    late = Truth(0.0, 0.0, 0.2, 1.0, engine=0)
    early = replace(late, first_sent_s=0.4)
    stats.add(OK.but(truth=late))
    stats.add(OK.but(truth=early))
    stats.add(OK.but(truth=late, outcome=Outcome.INCOMPLETE))
    stats.add(OK)
    assert stats.ttft_error.count == 2
    assert stats.ttft_error.quantile(0.5) == pytest.approx(0.1, rel=0.01)
    assert stats.ttft_error.quantile(1.0) == pytest.approx(0.1, rel=0.01)


def test_totals_agree_with_the_summary_of_the_rows() -> None:
    """Outcomes, tokens and means are those of `summary.json`; percentiles to 1 %."""
    rng = Random(5)
    rows = [random_row(rng) for _ in range(2000)]
    stats = ClientStats()
    for row in rows:
        stats.add(row)
    whole, summary = stats.whole(), summarize(rows)
    assert whole.outcomes == {o.value: summary["requests"][o.value] for o in Outcome}
    assert whole.output_tokens == summary["tokens"]["output"]
    assert whole.input_tokens == summary["tokens"]["input"]
    for name in LATENCIES:
        histogram, percentiles = whole.histograms[name], whole.percentiles[name]
        said = summary[name]
        assert histogram.count == percentiles.count == said["n"]
        assert histogram.total / histogram.count == pytest.approx(said["mean"])
        for q, stat in ((0.5, "p50"), (0.99, "p99")):
            assert percentiles.quantile(q) == pytest.approx(said[stat], rel=0.01)


def test_merged_snapshots_are_one_process_that_saw_everything() -> None:
    """Three processes against one that was fed all of their rows."""
    seeds = (1, 2, 3)
    one = ClientStats()
    for seed in seeds:
        feed(one, seed)
    assert_equal(total(worker(seed).snapshot() for seed in seeds), one)


def test_order_of_merging_does_not_matter() -> None:
    """Whichever worker reports first."""
    snapshots = [worker(seed).snapshot() for seed in (1, 2, 3)]
    first = total(snapshots)
    for order in permutations(snapshots):
        assert_equal(total(order), first)


def test_snapshot_travels_as_json() -> None:
    """Lists, dicts, numbers and strings alone; what arrives merges to the same."""
    snapshot = worker(1).snapshot()
    arrived = json.loads(json.dumps(snapshot))
    assert_equal(total([arrived]), total([snapshot]))


def test_snapshot_stays_as_it_was_taken() -> None:
    """Though the process counts on, and though it is merged elsewhere."""
    stats = worker(1)
    snapshot = stats.snapshot()
    before = json.dumps(snapshot)
    stats.add(OK)
    merged = total([snapshot])
    merged.add(OK)
    assert json.dumps(snapshot) == before
    assert_equal(merged, stats)


def test_nothing_merged_is_empty() -> None:
    """A master without workers has seen nothing."""
    empty = total([])
    assert (empty.whole().sent, empty.slices, empty.worst_pause_s) == (0, {}, 0.0)
