"""The step law: by hand, its bounds, and the published figures it was fitted to."""

from dataclasses import replace
from math import inf, log, nan
from random import Random
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.physics.steplaw import StepLaw

LAW = StepLaw(
    weights_ms=10.0,
    gemm_us_per_token=100.0,
    kv_ns_per_token=1000.0,
    pair_ns=2000.0,
    sequence_us=20.0,
    step_ms=0.3,
)
GB200 = StepLaw(
    weights_ms=19.34,
    gemm_us_per_token=35.53,
    kv_ns_per_token=23.62,
    pair_ns=1.62,
    knee=1.37,
)
GB300 = replace(GB200, gemm_us_per_token=28.4)
"""GB200's constants with c solved from Azure's run at a batch of 2,048."""


def test_additive_law_by_hand() -> None:
    """W + c N + k KV + q A + s B + f, each in its own unit."""
    parts_ms = (
        10.0,
        100e-3 * (3 + 5),
        1000e-6 * 700,
        2000e-6 * 12.5,
        20e-3 * 3,
        0.3,
    )
    assert LAW.seconds(3, 5, 700, 12.5) == pytest.approx(sum(parts_ms) / 1000)
    assert sum(parts_ms) == pytest.approx(11.885)


@pytest.mark.parametrize(
    ("decoding", "prefill", "context", "pairs", "ms"),
    [
        (0, 0, 0, 0.0, 10.3),
        (1, 0, 0, 0.0, 10.3 + 0.1 + 0.02),
        (0, 1, 0, 0.0, 10.3 + 0.1),
        (0, 0, 1, 0.0, 10.3 + 0.001),
        (0, 0, 0, 1.0, 10.3 + 0.002),
    ],
)
def test_each_argument_costs_its_own_term(
    decoding: int, prefill: int, context: int, pairs: float, ms: float
) -> None:
    """A sequence costs more than a prompt token: it has a host cost too."""
    assert LAW.seconds(decoding, prefill, context, pairs) * 1e3 == pytest.approx(ms)


def matrix_ms(weights_ms: float, gemm_ms: float, knee: float) -> float:
    """Return the p-norm alone, for a batch that costs `gemm_ms`."""
    law = StepLaw(
        weights_ms=weights_ms,
        gemm_us_per_token=gemm_ms * 1e3,
        kv_ns_per_token=0.0,
        pair_ns=0.0,
        knee=knee,
    )
    return law.seconds(1, 0, 0, 0.0) * 1e3


@pytest.mark.parametrize(
    ("weights_ms", "gemm_ms", "knee", "ms"),
    [
        (3.0, 4.0, 1.0, 7.0),
        (3.0, 4.0, 2.0, 5.0),
        (4.0, 3.0, 2.0, 5.0),
        (6.0, 6.0, 3.0, 6.0 * 2 ** (1 / 3)),
        (6.0, 0.0, 1.4, 6.0),
        (3.0, 4.0, 50.0, 4.0),
        (3.0, 4.0, 1000.0, 4.0),
        (4.0, 3.0, 1e6, 4.0),
        (3.0, 4.0, inf, 4.0),
        (4.0, 4.0, inf, 4.0),
    ],
)
def test_knee_goes_from_sum_to_maximum(
    weights_ms: float, gemm_ms: float, knee: float, ms: float
) -> None:
    """With p = 1 a sum, with 2 Pythagoras, at infinity a roofline; no underflow."""
    assert matrix_ms(weights_ms, gemm_ms, knee) == pytest.approx(ms, rel=1e-6)


TERM = st.floats(0.0, 1e4)
KNEE = st.floats(1.0, 300.0)


@given(st.floats(0.001, 1e4), TERM, KNEE)
def test_p_norm_lies_between_maximum_and_sum(
    weights_ms: float, gemm_ms: float, knee: float
) -> None:
    """Whatever p is; and a larger p never costs more."""
    found = matrix_ms(weights_ms, gemm_ms, knee)
    slack = 1 + 1e-12
    assert max(weights_ms, gemm_ms) <= found * slack
    assert found <= (weights_ms + gemm_ms) * slack
    assert matrix_ms(weights_ms, gemm_ms, knee * 2) <= found * slack


COUNT = st.integers(0, 10**6)


@given(
    st.builds(
        StepLaw,
        weights_ms=st.floats(0.1, 100.0),
        gemm_us_per_token=st.floats(0.0, 100.0),
        kv_ns_per_token=st.floats(0.0, 100.0),
        pair_ns=st.floats(0.0, 10.0),
        knee=st.floats(1.0, 3.0),
        sequence_us=st.floats(0.0, 10.0),
        step_ms=st.floats(0.0, 10.0),
    ),
    st.tuples(COUNT, COUNT, COUNT, COUNT),
    st.tuples(COUNT, COUNT, COUNT, COUNT),
)
def test_more_work_never_takes_less_time(
    law: StepLaw, work: tuple[int, int, int, int], more: tuple[int, int, int, int]
) -> None:
    """The law is monotone in each argument, and no step takes no time."""
    before = law.seconds(*work)
    assert before > 0
    for i, added in enumerate(more):
        heavier = [n + (added if i == j else 0) for j, n in enumerate(work)]
        assert law.seconds(*heavier) >= before * (1 - 1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        {"knee": 0.99},
        {"knee": nan},
        {"weights_ms": 0.0},
        {"weights_ms": nan},
        {"sigma": -0.01},
        {"gemm_us_per_token": -1.0},
        {"kv_ns_per_token": -1.0},
        {"pair_ns": -1.0},
        {"sequence_us": -1.0},
        {"step_ms": -1.0},
        {"step_ms": nan},
    ],
)
def test_constants_that_would_turn_time_back_are_refused(
    wrong: dict[str, float],
) -> None:
    """A step takes time, and more work takes no less."""
    with pytest.raises(ValueError, match="not a step law"):
        replace(LAW, **wrong)


def test_smallest_constants_that_are_allowed() -> None:
    """With p of 1, no spread and no cost but the weights."""
    law = StepLaw(
        weights_ms=1e-6,
        gemm_us_per_token=0,
        kv_ns_per_token=0,
        pair_ns=0,
        knee=1,
        sigma=0,
    )
    assert law.seconds(10, 10, 10, 10) == pytest.approx(1e-9)


def test_no_spread_draws_no_dice() -> None:
    """With sigma 0 the factor is exactly 1 and the generator is left alone."""
    rng = Random(1)
    assert LAW.noise(rng) == 1.0
    assert rng.getstate() == Random(1).getstate()


@pytest.mark.parametrize("sigma", [0.02, 0.3])
def test_spread_is_lognormal_with_mean_one(sigma: float) -> None:
    """The mean stays the law's; the median lies below it."""
    law, rng = replace(LAW, sigma=sigma), Random(4)
    factors = [law.noise(rng) for _ in range(40_000)]
    logs = [log(factor) for factor in factors]
    assert fmean(factors) == pytest.approx(1.0, abs=5 * sigma / 200)
    assert stdev(logs) == pytest.approx(sigma, rel=0.03)
    assert fmean(logs) == pytest.approx(-sigma * sigma / 2, abs=5 * sigma / 200)


# ------------------------------------------------------------- the published figures

PROMPT, ANSWER, CONTEXT = 222.3, 273.0, 421.0
"""Means of MLPerf's Llama2-70B: prompt, generated answer, context in flight."""


def mixed_step(law: StepLaw, batch: int) -> float:
    """Return a step of an engine in balance: each step takes in what it finishes."""
    begun = batch / ANSWER
    return law.seconds(
        batch,
        begun * PROMPT,
        batch * CONTEXT,
        begun * PROMPT * PROMPT / 2,
    )


@pytest.mark.parametrize(("batch", "ms"), [(256, 29.8), (512, 43.3), (1024, 72.7)])
def test_gb300_time_per_token_of_the_reference(batch: int, ms: float) -> None:
    """The law with c = 28.4 us gives the solved row of the step-law reference."""
    assert mixed_step(GB300, batch) * 1e3 == pytest.approx(ms, rel=0.03)


@pytest.mark.parametrize(
    ("batch", "us_per_token"),
    [
        pytest.param(228, 134.1, id="NVIDIA Interactive"),
        pytest.param(1351, 81.3, id="Nebius Server"),
        pytest.param(1429, 81.1, id="NVIDIA Server"),
        pytest.param(1975, 77.3, id="NVIDIA Offline, batch that the budget allows"),
    ],
)
def test_gb200_points_it_was_fitted_to(batch: int, us_per_token: float) -> None:
    """GB200's measured MLPerf v5.1 runs, in microseconds per output token."""
    assert mixed_step(GB200, batch) / batch * 1e6 == pytest.approx(
        us_per_token, rel=0.03
    )


@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
def test_a_slowed_law_takes_so_many_times_as_long(factor: float) -> None:
    """Whatever is in the step, with a knee or without."""
    for knee in (1.0, 1.37):
        law = StepLaw(
            weights_ms=19.0, gemm_us_per_token=28.0, kv_ns_per_token=23.0, pair_ns=1.6,
            knee=knee, sequence_us=2.0, step_ms=0.5, sigma=0.02,
        )  # fmt: skip
        slowed = law.slowed(factor)
        assert slowed.sigma == law.sigma
        for load in ((0, 1, 0, 0.5), (100, 0, 50_000, 0.0), (2000, 512, 10**6, 1e5)):
            expected = pytest.approx(factor * law.seconds(*load))
            assert slowed.seconds(*load) == expected
