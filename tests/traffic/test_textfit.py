"""Characters and tokens: the line through the first replies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.traffic.textfit import (
    OWN_RULE,
    Point,
    TextFit,
    fit_text,
    lengths_to_try,
)


def test_by_hand() -> None:
    """Two points, one line: 3.5 characters to a token and 8 tokens of template."""
    fit = fit_text([Point(70, 28), Point(700, 208)])
    assert fit is not None
    assert (fit.chars_per_token, fit.template_tokens) == (
        pytest.approx(3.5), pytest.approx(8.0),
    )  # fmt: skip
    assert (fit.n, fit.worst) == (2, pytest.approx(0.0))
    assert fit.tokens(350) == pytest.approx(108)
    # 100 tokens: 92 of text, 322 characters, which is 80.5 words of four.
    assert fit.filler(100, 1) == 80


def test_least_squares_by_hand() -> None:
    """Three points off a line: slope 0.25, template 10/3, the worst off by 1 in 4."""
    fit = fit_text([Point(0, 4), Point(4, 3), Point(8, 6)])
    assert fit is not None
    assert fit.chars_per_token == pytest.approx(4.0)
    assert fit.template_tokens == pytest.approx(10 / 3)
    assert fit.worst == pytest.approx((10 / 3 + 1) / 3 - 1)


@pytest.mark.parametrize(
    "points",
    [
        [],
        [Point(100, 25)],
        [Point(100, 25), Point(100, 26)],
        [Point(100, 30), Point(400, 30)],  # no slope: it counts something else
        [Point(100, 1000), Point(400, 9000)],
        [Point(400, 10), Point(100, 90)],
    ],
)
def test_what_makes_no_line(points: list[Point]) -> None:
    """Too little, or what no tokenizer does."""
    assert fit_text(points) is None


def test_a_template_is_never_negative() -> None:
    """The line then goes through the origin."""
    fit = fit_text([Point(100, 20), Point(400, 110)])
    assert fit is not None
    assert fit.template_tokens == 0
    assert fit.chars_per_token == pytest.approx((100**2 + 400**2) / (2000 + 44000))


def test_the_own_rule_is_exact() -> None:
    """Four characters a token, and what the API's template has."""
    assert OWN_RULE.filler(100, 1) == 99
    assert OWN_RULE.filler(100, 0) == 100
    assert OWN_RULE.filler(0, 1) == 0


@given(
    chars=st.floats(0.6, 15), template=st.floats(0, 300), tokens=st.integers(1, 100_000)
)
def test_text_is_drawn_to_the_length_asked_for(
    chars: float, template: float, tokens: int
) -> None:
    """To within half a word of filler, where the template leaves room for any."""
    fit = TextFit(chars, template)
    filler = fit.filler(tokens, 1)
    assert filler >= 0
    if tokens > template + 4 / chars:
        assert abs(fit.tokens(4 * filler) - tokens) <= 2 / chars + 1e-6


@given(chars=st.floats(0.6, 15), template=st.floats(0, 300))
def test_a_tokenizer_is_found_again(chars: float, template: float) -> None:
    """From whole counts over the lengths that are tried, to within a few percent."""
    real = TextFit(chars, template)
    points = [Point(n, round(real.tokens(n))) for n in lengths_to_try(512)]
    fit = fit_text(points)
    assert fit is not None
    assert fit.chars_per_token == pytest.approx(chars, rel=0.02)
    assert fit.template_tokens == pytest.approx(template, abs=2.0)


def test_lengths_that_are_tried_are_bounded() -> None:
    """Neither too short to see the slope, nor a long prompt's price."""
    assert lengths_to_try(0) == lengths_to_try(64) == (16, 64, 256)
    assert lengths_to_try(1 << 20) == (256, 1024, 4096)
