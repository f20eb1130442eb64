"""Agreement of answers: each measure by hand, and how sure it is."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.traffic.agreement import (
    Answer,
    agreement,
    bootstrap,
    compare,
    exact,
    f1,
    prefix,
    speed,
    wilson,
    words,
)


@pytest.mark.parametrize(
    ("a", "b", "same", "begins", "overlap"),
    [
        ("", "", 1, 1, 1),
        ("a b c", "a b c", 1, 1, 1),
        ("a  b\nc", "a b c", 1, 1, 1),
        ("a b c", "a b d", 0, 2 / 3, 2 / 3),
        ("a b c", "c b a", 0, 0, 1),  # the middle one is not reached
        ("a b", "a b c d", 0, 1 / 2, 2 / 3),
        ("a a b", "a b b", 0, 1 / 3, 2 / 3),
        ("", "a", 0, 0, 0),
        ("x y", "a b", 0, 0, 0),
        ("Paris.", "Paris!", 0, 1 / 2, 1 / 2),
    ],
)
def test_measures_by_hand(
    a: str, b: str, same: float, begins: float, overlap: float
) -> None:
    """Strict to lenient, and the same whichever answer comes first."""
    for one, other in ((a, b), (b, a)):
        assert exact(one, other) == same
        assert prefix(one, other) == pytest.approx(begins)
        assert f1(one, other) == pytest.approx(overlap)


def test_words() -> None:
    """At white space and marks, in any script."""
    assert words("It's 3.5 né") == ["It", "'", "s", "3", ".", "5", "né"]


texts = st.text(alphabet="ab .", max_size=20)


@given(texts, texts)
def test_order_of_strictness(a: str, b: str) -> None:
    """Whoever is exact begins alike, and who begins alike overlaps."""
    assert 0 <= exact(a, b) <= prefix(a, b) <= f1(a, b) + 1e-12 <= 1 + 1e-12


def test_wilson_by_hand() -> None:
    """8 of 10: 0.490 to 0.943, as tables have it; never outside 0 to 1."""
    low, high = wilson(8, 10)
    assert (low, high) == (
        pytest.approx(0.4902, abs=1e-4),
        pytest.approx(0.9433, abs=1e-4),
    )
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0


def test_bootstrap() -> None:
    """Of values without spread a point; of others about 1.96 standard errors."""
    assert bootstrap([0.5] * 9, Random(1)) == (0.5, 0.5)
    rng = Random(2)
    values = [rng.gauss(10, 2) for _ in range(400)]
    low, high = bootstrap(values, Random(3))
    mean = sum(values) / 400
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.15)


def test_agreement_of_pairs() -> None:
    """Mean and interval of each measure; of no pairs there is none."""
    told = agreement([("a", "a")] * 8 + [("a", "b")] * 2, seed=0)
    assert told["n"] == 10
    assert told["exact"]["mean"] == told["f1"]["mean"] == 0.8
    assert told["exact"]["interval"] == list(wilson(8, 10))
    assert told == agreement([("a", "a")] * 8 + [("a", "b")] * 2, seed=0)
    assert agreement([], 0)["exact"] == {"mean": None, "interval": None}


def test_speed_is_paired() -> None:
    """Twice as fast on every prompt is 2, whatever the prompts' own lengths."""
    pairs = [
        (Answer("", 1, t, None, 4 * t), Answer("", 1, t / 2, None, t)) for t in (1, 9)
    ]
    told = speed(pairs, 0)
    assert told["ttft_s"] == {
        "ratio": pytest.approx(2), "interval": [pytest.approx(2)] * 2, "n": 2,
    }  # fmt: skip
    assert told["e2e_s"] is not None
    assert told["e2e_s"]["ratio"] == pytest.approx(4)
    assert told["tpot_s"] is None


def test_a_prompt_counts_if_all_answered() -> None:
    """What failed anywhere is left out everywhere, and said."""
    a, b = Answer("x", 2), Answer("y", 4)
    told = compare([a, a, None], [a, None, a], [b, b, b], seed=0)
    assert (told["prompts"], told["answered"]) == (3, 1)
    assert told["each_other"]["exact"]["mean"] == 0
    assert told["itself"]["exact"]["mean"] == 1
    assert told["output_tokens"] == {"a": 2, "b": 4}
    assert len(told["limits"]) >= 3
