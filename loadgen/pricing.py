"""What a plan's machines cost: a price of the catalog, or the user's own file."""

from collections.abc import Iterable
from typing import Any

from loadstone.catalog.tariffs import load_tariff, read_tariff
from loadstone.cost.bill import Busy
from loadstone.cost.block import Fleet, cost_block, no_price
from loadstone.cost.terms import Tariff
from loadstone.cost.usage import Kind, Sum, Usage
from loadstone.errors import UsageError
from loadstone.traffic.plan import Plan
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.slo import Slo
from loadstone.units import Seconds

from .files import read_text
from .stats import ClientStats


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
    stats: ClientStats,
    *,
    slos: tuple[Slo, ...],
    window_s: Seconds,
) -> dict[str, Any]:
    """Return a run's cost block: of its rows, or without them of its totals."""
    if fleet is None:
        return no_price("no price: give --prices NAME and --vms N")
    if rows is not None:
        return cost_block(usage_of_rows(rows, slos), fleet, window_s=window_s)
    busy = Busy(window_s, "nobody: rows are on other hosts, so all time counts")
    return cost_block(usage_of_totals(stats), fleet, window_s=window_s, busy=busy)


def usage_of_rows(rows: Iterable[RequestRecord], slos: tuple[Slo, ...]) -> Usage:
    """Fold the rows of a run into what was used."""
    usage = Usage(slos)
    for row in rows:
        usage.add(row)
    return usage


def usage_of_totals(stats: ClientStats) -> Usage:
    """Return what was used as far as totals tell.

    They know no single request, so there is no tail of costs, and no cached token or
    byte: those are missing, as `cost_block` says.
    """
    usage = Usage()
    for name, part in stats.slices.items():
        answers = part.outcomes[Outcome.OK.value]
        failures = sum(part.outcomes.values()) - answers
        for answered, found in (
            (True, Sum(answers, 0, answers, part.input_tokens, 0, part.output_tokens)),
            (False, Sum(requests=failures, unweighed=failures)),
        ):
            kind = Kind(*name, answered, counted=True, cached=False, reasoning=False)
            if found.requests:
                usage.add_total(kind, found)
    return usage
