"""What a run says to a claim, to a contract and about its price, as a report has it.

Each is reckoned by the package that owns it (`loadstone.verify`, `loadstone.cost`);
here is only what a report asks for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ..catalog.claims import beside, load_claim, spread
from ..catalog.tariffs import alternatives
from ..cost.analysis import analyse, busy_of_block, fleet_of_block
from ..cost.usage import Usage
from ..errors import CatalogError, LoadstoneError, UsageError
from ..measured import measured_of
from ..runs import SUMMARY, RunFiles
from ..traffic.record import RequestRecord
from ..verify.claim import Claim
from ..verify.contract import Clause, judge_contract
from ..verify.judgement import judge_claim
from .escaping import shortened

CONTEXT: Final = {"azure-nd-gb300-v6": "gb300-rack-1.1m"}
"""By machine, the claim that everybody who reads of it has in mind."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is to be held against."""

    claim: Claim | None = None
    """None: the one that its machine is known by, if any, as context."""
    clauses: tuple[Clause, ...] = ()


def judged_claim(
    run: RunFiles, asked: Asked, machine: str | None
) -> dict[str, Any] | None:
    """Return the judgement of a claim; `context` says that nobody asked for it.

    Raises as `measured_of` does for a claim that was asked for. One that is context is
    left out where it cannot be judged.
    """
    claim = asked.claim
    if claim is None:
        if machine not in CONTEXT:
            return None
        claim = load_claim(CONTEXT[machine])
    try:
        measured = measured_of(run)
    except (LoadstoneError, KeyError) as lacking:
        if asked.claim is None:
            return None
        if isinstance(lacking, KeyError):
            raise UsageError(f"{run.path / SUMMARY} has no {lacking}") from None
        raise
    found = judge_claim(
        claim,
        measured,
        beside=list(beside(claim)),
        notes=list(spread(claim, measured)),
    )
    return found.to_json() | {
        "context": asked.claim is None,
        "standing": claim.standing(),
        "claimed_per_gpu": claim.per_gpu,
    }


def judged_contract(
    clauses: Iterable[Clause],
    summary: Mapping[str, Any],
    rows: Iterable[RequestRecord],
) -> list[dict[str, Any]]:
    """Return what a run says to each clause."""
    return [found.to_json() for found in judge_contract(clauses, summary, rows)]


def money(usage: Usage, summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return sensitivity and break-even of a run that has a price list; else None.

    Raises `UsageError` for a price list in its summary that is none.
    """
    block = summary.get("cost") or {}
    try:
        fleet = fleet_of_block(block)
        if fleet is None or not usage.count("requests"):
            return None
        result = analyse(
            usage,
            fleet,
            window_s=summary["makespan_s"],
            busy=busy_of_block(block),
            others=[
                replace(fleet, tariff=tariff)
                for tariff in alternatives(fleet.tariff.gpu)
                if tariff.name != fleet.tariff.name
            ],
        )
    except (CatalogError, KeyError, TypeError, ValueError) as wrong:
        raise UsageError(
            f"{SUMMARY} has a price list that cannot be read: {shortened(repr(wrong))}"
        ) from None
    # The cost itself is the summary's, as it was reckoned when the run ended.
    return {name: result[name] for name in ("sensitivity", "break_even")}
