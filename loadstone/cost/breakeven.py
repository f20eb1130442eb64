"""Rent, own or buy tokens: at which use of the machines one becomes the cheaper.

Use `u` is the share of all hours in which a load like the measured one has to be
served. An hour then costs `fixed + u x by_use`, a straight line for each way to pay:

    own, reserved, provisioned   capital, and what idle machines draw, are due always
    rent, pay as you go or spot  nothing is due for the hours without load
    token price list             each token at its price

and two ways break even where their lines cross. That a fleet can be rented by the hour,
and is there when it is wanted, is itself an assumption.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from ..units import HOUR, MILLION, Seconds, Tokens, Usd
from .bill import Busy, bill_of
from .block import Fleet
from .rates import rates_of, whole
from .usage import Usage

USES: Final = (0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Line:
    """One way to pay: US dollars per hour, always and at full use besides."""

    name: str
    title: str
    basis: str
    fixed_usd_per_hour: Usd
    by_use_usd_per_hour: Usd
    unpriced: int = 0
    """Requests with no price under it: the line is too low by what they cost."""

    def usd_per_hour(self, use: float) -> Usd:
        """Return what an hour costs on average at a use of 0 to 1."""
        return self.fixed_usd_per_hour + use * self.by_use_usd_per_hour


@dataclass(frozen=True, slots=True)
class Crossing:
    """Above `use` the second is the cheaper of the two; None: never within 0 to 1."""

    below: str
    above: str
    use: float | None


def line_of(usage: Usage, fleet: Fleet, *, window_s: Seconds, busy: Busy) -> Line:
    """Return what serving the measured load costs one way, by how much it is used.

    Raises `ValueError` for an empty window.
    """
    if window_s <= 0:
        raise ValueError("nothing was measured, so there is no load to price")
    tariff = fleet.tariff
    bill = bill_of(usage, tariff, vms=fleet.vms, window_s=window_s, busy=busy)
    hour = bill.total / window_s * HOUR
    fixed = 0.0
    if tariff.due_always:
        fixed = whole(rates_of(tariff, fleet.vms)).idle * HOUR
    return Line(
        tariff.name, tariff.title, tariff.basis, fixed, hour - fixed, bill.unpriced
    )


def crossing(one: Line, other: Line) -> Crossing:
    """Return where two lines cross, the one that is cheaper at little use first."""
    first, second = sorted(
        (one, other),
        key=lambda line: (line.fixed_usd_per_hour, line.by_use_usd_per_hour),
    )
    steeper = first.by_use_usd_per_hour - second.by_use_usd_per_hour
    dearer = second.fixed_usd_per_hour - first.fixed_usd_per_hour
    use = dearer / steeper if steeper > 0 else None
    if use is not None and use > 1:
        use = None
    return Crossing(first.name, second.name, use)


def crossings(lines: Sequence[Line]) -> list[Crossing]:
    """Return where each two of the lines cross."""
    return [crossing(one, other) for one, other in combinations(lines, 2)]


def usd_per_million(line: Line, use: float, tokens_per_hour: Tokens | float) -> float:
    """Return what a million output tokens cost at a use, at so many in a busy hour."""
    return line.usd_per_hour(use) / (use * tokens_per_hour) * MILLION
