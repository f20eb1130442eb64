"""Limits under which no engine could serve are refused; the last that can is not."""

import pytest

from loadstone.errors import NotModelledError, UsageError
from loadstone.physics.limits import EngineLimits

LEAST = {
    "max_num_seqs": 1,
    "max_num_batched_tokens": 1,
    "kv_blocks": 1,
    "block_size": 1,
    "max_model_len": 1,
}


def test_the_smallest_engine() -> None:
    """One sequence of one token in one block."""
    assert EngineLimits(**LEAST).max_num_seqs == 1


@pytest.mark.parametrize(
    "name", ["max_num_seqs", "kv_blocks", "block_size", "max_model_len"]
)
@pytest.mark.parametrize("value", [0, -1])
def test_below_one_is_refused(name: str, value: int) -> None:
    """And the message names the limit and the value."""
    with pytest.raises(UsageError, match=f"{name} must be at least 1, not {value}"):
        EngineLimits(**(LEAST | {name: value}))


def test_budget_holds_a_full_batch() -> None:
    """Every running sequence needs a token of the budget in every step."""
    full = LEAST | {"max_num_seqs": 8}
    assert EngineLimits(**(full | {"max_num_batched_tokens": 8})).max_num_seqs == 8
    with pytest.raises(UsageError, match=r"\(7\) is below max_num_seqs \(8\)"):
        EngineLimits(**(full | {"max_num_batched_tokens": 7}))


def test_cache_holds_the_longest_sequence() -> None:
    """One that could never be held would be preempted for ever."""
    pool = LEAST | {"kv_blocks": 3, "block_size": 4}
    assert EngineLimits(**(pool | {"max_model_len": 12})).max_model_len == 12
    with pytest.raises(NotModelledError, match=r"\(13\) .* \(12 tokens\)"):
        EngineLimits(**(pool | {"max_model_len": 13}))
