"""Comparing runs: figures by hand, planted differences found, and none invented."""

from collections.abc import Iterable
from math import ceil
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from loadstone.traffic.compare import (
    FIGURES,
    Comparison,
    Difference,
    Priced,
    compare,
    paired,
)
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.slo import Slo
from loadstone.traffic.tape import BLOCKS, WHOLE, Tape
from loadstone.traffic.window import Window

RATE = 20.0


def rows(
    seed: int, n: int, *, load: float = 0.4, slow: float = 1.0, noise: int = 0
) -> list[RequestRecord]:
    """Return rows of a server that prefills one request at a time.

    Arrivals and lengths are of `seed`; service times too, but for a tenth that is of
    `noise`. Everything takes `slow` times as long.
    """
    arrivals, chance, due, free = Random(seed), Random(f"{seed}/{noise}"), 0.0, 0.0
    made = []
    for i in range(n):
        due += arrivals.expovariate(RATE)
        free = max(due, free) + arrivals.expovariate(RATE / load) * slow
        first = due + (free - due) * chance.lognormvariate(0, 0.1)
        tokens = arrivals.randint(20, 200)
        last = first + 0.02 * slow * chance.lognormvariate(0, 0.1) * (tokens - 1)
        made.append(
            RequestRecord(
                id=str(i), scenario="chat", outcome=Outcome.OK, intended_s=due,
                sent_s=due, first_s=first, last_s=last, end_s=last,
                output_tokens=tokens, first_event_tokens=1,
            )
        )  # fmt: skip
    return made


def tape_of(made: Iterable[RequestRecord], slos: tuple[Slo, ...] = ()) -> Tape:
    """Return a tape with these rows on it."""
    tape = Tape(slos)
    for row in made:
        tape.add(row)
    return tape


def compared(
    a: Iterable[RequestRecord], b: Iterable[RequestRecord], *,
    usd: tuple[float, float] = (0.01, 0.01), slos: tuple[Slo, ...] = (), seed: int = 0,
    draws: int = 150,
) -> Comparison:  # fmt: skip
    """Compare two runs."""
    tapes = [tape_of(made, slos) for made in (a, b)]
    cuts = [tape.cut() for tape in tapes]
    assert cuts[0] is not None
    assert cuts[1] is not None
    runs = [Priced(cut, price) for cut, price in zip(cuts, usd, strict=True) if cut]
    pairs = paired(tapes[0].due, tapes[1].due)
    return compare(
        *runs, pairs=pairs, rng=Random(seed), goodput=bool(slos), draws=draws
    )


def by_name(found: Comparison) -> dict[str, Difference]:
    """Return the differences by the figure's name."""
    return {each.name: each for each in found.differences}


# ------------------------------------------------------------- what is cut


def test_figures_of_the_whole_are_those_of_the_run() -> None:
    """Nearest rank of all values, and sums over all stretches."""
    made = rows(1, 500)
    cut = tape_of(made).cut()
    assert cut is not None
    ordered = sorted(row.e2e_s for row in made)
    assert cut.quantile("e2e_s", 0.99) == ordered[ceil(0.99 * 500) - 1]
    assert cut.quantile("e2e_s", 0.5) == ordered[249]
    assert cut.ratio("answered", "asked") == 1.0
    span = made[-1].intended_s - made[0].intended_s
    done = sum(made[0].intended_s <= r.end_s < made[-1].intended_s for r in made)
    assert cut.ratio("done", "seconds") == pytest.approx(done / span)
    assert cut.ratio("tokens", "nothing") == 0.0


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=BLOCKS, max_size=BLOCKS))
def test_a_draw_is_the_run_that_it_stands_for(weights: list[int]) -> None:
    """A quantile by bisection is that of the values put together, each so often."""
    cut = tape_of(rows(2, 300)).cut()
    assert cut is not None
    parts = zip(weights, cut.values["ttft_s"], strict=True)
    together = sorted(x for w, part in parts for _ in range(w) for x in part)
    for q in (0.5, 0.99):
        expected = together[ceil(q * len(together)) - 1] if together else 0.0
        assert cut.quantile("ttft_s", q, weights) == expected


def test_what_got_no_answer_is_as_slow_as_the_run() -> None:
    """So a run is not better for failing the requests that it was slow with."""
    made = rows(3, 1500)
    broken = [
        replace(r, outcome=Outcome.FAILED) if i % 10 == 0 else r
        for i, r in enumerate(made)
    ]
    found = by_name(compared(made, broken))
    assert found["e2e_s.p99"].failed
    assert found["e2e_s.p99"].verdict == "worse"
    assert found["answered"].relative == pytest.approx(-0.1)
    assert found["answered"].verdict == "worse"
    assert not found["e2e_s.p50"].failed
    cancelled = [replace(r, outcome=Outcome.CANCELLED) for r in made[::10]]
    kept = [r for i, r in enumerate(made) if i % 10]
    assert by_name(compared(made, kept + cancelled))["answered"].relative == 0


def test_warmup_and_what_is_outside_the_window_are_passed() -> None:
    """As in a summary."""
    made = rows(4, 300)
    tape = Tape((), Window(2.0, 8.0))
    for row in made:
        tape.add(replace(row, warmup=row.intended_s < 4))
    assert set(tape.due) == {r.id for r in made if 4 <= r.intended_s < 8}
    assert Tape().cut() is None
    assert tape_of([replace(made[0], outcome=Outcome.FAILED)]).cut() is None


def test_offline_runs_are_compared_by_their_rates() -> None:
    """Latencies are the queue's there; rates are over the middle of the tokens."""

    def offline(step: float) -> list[RequestRecord]:
        return [
            replace(
                rows(0, 1)[0], id=str(i), intended_s=0.0, sent_s=0.0, first_s=i * step,
                last_s=(i + 10) * step, end_s=(i + 10) * step, output_tokens=10,
            )
            for i in range(500)
        ]  # fmt: skip

    found = compared(offline(0.1), offline(0.08))
    assert by_name(found)["output_tok_s"].relative == pytest.approx(0.25, rel=0.01)
    assert by_name(found)["output_tok_s"].verdict == "better"
    assert "all was due at once" in found.left_out["ttft_s.p50"]
    assert "offline" in found.left_out["answered"]


# ------------------------------------------------------------- what is paired


def test_runs_are_paired_by_when_each_request_was_due() -> None:
    """Nearly all, to a millisecond; ids alone do not make a pair."""
    one = {str(i): float(i) for i in range(200)}
    assert paired(one, one)
    assert paired(one, {i: t + 0.0005 for i, t in one.items()})
    assert not paired(one, {i: t + 0.002 for i, t in one.items()})
    assert paired(one, {i: t for i, t in one.items() if t >= 2})
    assert not paired(one, {i: t for i, t in one.items() if t >= 3})
    assert not paired({}, {})


def test_pairing_takes_the_schedule_out() -> None:
    """The same 5 % are known far better where both met the same bursts."""
    a, same = rows(5, 3000), rows(5, 3000, slow=1.05, noise=1)
    other = rows(6, 3000, slow=1.05)
    near, far = (by_name(compared(a, b))["e2e_s.p50"] for b in (same, other))
    assert near.verdict == "worse"
    assert near.high - near.low < 0.7 * (far.high - far.low)


# ------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("low", "high", "lower", "verdict", "regressed"),
    [
        (0.03, 0.07, True, "worse", True),
        (0.01, 0.07, True, "worse", False),
        (-0.07, -0.03, True, "better", False),
        (-0.01, 0.07, True, "no difference shown", False),
        (-0.07, -0.03, False, "worse", True),
        (-0.07, -0.01, False, "worse", False),
        (0.03, 0.07, False, "better", False),
        (0.0, 0.0, True, "no difference shown", False),
    ],
)
def test_verdict_by_hand(
    low: float, high: float, *, lower: bool, verdict: str, regressed: bool
) -> None:
    """By the interval alone; a regression lies beyond the tolerance with all of it."""
    d = Difference(
        name="x", unit="s", a=1.0, b=1.0, relative=(low + high) / 2, low=low, high=high,
        lower_is_better=lower,
    )  # fmt: skip
    assert (d.verdict, d.regressed(0.02)) == (verdict, regressed)


def test_the_same_run_twice_differs_in_nothing() -> None:
    """Every interval is a point at zero."""
    made = rows(7, 800)
    for each in compared(made, made).differences:
        assert (each.low, each.relative, each.high) == (0, 0, 0)


def test_comparison_is_repeatable() -> None:
    """The same seed, the same intervals."""
    a, b = rows(1, 600), rows(2, 600)
    assert compared(a, b, seed=5) == compared(a, b, seed=5) != compared(a, b, seed=6)


def test_swapping_the_runs_turns_the_differences_round() -> None:
    """B over A is one over A over B, and so are the bounds."""
    a, b = rows(1, 800), rows(1, 800, slow=1.2, noise=3)
    there, back = by_name(compared(a, b)), by_name(compared(b, a))
    for name, d in there.items():
        assert (1 + d.relative) * (1 + back[name].relative) == pytest.approx(1)
        assert (1 + d.low) * (1 + back[name].high) == pytest.approx(1)


def test_too_little_is_left_out_with_the_reason() -> None:
    """A p99 of ninety, and a tail that is one burst."""
    few = compared(rows(1, 90), rows(2, 900))
    assert few.left_out["ttft_s.p99"] == "A: n=90 < 100"
    assert "ttft_s.p50" in by_name(few)
    quiet = rows(3, 1000)
    burst = [
        replace(r, end_s=r.end_s + 50) if 500 <= i < 520 else r
        for i, r in enumerate(quiet)
    ]
    found = compared(quiet, burst)
    assert found.left_out["e2e_s.p99"].startswith("B: what lies above it is from ")
    assert {f.name for f in FIGURES} - {"goodput_req_s"} == {
        *by_name(found), *found.left_out
    }  # fmt: skip


def test_goodput_is_compared_by_the_same_objectives() -> None:
    """Only where there are any; nobody within them is nothing to compare."""
    slos = (Slo("tpot_s", "p99", 0.021),)
    a, b = rows(1, 800), rows(1, 800, slow=1.05)
    found = by_name(compared(a, b, slos=slos))["goodput_req_s"]
    assert found.verdict == "worse"
    assert found.relative < -0.1
    assert "goodput_req_s" not in by_name(compared(a, b))
    none = compared(a, b, slos=(Slo("tpot_s", "p99", 1e-6),))
    assert none.left_out["goodput_req_s"] == "A: none"


def test_cost_is_compared_at_both_prices_and_at_the_same() -> None:
    """Twice the price for the same speed costs twice as much, and the same at one."""
    a = rows(1, 600)
    found = by_name(compared(a, a, usd=(0.01, 0.02)))
    name = "usd_per_million_output_tokens"
    assert found[name].relative == pytest.approx(1.0)
    assert found[name].verdict == "worse"
    assert found[f"{name} at A's price"].relative == pytest.approx(0.0)
    assert found[f"{name} at A's price"].b == pytest.approx(found[name].a)
    assert found[name].a == pytest.approx(0.01 / found["output_tok_s"].a * 1e6)
    assert found["usd_per_request"].a == pytest.approx(0.01 / found["req_s"].a)
    alone = by_name(compared(a, a))
    assert f"{name} at A's price" not in alone
    tapes = [tape_of(a).cut(), tape_of(a).cut()]
    free = [Priced(cut, None) for cut in tapes if cut is not None]
    assert (
        compare(*free, pairs=True, rng=Random(0)).left_out[name]
        == "A: no cost that runs with the clock"
    )


# ------------------------------------------------------------- how often it is right


TRIALS = 14
MOST = 3
"""False alarms of 14 that 5 % give with 99 %."""


def alarms(found: Comparison) -> list[str]:
    """Return the figures in which a difference is shown."""
    return [d.name for d in found.differences if d.verdict != "no difference shown"]


@pytest.mark.parametrize("same_schedule", [True, False])
def test_no_difference_is_shown_between_runs_of_the_same(
    *, same_schedule: bool
) -> None:
    """Of all figures together: one alarm in twenty comparisons at most, but chance."""
    seen = sum(
        bool(
            alarms(
                compared(
                    rows(seed, 1000),
                    rows(seed if same_schedule else seed + 1000, 1000, noise=1),
                    seed=seed,
                )
            )
        )
        for seed in range(TRIALS)
    )
    assert seen <= MOST


def test_planted_five_per_cent_are_found() -> None:
    """Paired, in each of the runs; and nothing is shown to be better."""
    for seed in range(3):
        found = by_name(
            compared(rows(seed, 4000), rows(seed, 4000, slow=1.05, noise=1), seed=seed)
        )
        for name in ("ttft_s.p50", "tpot_s.p50", "e2e_s.p50"):
            assert found[name].verdict == "worse"
        tpot = found["tpot_s.p50"]
        assert tpot.low < 0.05 < tpot.high
        assert tpot.regressed(0.02)
        assert not any(d.verdict == "better" for d in found.values())


def test_weights_of_the_run_itself_are_all_one() -> None:
    """Each stretch once."""
    assert WHOLE == (1,) * BLOCKS


def test_later_turns_are_no_part_of_the_schedule() -> None:
    """They are due when the answer before came, which is the server's doing."""
    made = rows(1, 40)
    turns = [replace(r, id=f"{r.id}.1", turn=1) for r in made]
    late = [replace(r, intended_s=r.intended_s + 1) for r in turns]
    one, two = tape_of(made + turns), tape_of(made + late)
    assert len(one.due) == len(made)
    assert paired(one.due, two.due)
    assert not paired(one.due, tape_of(late).due)
