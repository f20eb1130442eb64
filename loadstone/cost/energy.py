"""Energy and carbon of a window: joules at the machines' plugs, and what a site adds.

    facility = PUE x machines        gCO2 = facility kWh x gCO2/kWh

A GPU inside a step is taken to draw its limit: see `physics.power`.
"""

from dataclasses import dataclass

from ..physics.power import Joules
from ..units import KWH, Seconds
from .bill import Bill
from .rates import Power
from .terms import Tariff


@dataclass(frozen=True, slots=True)
class Energy:
    """What a window took, in joules and grams; None where a term is not known."""

    machines: Joules
    facility: Joules | None
    gco2: float | None
    measured: str
    """Where the busy time is from, and so the energy."""
    left_out: tuple[str, ...]


def kwh(joules: Joules) -> float:
    """Return joules in kilowatt-hours."""
    return joules / KWH


def energy_of(tariff: Tariff, vms: float, bill: Bill) -> Energy | None:
    """Return the energy of a bill's window; None without the draw of a GPU."""
    power = Power.of(tariff, vms)
    if power is None:
        return None
    busy: Seconds = bill.busy.seconds
    machines = power.joules(busy, bill.window_s - busy)
    pue, grams = tariff.value("pue"), tariff.value("gco2_per_kwh")
    facility = None if pue is None else machines * pue
    known = facility is not None and grams is not None
    return Energy(
        machines=machines,
        facility=facility,
        gco2=kwh(facility) * grams if known and facility and grams else None,
        measured=bill.busy.source,
        left_out=(
            ("the rest of the rack (CPUs, switches, fans): not published",)
            if power.rest_w_per_gpu is None
            else ()
        ),
    )
