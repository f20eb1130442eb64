"""What a request asks, in the words that every API is written from."""

from typing import Any

from loadstone.traffic.plan import Plan
from loadstone.traffic.request import Request
from loadstone.units import Tokens
from loadstone.wire.api import Question
from loadstone.wire.prompts import messages_of


def api_of(request: Request, plan: Plan) -> str:
    """Return which of the APIs it is sent to."""
    return "embeddings" if request.kind == "embed" else plan.api


def question_of(request: Request, plan: Plan, template: Tokens) -> Question:
    """Return what it asks; `template` is what the API adds to a message's tokens."""
    more: dict[str, Any] = {}
    if request.reasoning:
        more["reasoning_effort"] = request.reasoning
    if request.priority:
        more["priority"] = request.priority
    return Question(
        model=plan.model,
        messages=messages_of(request, plan.salt, plan.fit, template),
        max_tokens=request.output_tokens,
        ignore_eos=plan.ignore_eos,
        continuous_usage=plan.continuous_usage,
        more=more,
    )
