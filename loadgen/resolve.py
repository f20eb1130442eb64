"""Fills a plan with what its endpoint and its files tell: model, price, machines."""

import secrets
from collections.abc import Mapping
from typing import Any, Final

from loadstone.catalog.tariffs import price_of_preset
from loadstone.cost.meter import usd_so_far
from loadstone.errors import UsageError
from loadstone.traffic.plan import Plan
from loadstone.units import Seconds, Tokens, Usd

from .pricing import fleet_of
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
    plan: Plan,
    mock: Mapping[str, Any] | None,
    seconds: Seconds,
    input_tokens: Tokens,
    output_tokens: Tokens,
) -> Usd | None:
    """Return what so much of the plan's load will cost, None without a price."""
    fleet = fleet_of(with_price(plan, mock))
    if fleet is None:
        return None
    return usd_so_far(fleet, seconds, input_tokens, output_tokens)
