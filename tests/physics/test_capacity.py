"""The estimate that a search starts from: near the truth, and bounded by everything."""

from dataclasses import replace
from math import inf

import pytest

from loadstone.catalog.presets import load_preset
from loadstone.physics.capacity import capacity
from loadstone.physics.limits import EngineLimits
from loadstone.physics.steplaw import StepLaw

LIMITS = EngineLimits(
    max_num_seqs=64, max_num_batched_tokens=4096, kv_blocks=4096, block_size=16,
    max_model_len=4096,
)  # fmt: skip
FLAT = StepLaw(
    weights_ms=100.0, gemm_us_per_token=0.0, kv_ns_per_token=0.0, pair_ns=0.0
)
"""Every step lasts 0.1 s."""
LINEAR = replace(FLAT, gemm_us_per_token=1000.0)
"""And a millisecond for each token."""


def rate(law: StepLaw = FLAT, longest: float = inf, **limits: int) -> float:
    """Return what an engine keeps up with, of 100 tokens in and 50 out."""
    return capacity(
        law, replace(LIMITS, **limits), prompt=100.0, answer=50.0,
        longest_step_s=longest,
    )  # fmt: skip


def test_each_bound_by_hand() -> None:
    """64 places for 50 steps of 0.1 s; three tokens of budget each; 125 of cache."""
    assert rate() == pytest.approx(64 / 50 / 0.1)
    assert rate(max_num_batched_tokens=96) == pytest.approx(32 / 50 / 0.1)
    assert rate(kv_blocks=256) == pytest.approx(256 * 16 / 125 / 50 / 0.1)


def test_limit_on_a_step_limits_the_batch() -> None:
    """Three tokens for each of a batch: 20 of them take 0.16 s, and 64 take 0.292 s."""
    assert rate(LINEAR) == pytest.approx(64 / 50 / 0.292, rel=0.01)
    assert rate(LINEAR, 0.16) == pytest.approx(20 / 50 / 0.16, rel=0.05)
    assert rate(LINEAR, 0.001) == pytest.approx(1 / 50 / 0.103, rel=0.01)


def test_estimate_of_the_machine_is_near_its_offline_rate() -> None:
    """Llama-2-70B with MLPerf's means: 217 requests/s are what a VM does at length."""
    machine = load_preset("azure-nd-gb300-v6", "llama-2-70b")
    whole = 4 * capacity(
        machine.law, machine.limits, prompt=222.7, answer=273.4, longest_step_s=inf
    )
    assert whole == pytest.approx(225, rel=0.05)
