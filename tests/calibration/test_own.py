"""Own points: a planted law is found again, and what they cannot tell is said."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from closed_loops import measure
from hypothesis import given
from hypothesis import strategies as st

from loadstone.calibration.linear import inverse, normal
from loadstone.calibration.own import Fitted, fit_law
from loadstone.calibration.steady import OwnPoint, Steady, mean_step
from loadstone.catalog.presets import load_preset
from loadstone.errors import UsageError
from loadstone.physics.steplaw import StepLaw
from loadstone.traffic.record import Outcome, RequestRecord

MACHINE = load_preset("azure-nd-gb300-v6", "llama-2-70b")
BUDGET = MACHINE.limits.max_num_batched_tokens
PRIOR = StepLaw(
    weights_ms=19.34, gemm_us_per_token=28.4, kv_ns_per_token=23.62, pair_ns=1.62,
    knee=1.37, sigma=0.02,
)  # fmt: skip
PLANTED = replace(
    PRIOR, weights_ms=13.0, gemm_us_per_token=35.0, kv_ns_per_token=30.0, pair_ns=2.0
)
LOADS = (
    (1, 200, 300), (8, 200, 300), (32, 200, 300), (128, 200, 300), (512, 200, 300),
    (64, 4000, 300), (256, 1000, 300), (512, 100, 300),
)  # fmt: skip
"""Concurrency, prompt, answer."""
CLOSED = [measure(MACHINE, PLANTED, concurrency=c, isl=i, osl=o) for c, i, o in LOADS]


def fitted(points: Sequence[OwnPoint], prior: StepLaw = PRIOR) -> Fitted:
    """Fit the prior to points."""
    steady = [Steady.of(point, number) for number, point in enumerate(points, 1)]
    return fit_law(steady, prior, BUDGET)


def noisy(points: Sequence[OwnPoint], seed: int, sd: float = 0.01) -> list[OwnPoint]:
    """Return points with TPOT off by a random relative error."""
    rng = Random(seed)
    return [
        replace(p, tpot_ms=p.tpot_ms * (1 + rng.gauss(0, sd)))
        for p in points
        if p.tpot_ms
    ]


@pytest.mark.parametrize("point", CLOSED, ids=[f"{c}x{i}" for c, i, _ in LOADS])
def test_mean_step_is_that_of_the_event_simulation(point: OwnPoint) -> None:
    """Within 1.5 % from one sequence to 512, also with prompts beyond the budget."""
    steady = Steady.of(point, 1)
    assert mean_step(PLANTED, steady, BUDGET) == pytest.approx(steady.tpot_s, rel=0.015)


COSTS = ("weights_ms", "gemm_us_per_token", "kv_ns_per_token", "pair_ns")


def test_planted_law_is_found_in_its_intervals() -> None:
    """Of 4 costs and 12 draws of 1 % noise at least 80 % are in their intervals."""
    inside = []
    for seed in range(12):
        found = fitted(noisy(CLOSED, seed))
        for cost in COSTS:
            low, high = found.intervals[cost]
            assert low < getattr(found.law, cost) < high
            inside.append(low <= getattr(PLANTED, cost) <= high)
    assert sum(inside) >= 0.8 * len(inside)


def test_fixed_and_token_costs_are_known_well() -> None:
    """With loads from 1 to 512: to 5 and 15 %; the law says the points within 4 %."""
    found = fitted(noisy(CLOSED, seed=5))
    assert {"fixed", "tokens"} < set(found.factors)
    assert found.law.weights_ms == pytest.approx(13.0, rel=0.05)
    assert found.law.gemm_us_per_token == pytest.approx(35.0, rel=0.15)
    assert found.mean_error < 0.02
    assert max(abs(r.error) for r in found.residuals) < 0.04
    assert found.law.knee == PRIOR.knee
    assert {"knee", "sigma"} <= set(found.unidentified)


def test_one_concurrency_tells_a_factor_and_no_slope() -> None:
    """Every cost keeps the prior's proportion to the others, and all are named."""
    found = fitted(noisy([CLOSED[3]] * 5, seed=7))
    assert list(found.factors) == ["stack"]
    assert set(found.unidentified) == {*COSTS, "knee", "sigma"}
    for cost in COSTS:
        ratio = getattr(found.law, cost) / getattr(PRIOR, cost)
        assert ratio == pytest.approx(found.factors["stack"], rel=1e-12)
    assert found.mean_error < 0.02
    low, high = found.intervals["gemm_us_per_token"]
    assert high / low > 1.8  # as vague as before


def test_one_length_leaves_prefill_at_its_prior() -> None:
    """Several concurrencies of short prompts: fixed and token cost, no attention."""
    found = fitted(noisy(CLOSED[:5], seed=3))
    assert {"pair_ns", "kv_ns_per_token"} <= set(found.unidentified)
    assert "weights_ms" not in found.unidentified
    for cost in ("pair_ns", "kv_ns_per_token"):
        ratio = getattr(found.law, cost) / getattr(PRIOR, cost)
        assert ratio == pytest.approx(found.factors["stack"], rel=1e-12)


def test_the_prior_is_found_where_it_is_true() -> None:
    """Points of the prior's own law leave it within its intervals, near 1."""
    points = [
        measure(MACHINE, PRIOR, concurrency=c, isl=i, osl=o) for c, i, o in LOADS[:5]
    ]
    found = fitted(points)
    assert found.law.weights_ms == pytest.approx(PRIOR.weights_ms, rel=0.03)
    assert found.law.gemm_us_per_token == pytest.approx(
        PRIOR.gemm_us_per_token, rel=0.1
    )


@pytest.mark.parametrize("factor", [0.7, 1.5])
def test_slower_software_is_the_stack(factor: float) -> None:
    """All points slower by one factor: so is every prediction, whatever the parts."""
    slow = [replace(p, tpot_ms=factor * p.tpot_ms) for p in CLOSED if p.tpot_ms]
    for one, other in zip(
        fitted(CLOSED).residuals, fitted(slow).residuals, strict=True
    ):
        assert other.predicted_s / one.predicted_s == pytest.approx(factor, rel=0.03)


def test_derived_laws_are_fitted_too() -> None:
    """Where launches and experts have costs of their own, their part keeps together."""
    machine = load_preset("azure-nd-h200-v5", "gpt-oss-120b")
    law = machine.law
    assert law.step_ms > 0
    assert law.expert_weights_ms > 0
    twice = replace(
        law,
        weights_ms=2 * law.weights_ms,
        expert_weights_ms=2 * law.expert_weights_ms,
        step_ms=2 * law.step_ms,
    )
    points = [
        measure(machine, twice, concurrency=c, isl=i, osl=o) for c, i, o in LOADS[:5]
    ]
    budget = machine.limits.max_num_batched_tokens
    steady = [Steady.of(p, n) for n, p in enumerate(points)]
    found = fit_law(steady, law, budget)
    assert found.law.step_ms / law.step_ms == pytest.approx(2.0, rel=0.1)
    assert found.law.weights_ms / law.weights_ms == pytest.approx(2.0, rel=0.1)
    assert found.mean_error < 0.01
    assert "expert_miss" in found.unidentified


def test_without_points_there_is_no_fit() -> None:
    """It says so."""
    with pytest.raises(UsageError, match="no point"):
        fit_law([], PRIOR, BUDGET)


# ------------------------------------------------------------------ points

GOOD = {"isl": 100.0, "osl": 50.0, "concurrency": 8.0, "tpot_ms": 20.0}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"isl": 0.0}, "must be positive"),
        ({"tpot_ms": -1.0}, "must be positive"),
        ({"osl": 1.0}, "osl must be 2 or more"),
        ({"concurrency": None}, "either concurrency or requests_per_s"),
        ({"requests_per_s": 3.0}, "either concurrency or requests_per_s"),
        ({"engines": 9}, "below one request for each engine"),
        ({"tpot_ms": None}, "give tpot_ms, or"),
        ({"tpot_ms": None, "tokens_per_s": 9.0}, "give tpot_ms, or"),
    ],
)
def test_bad_points_are_refused(change: dict[str, float | None], why: str) -> None:
    """In words that name the columns."""
    with pytest.raises(ValueError, match=why):
        OwnPoint(**(GOOD | change))  # type: ignore[arg-type]


def test_throughput_stands_for_tpot() -> None:
    """8 in flight, 50 tokens each, TTFT 0.1 s, TPOT 20 ms: 8 x 50 / 1.08 tokens/s."""
    rate = 8 * 50 / (0.1 + 49 * 0.02)
    point = OwnPoint(isl=100, osl=50, concurrency=8, tokens_per_s=rate, ttft_ms=100)
    steady = Steady.of(point, 3)
    assert steady.tpot_s == pytest.approx(0.02)
    assert steady.others == pytest.approx(7 * 0.98 / 1.08)
    assert steady.label == "point 3"
    with pytest.raises(UsageError, match="before its first token"):
        Steady.of(replace(point, ttft_ms=2000), 1)


def test_open_loop_is_littles_law() -> None:
    """10 requests/s that decode for 2 s see 20 others; two engines halve them."""
    point = OwnPoint(isl=100, osl=101, requests_per_s=10, tpot_ms=20, engines=2)
    steady = Steady.of(point, 1)
    assert steady.others == pytest.approx(20.0)
    assert steady.batch == pytest.approx(11.0)


def row(
    number: int, first: float, last: float, *, warmup: bool = False
) -> RequestRecord:
    """Return a request of 100 tokens in and 11 out."""
    return RequestRecord(
        id=str(number), scenario="chat", intended_s=first - 1, sent_s=first - 1,
        end_s=last, outcome=Outcome.OK, first_s=first, last_s=last, input_tokens=100,
        output_tokens=11, first_event_tokens=1, warmup=warmup,
    )  # fmt: skip


def test_run_is_read_as_its_tokens_saw_it() -> None:
    """Two requests that overlap for half of their time see 1.5 on average."""
    steady = Steady.of_rows([row(1, 1.0, 2.0), row(2, 1.5, 2.5)], "run", engines=1)
    assert steady.tpot_s == pytest.approx(0.1)
    assert steady.batch == pytest.approx(1.5)
    assert (steady.isl, steady.osl, steady.context) == (100, 11, 105.5)


def test_warm_up_is_company_and_no_sample() -> None:
    """A slow warm-up request does not count, but it was there."""
    rows = [row(1, 1.0, 2.0), row(2, 0.0, 9.0, warmup=True)]
    steady = Steady.of_rows(rows, "run", engines=1)
    assert (steady.tpot_s, steady.batch) == (pytest.approx(0.1), pytest.approx(2.0))
    with pytest.raises(UsageError, match="run: no request has a TPOT"):
        Steady.of_rows(rows[1:], "run", engines=1)


# ------------------------------------------------------------------ linear algebra


@given(
    st.lists(st.tuples(*[st.floats(-3, 3)] * 3), min_size=1, max_size=6),
    st.floats(0.01, 1.0),
    st.floats(0.1, 1.0),
)
def test_inverse_is_one(
    rows: list[tuple[float, ...]], noise: float, prior: float
) -> None:
    """Times the matrix it is 1, whatever the rows tell."""
    matrix = normal(rows, noise, prior)
    found = inverse(matrix)
    scale = max(map(max, matrix)) * max(map(max, found))
    for i in range(3):
        for j in range(3):
            product = sum(matrix[i][k] * found[k][j] for k in range(3))
            assert abs(product - (i == j)) < 1e-9 * max(scale, 1.0)
