"""A figure and its birth certificate."""

from dataclasses import dataclass
from typing import Final

CONFIDENCE: Final = ("official", "vendor", "third_party", "derived", "assumed")
"""official: published by MLCommons; vendor: by the maker or operator about its own
product; third_party: by somebody else; derived: computed from such values; assumed: our
choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A value, its unit, source, date, confidence; `low`, `high` bound it if known."""

    value: float
    unit: str
    source: str
    date: str
    confidence: str
    note: str = ""
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        """Refuse facts without provenance, or outside their own bounds."""
        if self.confidence not in CONFIDENCE:
            raise ValueError(f"confidence {self.confidence!r} is none of {CONFIDENCE}")
        if not (self.source and self.date and self.unit):
            raise ValueError("a fact needs a unit, a source and a date")
        if self.low is None and self.high is None:
            return
        if (
            self.low is None
            or self.high is None
            or not (self.low <= self.value <= self.high)
        ):
            raise ValueError("low and high come together, with the value between")
