"""The grammar of a sweep: lists, factors, steps, and where one is wrong."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import UsageError
from loadstone.traffic.sweep import MOST_STEPS, Sweep


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("rate=1,2,4,8", (1, 2, 4, 8)),
        ("rate=8,1,0.5", (8, 1, 0.5)),
        ("users=1:256:x2", (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        ("users=1:10:x1.5", (1, 2, 3, 5, 8)),
        ("rate=5:50:+15", (5, 20, 35, 50)),
        ("rate=5:49:+15", (5, 20, 35)),
        ("rate=0.1:0.3:+0.1", (0.1, 0.2, 0.3)),
        ("rate=1,2:8:x2,20", (1, 2, 4, 8, 20)),
        ("rate=3:3:x2", (3,)),
    ],
)
def test_sweeps_by_hand(text: str, steps: tuple[float, ...]) -> None:
    """In the order they are written in; the end of a range belongs to it."""
    sweep = Sweep.parse(text)
    assert sweep.what == text.partition("=")[0]
    assert sweep.steps == pytest.approx(steps)


@pytest.mark.parametrize(
    ("text", "at", "why"),
    [
        ("speed=1", 1, "'speed' is neither rate nor users"),
        ("1,2,4", 1, "'1,2,4' is neither rate nor users"),
        ("rate=", 6, "'' is not a number"),
        ("rate=1,2,x", 10, "'x' is not a number"),
        ("rate=1,,2", 8, "'' is not a number"),
        ("rate=1,-2", 8, "-2 is not above 0"),
        ("rate=inf", 6, "inf is not above 0 and finite"),
        ("rate=nan", 6, "nan is not above 0 and finite"),
        ("users=1,1.5", 9, "'1.5' is not a whole number"),
        ("users=1:8", 7, "'1:8' is not LOW:HIGH:xF or LOW:HIGH:+S"),
        ("users=8:1:x2", 9, "a range from 8 does not end at 1"),
        ("users=1:8:2", 11, "'2' is neither xF (a factor) nor +S (a step)"),
        ("users=1:8:x1", 12, "a factor is above 1, not 1"),
        ("users=1:8:x", 12, "'' is not a number"),
        ("rate=1:9:+0", 11, "0 is not above 0"),
        ("rate=1:9:", 10, "'' is neither xF"),
        ("rate=1:1000:+1", 6, f"steps, of {MOST_STEPS} at most"),
        ("rate=1,2,1", 6, "1 is there twice"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, at: int, why: str) -> None:
    """Counted from 1, so that it can be found."""
    with pytest.raises(UsageError) as wrong:
        Sweep.parse(text)
    assert f"--sweep {text}: at character {at}: " in wrong.value.message
    assert why in wrong.value.message
    assert "write rate=1,2,4,8" in wrong.value.hint


@given(st.floats(0.01, 1000.0), st.floats(1.0, 50.0), st.floats(1.1, 4.0))
def test_a_geometric_range_is_one(low: float, times: float, factor: float) -> None:
    """From the low end, every step by the factor, none beyond the high end."""
    high = low * times
    steps = Sweep.parse(f"rate={low!r}:{high!r}:x{factor!r}").steps
    assert steps[0] == low
    assert max(steps) <= high < steps[-1] * factor * (1 + 1e-8)
    for a, b in pairwise(steps):
        assert b / a == pytest.approx(factor)


@given(st.text(max_size=20))
def test_any_other_text_is_refused_in_words(text: str) -> None:
    """Nothing else is ever raised."""
    for given_text in (text, f"rate={text}", f"users={text}"):
        try:
            sweep = Sweep.parse(given_text)
        except UsageError:
            continue
        assert 1 <= len(sweep.steps) <= MOST_STEPS
        assert all(step > 0 for step in sweep.steps)
