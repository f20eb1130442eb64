"""How long prompts and answers are: distributions given by their quantiles."""

from bisect import bisect_left
from dataclasses import dataclass
from random import Random

from ..errors import CatalogError
from ..units import Tokens


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
