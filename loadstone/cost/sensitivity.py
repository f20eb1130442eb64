"""How much each assumption matters: one at a time, up and down by the same share.

Not an uncertainty: 20 % is the same for all, so that they can be put in order. What an
assumption is known to (`low`, `high`) stands beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .bill import Busy, bill_of
from .block import Fleet, headline
from .energy import energy_of
from .terms import TERMS, Tariff
from .usage import Usage

SHARE: Final = 0.2
FIGURES: Final = (
    "usd_per_million_output_tokens", "joules_per_output_token",
    "gco2_per_output_token",
)  # fmt: skip
_BUSY: Final = "busy_share"
_STILL: Final = 1e-12
"""A relative change below which a figure is taken not to have moved."""

Figures = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Swing:
    """A bar of a tornado: a figure with one assumption `share` lower, and higher."""

    figure: str
    assumption: str
    text: str
    value: float
    unit: str
    at_low: float
    at_base: float
    at_high: float

    @property
    def swing(self) -> float:
        """How far apart the two ends are, as a share of the figure."""
        return abs(self.at_high - self.at_low) / abs(self.at_base)


def sensitivity(
    usage: Usage, fleet: Fleet, *, window_s: float, busy: Busy, share: float = SHARE
) -> list[Swing]:
    """Return every assumption that moves a figure, the widest first in each.

    The busy time counts as one: without a server's word it is only bounded.
    """

    def at(tariff: Tariff, factor: float = 1.0) -> Figures:
        varied = Busy(busy.seconds * factor, busy.source)
        bill = bill_of(usage, tariff, vms=fleet.vms, window_s=window_s, busy=varied)
        return headline(usage, bill, energy_of(tariff, fleet.vms, bill))

    base, tariff, found = at(fleet.tariff), fleet.tariff, list[Swing]()
    for name, fact in tariff.facts.items():
        ends = (at(tariff.varied(name, 1 - share)), at(tariff.varied(name, 1 + share)))
        found += _swings(base, ends, (name, TERMS[name].text, fact.value, fact.unit))
    busy_share = busy.seconds / window_s if window_s else 0.0
    found += _swings(
        base,
        (at(tariff, 1 - share), at(tariff, 1 + share)),
        (_BUSY, f"share of the time that is busy ({busy.source})", busy_share, "1"),
    )
    return sorted(found, key=lambda one: (FIGURES.index(one.figure), -one.swing))


def _swings(
    base: Figures, ends: tuple[Figures, Figures], about: tuple[str, str, float, str]
) -> list[Swing]:
    low, high = ends
    found = []
    for figure in FIGURES:
        below, middle, above = low[figure], base[figure], high[figure]
        if below is None or middle is None or above is None:
            continue
        if middle and abs(above - below) > _STILL * abs(middle):
            found.append(Swing(figure, *about, below, middle, above))
    return found
