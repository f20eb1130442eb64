"""The search for the highest rate: exact against a threshold, honest against noise."""

from collections.abc import Callable
from math import log, log2
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import UsageError
from loadstone.traffic.search import Answer, End, Probe, find_max

LOW, HIGH = 0.5, 5000.0


def drive(
    met: Callable[[Probe], bool], start: float = 100.0, **settings: float
) -> tuple[Answer, list[tuple[Probe, bool]]]:
    """Search against an oracle; return the answer and what was asked."""
    settings = {"low": LOW, "high": HIGH} | settings
    search = find_max(start, **settings)
    asked: list[tuple[Probe, bool]] = []
    probe = next(search)
    while True:
        asked.append((probe, met(probe)))
        try:
            probe = search.send(asked[-1][1])
        except StopIteration as over:
            return over.value, asked


def votes(asked: list[tuple[Probe, bool]], rate: float | None) -> list[bool]:
    """Return the verdicts that one rate got."""
    return [met for probe, met in asked if probe.rate == rate]


@given(
    st.floats(LOW, HIGH, exclude_max=True),
    st.floats(LOW, HIGH),
    st.floats(0.001, 0.5),
    st.sampled_from([1, 3, 5]),
)
def test_a_threshold_is_bracketed_to_the_precision(
    threshold: float, start: float, precision: float, repeats: int
) -> None:
    """Wherever it is and wherever the search begins; each end asked until decided."""
    answer, asked = drive(
        lambda probe: probe.rate <= threshold, start,
        precision=precision, repeats=repeats,
    )  # fmt: skip
    assert answer.end is End.FOUND
    assert answer.met is not None
    assert answer.missed is not None
    assert LOW <= answer.met <= threshold < answer.missed <= HIGH
    assert answer.missed / answer.met <= (1 + precision) * (1 + 1e-9)
    assert answer.probes == len(asked)
    assert len(votes(asked, answer.met)) == repeats // 2 + 1
    assert len(votes(asked, answer.missed)) == repeats // 2 + 1
    # Doubling ever faster, then halving the distance: never a scan.
    halvings = log2(log(HIGH / LOW) / log(1 + precision))
    assert len(asked) <= 8 + halvings + 2 * (repeats // 2)


@pytest.mark.parametrize("start", [LOW, 100.0, HIGH])
def test_never_met_is_said(start: float) -> None:
    """The lowest rate was tried, under several seeds, before that is claimed."""
    answer, asked = drive(lambda _: False, start)
    assert (answer.end, answer.met, answer.missed) == (End.NEVER, None, LOW)
    assert votes(asked, LOW) == [False, False]


@pytest.mark.parametrize("start", [LOW, 100.0, HIGH])
def test_always_met_is_said(start: float) -> None:
    """So was the highest one."""
    answer, asked = drive(lambda _: True, start)
    assert (answer.end, answer.met, answer.missed) == (End.ALWAYS, HIGH, None)
    assert votes(asked, HIGH) == [True, True]


def test_the_limits_themselves_may_be_the_answer() -> None:
    """Met at the lowest and not a hair above; met at all but the highest."""
    answer, _ = drive(lambda probe: probe.rate <= LOW)
    assert (answer.end, answer.met) == (End.FOUND, LOW)
    answer, _ = drive(lambda probe: probe.rate < HIGH)
    assert (answer.end, answer.missed) == (End.FOUND, HIGH)


@given(st.integers(), st.floats(0.0, 0.45), st.integers(1, 60))
def test_noise_is_outvoted_or_owned_up_to(seed: int, noise: float, most: int) -> None:
    """It always ends in time, and `found` means that both ends have their majority."""
    rng = Random(seed)
    answer, asked = drive(
        lambda probe: (probe.rate <= 200.0) is (rng.random() >= noise), most=most
    )
    assert answer.probes == len(asked) <= most
    assert answer.end in End
    for rate, wanted in ((answer.met, True), (answer.missed, False)):
        cast = votes(asked, rate)
        if rate is not None:
            assert (cast.count(True) * 2 > len(cast)) is wanted
        if answer.end is End.FOUND:
            assert cast.count(wanted) >= 2
    if answer.end is End.FOUND:
        assert answer.met is not None
        assert answer.missed is not None
        assert 1.0 < answer.missed / answer.met <= 1.02 * (1 + 1e-9)


def test_a_soft_boundary_is_found_where_it_is_even() -> None:
    """The chance of a miss rises from 0 at 180 to 1 at 220: most answers are inside."""
    inside = 0
    for seed in range(100):
        rng = Random(seed)
        answer, _ = drive(
            lambda probe, rng=rng: rng.random() >= (probe.rate - 180.0) / 40.0
        )
        assert answer.end is End.FOUND
        assert answer.met is not None
        inside += 185.0 < answer.met < 215.0
    assert inside >= 90


@pytest.mark.parametrize(("fluke", "falls"), [(True, False), (False, True)])
def test_a_fluke_at_the_boundary_is_found_out(*, fluke: bool, falls: bool) -> None:
    """A first verdict that two other seeds contradict moves the bracket on."""
    edge: list[float] = []

    def met(probe: Probe) -> bool:
        near = 190.0 < probe.rate < 210.0
        if near and not edge:
            edge.append(probe.rate)
            return fluke
        if near and probe.rate == edge[0]:
            return falls
        return probe.rate < (190.0 if fluke else 210.0)

    answer, asked = drive(met)
    assert answer.end is End.FOUND
    assert len(votes(asked, edge[0])) == 3 or edge[0] not in (
        answer.met,
        answer.missed,
    )
    assert answer.met is not None
    assert (answer.met < 190.0) if fluke else (190.0 < answer.met < 210.0)


def test_repeats_are_numbered_as_seeds_and_what_is_left_is_guessed() -> None:
    """0 first, then 1 and 2; the guess comes down to none."""
    _, asked = drive(lambda probe: probe.rate <= 321.0)
    by_rate: dict[float, list[int]] = {}
    for probe, _ in asked:
        by_rate.setdefault(probe.rate, []).append(probe.repeat)
    assert all(turns == list(range(len(turns))) for turns in by_rate.values())
    likely = [probe.likely for probe, _ in asked]
    assert abs(likely[0] - len(asked)) <= 6
    assert likely[-1] <= 2


@pytest.mark.parametrize(
    ("start", "settings"),
    [
        (0.4, {}),
        (5000.1, {}),
        (100.0, {"low": 0.0}),
        (100.0, {"high": float("inf")}),
        (100.0, {"precision": 0.0}),
        (100.0, {"precision": 1.01}),
        (100.0, {"repeats": 2}),
        (100.0, {"repeats": 0}),
        (100.0, {"most": 0}),
    ],
)
def test_odd_settings_are_refused(start: float, settings: dict[str, float]) -> None:
    """Before anything is asked."""
    with pytest.raises(UsageError, match="a search"):
        drive(lambda _: True, start, **settings)


def test_too_few_probes_leave_it_unsettled() -> None:
    """With what is known so far."""
    answer, _ = drive(lambda probe: probe.rate <= 321.0, most=4)
    assert (answer.end, answer.probes) == (End.UNSETTLED, 4)
    assert answer.met is not None
    assert answer.missed is not None
    assert answer.met <= 321.0 < answer.missed
