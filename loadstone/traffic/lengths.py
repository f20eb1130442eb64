"""How long prompts and answers are: distributions given by their quantiles."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Self, TypeAlias

from ..errors import CatalogError
from ..units import Tokens, is_whole
from .fields import Kind


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of token counts: `tokens[i]` is its quantile at `levels[i]`.

    Between levels it is taken as uniform. `levels` rise from 0 to 1, `tokens` never
    fall.
    """

    levels: tuple[float, ...]
    tokens: tuple[Tokens, ...]

    def __post_init__(self) -> None:
        """Refuse tables that are not a distribution of positive lengths."""
        rising = all(a < b for a, b in zip(self.levels, self.levels[1:], strict=False))
        falling = any(a > b for a, b in zip(self.tokens, self.tokens[1:], strict=False))
        ends = self.levels[:1] == (0.0,) and self.levels[-1:] == (1.0,)
        same = len(self.levels) == len(self.tokens)
        if not (rising and ends and same) or falling or min(self.tokens) < 1:
            raise CatalogError(
                "a length table needs rising levels 0..1 and tokens >= 1"
            )

    @classmethod
    def between(cls, low: Tokens, high: Tokens) -> Self:
        """Return the uniform distribution; of one value if both are equal."""
        return cls((0.0, 1.0), (low, high))

    def at(self, level: float) -> Tokens:
        """Return the quantile at `level`, 0 to 1."""
        i = min(max(bisect_left(self.levels, level), 1), len(self.levels) - 1)
        low, high = self.levels[i - 1], self.levels[i]
        a, b = self.tokens[i - 1], self.tokens[i]
        return round(a + (level - low) / (high - low) * (b - a))

    def draw(self, rng: Random) -> Tokens:
        """Draw one length."""
        return self.at(rng.random())

    @property
    def mean(self) -> float:
        """The mean of the distribution, in tokens."""
        return sum(
            (self.levels[i] - self.levels[i - 1])
            * (self.tokens[i] + self.tokens[i - 1])
            / 2
            for i in range(1, len(self.levels))
        )

    @property
    def most(self) -> Tokens:
        """The longest there may be."""
        return self.tokens[-1]


LengthSpec: TypeAlias = str | tuple[int, int]
"""A table of the catalog by its name, or the least and the most."""


def resolve(spec: LengthSpec, named: Callable[[str], Lengths]) -> Lengths:
    """Return the distribution that is meant; `named` finds a table by its name."""
    return named(spec) if isinstance(spec, str) else Lengths.between(*spec)


def _read_spec(value: Any) -> LengthSpec:
    if isinstance(value, str) and value:
        return value
    low, high = value if isinstance(value, list | tuple) else (value, value)
    for each in (low, high):
        if not is_whole(each):
            raise ValueError(value)
    if not 1 <= low <= high:
        raise ValueError(value)
    return low, high


_NUMBER: Final = {"type": "integer", "minimum": 1}
_PAIR: Final = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}
NUMBERS: Final = Kind(
    "a number, or two for the least and the most, such as [2, 6]",
    lambda value: _read_spec(None if isinstance(value, str) else value),
    {"oneOf": [_NUMBER, _PAIR]},
)
"""A count that is drawn: one number, or the least and the most."""
LENGTHS: Final = Kind(
    "a length: a number, two such as [100, 400], or the name of a table of the catalog",
    _read_spec,
    {"oneOf": [*NUMBERS.schema["oneOf"], {"type": "string", "minLength": 1}]},
)
