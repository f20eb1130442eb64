"""Fills a plan with what its endpoint and its files tell: model, price, machines."""

import secrets
from collections.abc import Mapping
from typing import Any, Final

from loadstone.catalog.workloads import load_price, price_of_preset
from loadstone.errors import UsageError
from loadstone.physics.cost import Rent
from loadstone.traffic.plan import Plan
from loadstone.units import Seconds

from .probe import Target
from .workload import with_trace_located

FRESH: Final = "fresh"
"""The salt that stands for another one in each run."""


def resolve(plan: Plan, target: Target) -> Plan:
    """Fill what the endpoint and files tell: model, price, VMs, the trace's hash."""
    changes: dict[str, Any] = {}
    if not plan.model:
        if not target.models:
            raise UsageError("the endpoint lists no model", hint="give --model NAME")
        changes["model"] = target.models[0]
    if target.refused:
        changes["refused"] = target.refused
    if target.fit is not None and plan.chars_per_token is None:
        changes["chars_per_token"] = target.fit.chars_per_token
        changes["template_tokens"] = target.fit.template_tokens
    if plan.salt == FRESH:
        changes["salt"] = secrets.token_hex(8)
    plan = with_price(plan, target.mock)
    return with_trace_located(plan.retargeted(**changes))


def with_price(plan: Plan, mock: Mapping[str, Any] | None) -> Plan:
    """Return the plan with the price and the VMs of the mock, unless it has its own."""
    if mock is None:
        return plan
    return plan.retargeted(
        price=plan.price or price_of_preset(str(mock.get("preset"))),
        vms=plan.vms or mock.get("vms"),
    )


def priced(
    plan: Plan, mock: Mapping[str, Any] | None, seconds: Seconds
) -> float | None:
    """Return the rent of so many seconds, None without a price."""
    rent = rent_of(with_price(plan, mock))
    return rent.total(seconds) if rent else None


def rent_of(plan: Plan) -> Rent | None:
    """Return what a plan's machines cost; None where it names no price."""
    if plan.price is None:
        return None
    price = load_price(plan.price)
    if plan.vms is None:
        raise UsageError(
            "a price without a number of VMs says nothing", hint="give --vms N"
        )
    return Rent(price.usd_per_vm_hour.value, plan.vms, (price.assumption(),))
