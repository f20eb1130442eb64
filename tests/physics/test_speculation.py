"""The token clock of speculative decoding, and what it refuses."""

from dataclasses import replace
from fractions import Fraction
from math import floor, nan, nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import NotModelledError, UsageError
from loadstone.physics.limits import EngineLimits
from loadstone.physics.speculation import PLAIN, Speculation

speculations = st.integers(0, 8).flatmap(
    lambda drafts: st.floats(1.0, 1.0 + drafts).map(lambda a: Speculation(a, drafts))
)


@given(speculations, st.integers(0, 10**9))
def test_clock_is_the_exact_floor(speculation: Speculation, steps: int) -> None:
    """No rounding of its own, however long it runs; at least a token in each step."""
    clock = speculation.clock(steps)
    assert clock == floor(Fraction(speculation.accepted) * steps)
    advance = speculation.clock(steps + 1) - clock
    assert 1 <= advance <= speculation.longest <= speculation.verified


@given(speculations, st.integers(0, 10**9))
def test_steps_to_is_the_first_step_that_is_enough(
    speculation: Speculation, clock: int
) -> None:
    """One step fewer is not."""
    steps = speculation.steps_to(clock)
    assert speculation.clock(steps) >= clock
    assert steps == 0 or speculation.clock(steps - 1) < clock


def test_plain_is_a_token_a_step() -> None:
    """The clock is the number of steps."""
    assert [PLAIN.clock(n) for n in range(5)] == [0, 1, 2, 3, 4]
    assert (PLAIN.verified, PLAIN.longest) == (1, 1)


@pytest.mark.parametrize(
    ("accepted", "drafts", "right"),
    [
        (1.0, 0, True),
        (nextafter(1.0, 2.0), 0, False),
        (nextafter(1.0, 0.0), 3, False),
        (4.0, 3, True),
        (nextafter(4.0, 5.0), 3, False),
        (nan, 3, False),
        (1.0, -1, False),
    ],
)
def test_acceptance_length_lies_between_none_and_all(
    *, accepted: float, drafts: int, right: bool
) -> None:
    """From 1, no draft was right, to 1 + drafts, all were."""
    if right:
        assert Speculation(accepted, drafts).accepted == accepted
        return
    with pytest.raises(UsageError, match="acceptance length") as no:
        Speculation(accepted, drafts)
    assert "from 1" in (no.value.hint or "")


LIMITS = EngineLimits(
    max_num_seqs=4, max_num_batched_tokens=16, kv_blocks=7, block_size=4,
    max_model_len=23,
)  # fmt: skip


def test_limits_must_have_room_for_drafts() -> None:
    """A full batch verifies 4 x 4 tokens; 23 + 2 + 3 tokens fill seven blocks."""
    drafts = Speculation(2.4, 3)
    drafts.check(LIMITS)
    PLAIN.check(replace(LIMITS, max_model_len=28, max_num_batched_tokens=4))
    with pytest.raises(UsageError, match=r"\(15\) is below 16: 4 sequences verify 4"):
        drafts.check(replace(LIMITS, max_num_batched_tokens=15))
    with pytest.raises(NotModelledError, match=r"\(24\) and drafts are 29 tokens"):
        drafts.check(replace(LIMITS, max_model_len=24))
