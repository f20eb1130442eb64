"""What a request asks, in the words that every API is written from."""

from typing import Any

from loadstone.traffic.plan import Plan
from loadstone.traffic.request import Request
from loadstone.wire.api import Api, Question
from loadstone.wire.prompts import messages_of


def api_of(request: Request, plan: Plan) -> str:
    """Return which of the APIs it is sent to."""
    return "embeddings" if request.kind == "embed" else plan.api


def question_of(request: Request, plan: Plan, api: Api) -> Question:
    """Return what it asks of an API."""
    more: dict[str, Any] = {}
    if api.streams and request.reasoning:
        more |= _effort(api, request.reasoning)
    if api.streams and request.priority:
        more["priority"] = request.priority
    return Question(
        model=request.model or plan.model,
        messages=messages_of(request, plan.salt, plan.fit, api.template),
        max_tokens=request.output_tokens,
        ignore_eos=plan.ignore_eos,
        continuous_usage=plan.continuous_usage,
        more=more,
    )


def _effort(api: Api, effort: str) -> dict[str, Any]:
    if api.name == "responses":
        return {"reasoning": {"effort": effort}}
    return {"reasoning_effort": effort}
