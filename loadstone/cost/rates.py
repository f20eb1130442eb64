"""What machines cost and draw by the second, busy and idle.

    money   rent = price / 3600
            own  = capex (1 - residual) / (years x 8760 x 3600)
                   + watts x PUE x USD/kWh / 3.6e6
    power   GPUs (idle + (load - idle) u) + rest       u = share of time inside steps

A fleet's time is counted in fleet-seconds: one busy second is all of its machines busy
for a second, or half of them for two.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ..physics.power import Joules, PowerLaw, Watts
from ..units import HOUR, KWH, YEAR, Seconds, Usd
from .terms import Tariff


@dataclass(frozen=True, slots=True)
class Rates:
    """US dollars per second of a whole fleet."""

    busy: Usd
    idle: Usd

    def total(self, busy_s: Seconds, idle_s: Seconds) -> Usd:
        """Return what so many busy and idle seconds cost."""
        return self.busy * busy_s + self.idle * idle_s


@dataclass(frozen=True, slots=True)
class Power:
    """What a fleet draws, at its machines' plugs; `rest` None: not known, left out."""

    gpus: float
    law: PowerLaw
    rest_w_per_gpu: Watts | None

    @classmethod
    def of(cls, tariff: Tariff, vms: float) -> "Power | None":
        """Take it from a price list; None where that knows no machine, or its draw."""
        if not tariff.by_machine:
            return None
        idle, load = tariff.value("gpu_idle_w"), tariff.value("gpu_load_w")
        if idle is None or load is None:
            return None
        # A list may be varied until the two cross; what draws less busy is no GPU.
        law = PowerLaw(idle_w=min(idle, load), limit_w=load)
        return cls(vms * tariff.gpus, law, tariff.value("rest_w_per_gpu"))

    def watts(self, *, busy: bool) -> Watts:
        """Return what all draw when they are busy, or idle."""
        rest = self.rest_w_per_gpu or 0.0
        return self.gpus * (self.law.watts(1.0 if busy else 0.0) + rest)

    def joules(self, busy_s: Seconds, idle_s: Seconds) -> Joules:
        """Return the energy of so many busy and idle seconds."""
        return self.watts(busy=True) * busy_s + self.watts(busy=False) * idle_s


def rates_of(tariff: Tariff, vms: float) -> Mapping[str, Rates]:
    """Return what a fleet costs by the second, by what it is spent on.

    Nothing is paid by time under a token price list.
    """
    gpus = vms * tariff.gpus
    match tariff.basis:
        case "rent":
            per_vm = tariff.value("usd_per_vm_hour")
            per_hour = (
                gpus * tariff["usd_per_gpu_hour"] if per_vm is None else vms * per_vm
            )
            return {"rent": _constant(per_hour / HOUR)}
        case "provisioned":
            per_hour = tariff["units"] * tariff["usd_per_unit_hour"]
            return {"units": _constant(per_hour / HOUR)}
        case "own":
            written_off = tariff["capex_usd_per_gpu"] * (1 - tariff["residual_share"])
            capital = gpus * written_off / (tariff["lifetime_years"] * YEAR)
            return {"capital": _constant(capital), "power": _power(tariff, vms)}
    return {}


def whole(rates: Mapping[str, Rates]) -> Rates:
    """Return the sum of rates."""
    return Rates(
        sum(rate.busy for rate in rates.values()),
        sum(rate.idle for rate in rates.values()),
    )


def _constant(per_second: Usd) -> Rates:
    return Rates(per_second, per_second)


def _power(tariff: Tariff, vms: float) -> Rates:
    power = Power.of(tariff, vms)
    assert power is not None  # owning needs its terms
    per_joule = tariff["pue"] * tariff["usd_per_kwh"] / KWH
    return Rates(
        power.watts(busy=True) * per_joule, power.watts(busy=False) * per_joule
    )
