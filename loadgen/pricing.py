"""What a plan's machines cost: a price of the catalog, or the user's own file."""

from collections.abc import Iterable
from typing import Any

from loadstone.catalog.tariffs import load_tariff, read_tariff
from loadstone.cost.block import Fleet, cost_block, no_price
from loadstone.cost.terms import Tariff
from loadstone.cost.usage import Usage
from loadstone.errors import UsageError
from loadstone.traffic.plan import Plan
from loadstone.traffic.record import RequestRecord
from loadstone.traffic.slo import Slo
from loadstone.units import Seconds

from .files import read_text


def is_file(price: str) -> bool:
    """Whether a price is a file, and not a name of the catalog."""
    return price.endswith(".toml")


def tariff_of(price: str) -> Tariff:
    """Load a price by its name in the catalog, or a file of one.

    Raises `CatalogError` for an unknown name and `UsageError` for a wrong file.
    """
    if is_file(price):
        return read_tariff(read_text(price, "price list"), price)
    return load_tariff(price)


def fleet_of(plan: Plan) -> Fleet | None:
    """Return what a plan says is paid for; None where it names no price.

    Raises `UsageError` for machines of which nobody says how many there are.
    """
    if plan.price is None:
        return None
    tariff = tariff_of(plan.price)
    if plan.vms is None and tariff.by_machine:
        raise UsageError(
            "a price without a number of VMs says nothing", hint="give --vms N"
        )
    return Fleet(tariff, plan.vms or 0)


def cost_of(
    fleet: Fleet | None,
    rows: Iterable[RequestRecord] | None,
    slos: tuple[Slo, ...],
    window_s: Seconds,
) -> dict[str, Any]:
    """Return a run's cost block; without a price, or its rows, the reason for none."""
    if fleet is None:
        return no_price("no price: give --prices NAME and --vms N")
    if rows is None:
        return no_price("the rows are on other hosts: `loadstone cost` there")
    usage = Usage(slos)
    for row in rows:
        usage.add(row)
    return cost_block(usage, fleet, window_s=window_s)
