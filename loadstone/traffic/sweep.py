"""The loads of a sweep as they are written: `rate=1,2,4,8`, `users=1:256:x2`.

A sweep is `WHAT=` and, between commas, loads or ranges of them: `LOW:HIGH:xF` goes from
LOW by the factor F as far as HIGH, `LOW:HIGH:+S` in steps of S. They are tried in the
order they are written in.
"""

from dataclasses import dataclass
from typing import Final, Literal

from ..errors import UsageError

MOST_STEPS: Final = 100
_ROUND: Final = 1e-9
"""A range that meets its end but for rounding has it."""
_EXAMPLE: Final = "write rate=1,2,4,8, users=1:256:x2 or rate=5:50:+5"

What = Literal["rate", "users"]


@dataclass(frozen=True, slots=True)
class Sweep:
    """Rates in requests/s, or whole numbers of users, in the order to try them in."""

    what: What
    steps: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> "Sweep":
        """Read one; raises `UsageError` saying at which character it is wrong."""
        reader = _Reader(text)
        what, found, loads = text.partition("=")
        if not found or what not in ("rate", "users"):
            raise reader.wrong(0, f"{what!r} is neither rate nor users")
        at, steps = len(what) + 1, list[float]()
        for part in loads.split(","):
            steps += reader.part(at, part, whole=what == "users")
            at += len(part) + 1
        if len(steps) > MOST_STEPS:
            raise reader.wrong(
                len(what) + 1, f"{len(steps)} steps, of {MOST_STEPS} at most"
            )
        for i, step in enumerate(steps):
            if step in steps[:i]:
                raise reader.wrong(len(what) + 1, f"{step:g} is there twice")
        return cls("rate" if what == "rate" else "users", tuple(steps))


@dataclass(frozen=True, slots=True)
class _Reader:
    text: str

    def wrong(self, at: int, why: str) -> UsageError:
        """Return the error that something is wrong at the character of index `at`."""
        return UsageError(
            f"--sweep {self.text}: at character {at + 1}: {why}", hint=_EXAMPLE
        )

    def part(self, at: int, part: str, *, whole: bool) -> list[float]:
        """Read a load or a range of them."""
        fields = part.split(":")
        if len(fields) == 1:
            return [self._number(at, part, whole=whole)]
        if len(fields) != 3:
            raise self.wrong(at, f"{part!r} is not LOW:HIGH:xF or LOW:HIGH:+S")
        low = self._number(at, fields[0], whole=whole)
        after = at + len(fields[0]) + 1
        high = self._number(after, fields[1], whole=whole)
        if high < low:
            raise self.wrong(after, f"a range from {low:g} does not end at {high:g}")
        steps = self._range(after + len(fields[1]) + 1, fields[2], low, high)
        # Users are counted: 1, 1.5 and 2.25 of them are 1 and 2.
        return list(dict.fromkeys(map(float, map(round, steps)))) if whole else steps

    def _range(self, at: int, step: str, low: float, high: float) -> list[float]:
        if step[:1] not in ("x", "+"):
            raise self.wrong(at, f"{step!r} is neither xF (a factor) nor +S (a step)")
        by = self._number(at + 1, step[1:], whole=False)
        if step[0] == "x" and by <= 1.0:
            raise self.wrong(at + 1, f"a factor is above 1, not {by:g}")
        steps, value = [low], low
        while len(steps) <= MOST_STEPS:
            value = value * by if step[0] == "x" else value + by
            if value > high * (1.0 + _ROUND):
                break
            steps.append(min(value, high))
        return steps

    def _number(self, at: int, text: str, *, whole: bool) -> float:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            kind = "whole number" if whole else "number"
            raise self.wrong(at, f"{text!r} is not a {kind}") from None
        if not 0.0 < value < float("inf"):
            raise self.wrong(at, f"{text} is not above 0 and finite")
        return float(value)
