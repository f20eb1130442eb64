"""What a run that is on has cost so far, from its totals: for a live display."""

from ..units import MILLION, Seconds, Tokens, Usd
from .block import Fleet
from .rates import rates_of, whole


def usd_so_far(
    fleet: Fleet, elapsed_s: Seconds, input_tokens: Tokens, output_tokens: Tokens
) -> Usd:
    """Return the running bill of `elapsed_s`, from totals alone.

    Machines are taken as busy, and no token as cached or reasoning: the bill of the
    rows, at the end, knows better.
    """
    tariff = fleet.tariff
    if tariff.by_time:
        return whole(rates_of(tariff, fleet.vms)).busy * elapsed_s
    return (
        input_tokens * tariff["usd_per_million_input_tokens"]
        + output_tokens * tariff["usd_per_million_output_tokens"]
    ) / MILLION
