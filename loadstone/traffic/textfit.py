"""How much text makes how many tokens on an endpoint, fitted on what its replies count.

A reply's `usage.prompt_tokens` against the characters that were sent is one point. Over
texts of several lengths the points lie on a line: what the chat template adds, and so
many characters to a token. From two points on that line is fitted by least squares, and
text is then drawn to the length that is asked for. It holds for text like ours (English
filler); `worst` says how far the fit itself was off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, NamedTuple

from ..units import Tokens

_OWN_CHARS: Final = 4
"""Characters of the filler's tokens, by the mock's rule (`wire.tokens`)."""
_LEAST_CHARS: Final = 0.5
_MOST_CHARS: Final = 20.0
"""No tokenizer is beyond: what counts so is counting something else."""


class Point(NamedTuple):
    """One reply: characters that were sent, and prompt tokens that were counted."""

    chars: int
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class TextFit:
    """`tokens = template_tokens + chars / chars_per_token`.

    `n` points were fitted, and the worst of them is off by the share `worst`; a rule
    that was not fitted has neither.
    """

    chars_per_token: float
    template_tokens: float
    n: int = 0
    worst: float | None = None

    def tokens(self, chars: int) -> float:
        """Return how many tokens a prompt of so many characters should count."""
        return self.template_tokens + chars / self.chars_per_token

    def filler(self, tokens: Tokens, template: Tokens) -> Tokens:
        """Return how many tokens of filler, by its own rule, make a prompt of `tokens`.

        `template` is what the mock's rule adds; a fitted endpoint adds its own. Never
        negative: a template alone may be longer than what is asked for.
        """
        if self == OWN_RULE:
            return max(0, tokens - template)
        chars = (tokens - self.template_tokens) * self.chars_per_token
        return max(0, round(chars / _OWN_CHARS))

    def to_json(self) -> dict[str, Any]:
        """Return the fit as the summary has it."""
        return {
            "chars_per_token": self.chars_per_token,
            "template_tokens": self.template_tokens,
            "n": self.n,
            "worst": self.worst,
        }


OWN_RULE: Final = TextFit(float(_OWN_CHARS), 1.0)
"""The mock's rule, exact there: four characters to a token, one for the template."""


def fit_text(points: Sequence[Point]) -> TextFit | None:
    """Fit a line through points; None where they do not make one.

    At least two different lengths are needed, and a slope that a tokenizer can have. A
    template cannot be negative: then the line goes through the origin.
    """
    n = len(points)
    if len({point.chars for point in points}) < 2:
        return None
    mean_x = sum(p.chars for p in points) / n
    mean_y = sum(p.tokens for p in points) / n
    spread = sum((p.chars - mean_x) ** 2 for p in points)
    slope = sum((p.chars - mean_x) * (p.tokens - mean_y) for p in points) / spread
    template = mean_y - slope * mean_x
    if template < 0:
        slope = sum(p.chars * p.tokens for p in points) / sum(
            p.chars**2 for p in points
        )
        template = 0.0
    if not 1 / _MOST_CHARS <= slope <= 1 / _LEAST_CHARS:
        return None
    line = TextFit(1 / slope, template, n)
    worst = max(abs(line.tokens(p.chars) / p.tokens - 1) for p in points if p.tokens)
    return TextFit(line.chars_per_token, line.template_tokens, n, worst)


def lengths_to_try(longest: Tokens) -> tuple[int, ...]:
    """Return the characters of the texts to calibrate on: short, middle, long.

    As long as the workload's own prompts are at most, but of bounded cost.
    """
    top = min(max(longest, 64), 1024) * _OWN_CHARS
    return tuple(ceil(top / share) for share in (16, 4, 1))
