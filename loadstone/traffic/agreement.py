"""How far two endpoints' answers to the same prompts agree, and how sure that is.

Three measures, from strict to lenient, each 0 to 1:

exact   the answers are the same, white space aside
prefix  the share of the longer answer's words before the first that differs
f1      token overlap: harmonic mean of the shares of each answer's words that the other
        has too, as often (the F1 of SQuAD)

None says whether an answer is right. At temperature 0 and with a fixed seed an engine
still differs from itself: batches are put together differently, sums round differently,
and one other word changes all that follow. So one endpoint is asked twice, and its
agreement with itself is the ceiling that the other's is to be read against.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from random import Random
from typing import Any, Final

from ..units import Seconds, Tokens

CONFIDENCE: Final = 0.95
_Z: Final = 1.959963984540054
"""Of the normal distribution, for 95 %."""
RESAMPLES: Final = 2000
MEASURES: Final = ("exact", "prefix", "f1")
LIMITS: Final = (
    "agreement is not quality: neither answer is known to be right",
    "an engine differs from itself at temperature 0; read it against `itself`",
    "one request at a time: speed and batching under load may differ",
    "words are split at white space and punctuation, not by the model's tokenizer",
)
_WORD: Final = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Return the words and marks of a text."""
    return _WORD.findall(text)


def exact(a: str, b: str) -> float:
    """Return 1 if two answers are the same but for white space, else 0."""
    return float(a.split() == b.split())


def prefix(a: str, b: str) -> float:
    """Return the share of the longer answer that is the same from the beginning."""
    left, right = words(a), words(b)
    longest = max(len(left), len(right))
    same = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        same += 1
    return same / longest if longest else 1.0


def f1(a: str, b: str) -> float:
    """Return the overlap of two answers' words, whatever their order."""
    left, right = Counter(words(a)), Counter(words(b))
    total = left.total() + right.total()
    return 2 * (left & right).total() / total if total else 1.0


_HOW: Final = {"exact": exact, "prefix": prefix, "f1": f1}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and how long it took; None where it was not streamed."""

    text: str
    output_tokens: Tokens = 0
    ttft_s: Seconds | None = None
    tpot_s: Seconds | None = None
    e2e_s: Seconds | None = None


def agreement(pairs: Sequence[tuple[str, str]], seed: int) -> dict[str, Any]:
    """Return each measure over pairs of answers: mean, and its interval of 95 %.

    For shares of yes and no the interval is Wilson's; for the others a percentile
    bootstrap over prompts, drawn from `seed`.
    """
    told: dict[str, Any] = {"n": len(pairs)}
    for name, how in _HOW.items():
        values = [how(a, b) for a, b in pairs]
        if not values:
            told[name] = {"mean": None, "interval": None}
            continue
        mean = sum(values) / len(values)
        low, high = (
            wilson(round(sum(values)), len(values))
            if name == "exact"
            else bootstrap(values, Random(f"{seed}/{name}"))
        )
        told[name] = {"mean": mean, "interval": [low, high]}
    return told


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return Wilson's interval of a share of `hits` in `n`."""
    share, square = hits / n, _Z * _Z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = _Z * sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(values: Sequence[float], rng: Random) -> tuple[float, float]:
    """Return the middle 95 % of means of values drawn again with replacement."""
    n = len(values)
    means = sorted(sum(rng.choices(values, k=n)) / n for _ in range(RESAMPLES))
    tail = (1 - CONFIDENCE) / 2
    return means[int(tail * RESAMPLES)], means[int((1 - tail) * RESAMPLES) - 1]


def speed(
    pairs: Sequence[tuple[Answer, Answer]], seed: int
) -> dict[str, dict[str, Any] | None]:
    """Return how many times as fast the second is, prompt by prompt.

    The geometric mean of the ratios of each pair, with its bootstrap interval: above 1
    the second is faster. None where no pair has both times.
    """
    told: dict[str, dict[str, Any] | None] = {}
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        logs = [
            log(one / other)
            for a, b in pairs
            if (one := getattr(a, name)) and (other := getattr(b, name))
        ]
        if not logs:
            told[name] = None
            continue
        low, high = bootstrap(logs, Random(f"{seed}/{name}"))
        told[name] = {
            "ratio": exp(sum(logs) / len(logs)), "interval": [exp(low), exp(high)],
            "n": len(logs),
        }  # fmt: skip
    return told


def compare(
    first: Sequence[Answer | None],
    again: Sequence[Answer | None],
    second: Sequence[Answer | None],
    *,
    seed: int,
) -> dict[str, Any]:
    """Return `agreement.json`'s figures of answers to the same prompts, in order.

    `again` are the first endpoint's, asked a second time. A prompt counts if all three
    answered it.
    """
    whole = [
        (a, b, c)
        for a, b, c in zip(first, again, second, strict=True)
        if a is not None and b is not None and c is not None
    ]
    lengths: Mapping[str, list[int]] = {
        "a": [a.output_tokens for a, _, _ in whole],
        "b": [c.output_tokens for _, _, c in whole],
    }
    return {
        "prompts": len(first),
        "answered": len(whole),
        "each_other": agreement([(a.text, c.text) for a, _, c in whole], seed),
        "itself": agreement([(a.text, b.text) for a, b, _ in whole], seed),
        "speed": speed([(a, c) for a, _, c in whole], seed),
        "output_tokens": {
            name: sum(n) / len(n) if n else None for name, n in lengths.items()
        },
        "confidence": CONFIDENCE,
        "limits": list(LIMITS),
    }
