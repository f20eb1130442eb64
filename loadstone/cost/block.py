"""The `cost` block of `summary.json`: a bill and its energy as plain values.

    usd_total                       all of it: answered + failed + idle
    usd_per_request                 usd_total over answered requests: fully loaded
    usd_per_million_output_tokens   usd_total over the output tokens of answers
    per_request_usd                 each answer's own share, idle time left out
    usd_per_good_request            usd_total over answers that kept every objective

A figure with nothing to divide by, or without a price, is None and `missing` says why.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import fsum
from typing import Any, Final

from ..traffic.quantiles import QUANTILES, nearest_rank
from ..units import HOUR, MILLION, Seconds
from .bill import Bill, Busy, Missing, bill_of
from .energy import Energy, energy_of, kwh
from .terms import Tariff
from .usage import Usage

SLICES: Final = ("scenario", "tenant", "stage")
"""What a bill is split by."""
RULE: Final = (
    "busy time is shared by work: output tokens, and uncached input tokens at"
    " prefill_weight; idle time is nobody's"
)
IN_FLIGHT: Final = (
    "time with a request in flight: an upper bound of the machines' busy time"
)
"""Where the busy time is from if no server tells it."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is paid for, and how."""

    tariff: Tariff
    vms: float

    @property
    def gpus(self) -> float:
        """How many GPUs that is."""
        return self.vms * self.tariff.gpus


def busy_by_rows(usage: Usage, window_s: Seconds) -> Busy:
    """Return the busy time as far as requests show it."""
    return Busy(min(window_s, usage.in_flight_s()), IN_FLIGHT)


def cost_block(
    usage: Usage, fleet: Fleet, *, window_s: Seconds, busy: Busy | None = None
) -> dict[str, Any]:
    """Return the block of a run; `busy` as it was measured, else as the rows show."""
    busy = busy or busy_by_rows(usage, window_s)
    tariff = fleet.tariff
    bill = bill_of(usage, tariff, vms=fleet.vms, window_s=window_s, busy=busy)
    energy = energy_of(tariff, fleet.vms, bill)
    head = headline(usage, bill, energy)
    return {
        "currency": "USD",
        "usd_total": bill.total,
        "usd_per_request": head["usd_per_request"],
        "usd_per_million_output_tokens": head["usd_per_million_output_tokens"],
        "basis": tariff.basis,
        "assumptions": _assumptions(bill, fleet),
        "usd_per_hour": per(bill.total, window_s, HOUR),
        "usd_per_million_tokens": head["usd_per_million_tokens"],
        "usd_per_good_request": head["usd_per_good_request"],
        "per_request_usd": per_request(usage, bill),
        "parts": dict(bill.parts),
        "allocation": {
            "answered_usd": bill.answered,
            "failed_usd": bill.failed,
            "idle_usd": bill.idle,
            "busy_s": bill.busy.seconds,
            "busy_share": per(bill.busy.seconds, window_s),
            "busy_source": bill.busy.source,
            "rule": RULE if tariff.by_time else "each token at its price",
        },
        "by": {name: _split(usage, bill, name) for name in SLICES},
        "energy": _energy(usage, energy, window_s),
        "missing": [
            {**asdict(found), "text": str(found)}
            for found in (*bill.missing, *_not_known(energy))
        ],
        "unpriced_requests": bill.unpriced,
        "window_s": window_s,
        "vms": fleet.vms,
        "gpus": fleet.gpus,
        "tariff": tariff.to_json(),
    }


def headline(
    usage: Usage, bill: Bill, energy: Energy | None
) -> dict[str, float | None]:
    """Return the fully loaded figures of a bill: what a change of it would change."""
    priced = [
        (k, s)
        for k, s in usage.sums.items()
        if bill.pricing.priced(s, counted=k.counted)
    ]
    answers = sum(s.requests for k, s in priced if k.answered)
    output = sum(s.output for k, s in priced if k.answered)
    tokens = output + sum(s.input for k, s in priced if k.answered)
    good = sum(s.good for _, s in priced)
    grams = None if energy is None else energy.gco2
    made = usage.count("output", answered=True)
    return {
        "usd_per_request": per(bill.total, answers),
        "usd_per_million_output_tokens": per(bill.total, output, MILLION),
        "usd_per_million_tokens": per(bill.total, tokens, MILLION),
        "usd_per_good_request": per(bill.total, good) if usage.judged else None,
        "joules_per_output_token": (
            None if energy is None else per(energy.machines, made)
        ),
        "gco2_per_output_token": None if grams is None else per(grams, made),
    }


def no_price(reason: str) -> dict[str, Any]:
    """Return the block of a run without a price: no figure, and why."""
    return {
        "currency": "USD",
        "usd_total": None,
        "usd_per_request": None,
        "usd_per_million_output_tokens": None,
        "basis": None,
        "assumptions": [reason],
    }


def per(amount: float, by: float, unit: float = 1.0) -> float | None:
    """Return an amount per so many; None where there is nothing to divide by."""
    return amount / by * unit if by > 0 else None


def per_request(usage: Usage, bill: Bill) -> dict[str, float | int | None]:
    """Return the tail of what answers outside the warm-up cost, idle time left out."""
    pricing = bill.pricing
    ordered = sorted(
        pricing.usd(counts)
        for counts, counted in usage.answers()
        if pricing.priced(counts, counted=counted)
    )
    return {
        "mean": fsum(ordered) / len(ordered) if ordered else None,
        **{name: nearest_rank(ordered, q) for name, q in QUANTILES.items()},
        "n": len(ordered),
    }


def _split(usage: Usage, bill: Bill, by: str) -> dict[str, dict[str, Any]]:
    """Return what each value of a slice's part cost; with idle time it is the total."""
    found: dict[str, dict[str, Any]] = {}
    for kind, amounts in usage.sums.items():
        line = found.setdefault(
            getattr(kind, by),
            {"requests": 0, "answered": 0, "output_tokens": 0, "usd": 0.0},
        )
        line["requests"] += amounts.requests
        line["answered"] += kind.answered * amounts.requests
        line["output_tokens"] += kind.answered * amounts.output
        if bill.pricing.priced(amounts, counted=kind.counted):
            line["usd"] += bill.pricing.usd(amounts)
    for line in found.values():
        line["usd_per_request"] = per(line["usd"], line["answered"])
        line["usd_per_million_output_tokens"] = per(
            line["usd"], line["output_tokens"], MILLION
        )
        line["share"] = per(line["usd"], bill.answered + bill.failed)
    return found


def _energy(
    usage: Usage, energy: Energy | None, window_s: Seconds
) -> dict[str, Any] | None:
    """Return energy and carbon; joules are those at the machines' plugs."""
    if energy is None:
        return None
    output = usage.count("output", answered=True)
    answers = usage.count("requests", answered=True)
    grams = energy.gco2
    return {
        "avg_power_w": per(energy.machines, window_s),
        "total_energy_j": energy.machines,
        "facility_energy_j": energy.facility,
        "facility_kwh": None if energy.facility is None else kwh(energy.facility),
        "joules_per_output_token": per(energy.machines, output),
        "joules_per_successful_query": per(energy.machines, answers),
        "gco2_total": grams,
        "gco2_per_output_token": None if grams is None else per(grams, output),
        "gco2_per_request": None if grams is None else per(grams, answers),
        "busy_source": energy.measured,
        "left_out": list(energy.left_out),
    }


def _not_known(energy: Energy | None) -> tuple[Missing, ...]:
    if energy is not None:
        return ()
    return (Missing("energy", None, "J", "the price list has no draw of a GPU"),)


def _assumptions(bill: Bill, fleet: Fleet) -> list[str]:
    """Say what the money rests on, the price first; what was left out comes last."""
    tariff = fleet.tariff
    machines = (
        f"{tariff['units']:g} units"
        if tariff.basis == "provisioned"
        else f"{fleet.vms:g} VM"
    )
    paid = (
        f"{machines} for {bill.window_s:.1f} s, idle time included"
        if tariff.by_time
        else "each token at its price, nothing by the hour"
    )
    return [
        paid,
        *(f"{tariff.title}: {tariff.assumption(name)}" for name in used_terms(bill)),
        *(f"missing: {found}" for found in bill.missing),
    ]


_TERMS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "rent": ("usd_per_vm_hour", "usd_per_gpu_hour"),
    "units": ("usd_per_unit_hour", "units"),
    "capital": ("capex_usd_per_gpu", "lifetime_years", "residual_share"),
    "power": ("usd_per_kwh", "pue", "gpu_idle_w", "gpu_load_w", "rest_w_per_gpu"),
    "input": ("usd_per_million_input_tokens",),
    "cached": ("usd_per_million_cached_tokens",),
    "output": ("usd_per_million_output_tokens",),
    "reasoning": ("usd_per_million_reasoning_tokens",),
    "egress": ("usd_per_gb_egress",),
    "retrieval": ("usd_per_million_retrievals",),
}
"""The terms that each part of a bill is reckoned by."""


def used_terms(bill: Bill) -> list[str]:
    """Return the terms that the bill's amount depends on, in the order of its parts."""
    facts = bill.pricing.tariff.facts
    return [
        name
        for part, usd in bill.parts.items()
        if usd
        for name in _TERMS_OF[part]
        if name in facts
    ]
