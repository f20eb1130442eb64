"""What a plan will take, in requests, tokens, time and money, before it is run."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final

from loadstone.traffic.plan import Plan, journeys
from loadstone.traffic.request import Request
from loadstone.units import Seconds, Tokens

from .workload import mix_of

_SAMPLE: Final = 500
"""Journeys drawn to estimate a closed loop's means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a plan will take; tokens are those it asks for."""

    requests: int
    input_tokens: Tokens
    output_tokens: Tokens
    seconds: Seconds
    usd: float | None = None
    basis: str = ""
    """What the figures rest on, in words."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def estimate(
    plan: Plan,
    requests: Sequence[Request],
    *,
    ttft_s: Seconds | None,
    tpot_s: Seconds | None,
) -> Estimate:
    """Estimate a plan from its schedule and the answer that a preflight got.

    A schedule says how much there is to be sent. A closed loop has none: how often its
    users come around is reckoned with the speed of that one answer, on an idle
    endpoint, so it is an upper bound.
    """
    speed = (ttft_s or 0.0, tpot_s or 0.0)
    if plan.loop == "closed":
        return _closed(plan, *speed)
    n_in = sum(r.input_tokens for r in requests)
    n_out = sum(r.output_tokens for r in requests)
    longest = max((r.output_tokens for r in requests), default=0)
    last = speed[0] + speed[1] * longest
    return Estimate(
        requests=len(requests),
        input_tokens=n_in,
        output_tokens=n_out,
        seconds=plan.duration_s + min(plan.drain_s, last),
        basis="the plan's own schedule, and all answers as long as it asks for",
    )


def _closed(plan: Plan, ttft_s: Seconds, tpot_s: Seconds) -> Estimate:
    drawn = list(islice(journeys(plan, mix_of(plan), 0, 1), _SAMPLE))
    asked = [request for journey in drawn for request in journey]
    mean_in = sum(r.input_tokens for r in asked) / len(drawn)
    mean_out = sum(r.output_tokens for r in asked) / len(drawn)
    turns = len(asked) / len(drawn)
    longest = max(r.output_tokens for r in asked)
    turn = max(turns * ttft_s + tpot_s * mean_out + plan.think_s, 1e-3)
    n = plan.users * (1 + int(plan.duration_s / turn))
    return Estimate(
        requests=round(n * turns),
        input_tokens=round(n * mean_in),
        output_tokens=round(n * mean_out),
        seconds=plan.duration_s + min(plan.drain_s, ttft_s + tpot_s * longest),
        basis="an upper bound: users come around as fast as the one answer that was"
        " seen, on an endpoint without load",
    )
