"""KV capacity: what the reference computed, and the edge where nothing fits."""

from dataclasses import replace

import pytest

from loadstone.physics.memory import KvBudget

GB = 1e9
BUDGET = KvBudget(
    hbm_bytes=1000.0,
    weight_bytes=500.0,
    activation_bytes=100.0,
    kv_bytes_per_token=4.0,
    fraction=0.95,
)


def test_capacity_by_hand() -> None:
    """0.95 x (1000 - 500 - 100) / 4 = 95 tokens, and whole blocks of them."""
    assert BUDGET.tokens == 95
    assert [BUDGET.blocks(size) for size in (1, 16, 19, 95, 96)] == [95, 5, 5, 1, 0]


@pytest.mark.parametrize(
    ("hbm_gb", "tokens"),
    [pytest.param(186.0, 813e3, id="GB200"), pytest.param(298.0, 1.46e6, id="GB300")],
)
def test_published_capacities(hbm_gb: float, tokens: float) -> None:
    """The reference's KV capacities of a 70B model in FP4 with an FP8 cache."""
    budget = KvBudget(
        hbm_bytes=hbm_gb * GB,
        weight_bytes=39.7 * GB,
        activation_bytes=6 * GB,
        kv_bytes_per_token=163_840,
        fraction=0.95,
    )
    assert budget.tokens == pytest.approx(tokens, rel=0.003)


@pytest.mark.parametrize("activation_bytes", [500.0, 600.0])
def test_weights_that_fill_the_memory_are_an_error(activation_bytes: float) -> None:
    """With not a byte left, or less, there is nothing to serve from."""
    with pytest.raises(ValueError, match=r"0\.0 GB of weights do not fit"):
        _ = replace(BUDGET, activation_bytes=activation_bytes).tokens


def test_the_last_bytes_are_used() -> None:
    """Eight bytes of room are one token at 95 %: capacity is rounded down."""
    assert replace(BUDGET, activation_bytes=492.0).tokens == 1
    assert replace(BUDGET, activation_bytes=496.0).tokens == 0
