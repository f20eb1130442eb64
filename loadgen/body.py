"""What a planned request asks, for whichever of OpenAI's endpoints it goes to."""

from dataclasses import replace
from typing import Any, Final

from loadstone.traffic.plan import Plan
from loadstone.traffic.prompt import Message
from loadstone.traffic.request import Prefix, Request
from loadstone.traffic.textfit import OWN_RULE, TextFit
from loadstone.wire.api import APIS, Api, Question
from loadstone.wire.prompts import messages_of, text_of_prompt
from loadstone.wire.tokens import BYTES_PER_TOKEN, PER_MESSAGE

_EMBEDDINGS: Final = APIS["embeddings"]


def api_of(request: Request, plan: Plan) -> Api:
    """Return which API a request is for: the plan's, but for what embeds."""
    return _EMBEDDINGS if request.kind == "embed" else APIS[plan.api]


def question_of(request: Request, plan: Plan) -> Question:
    """Return what a request asks under a plan.

    On the mock its prompt has exactly the planned tokens; elsewhere its text is drawn
    to them as far as the plan's fit goes.
    """
    api = api_of(request, plan)
    if plan.fit != OWN_RULE:
        request = stretched(request, plan.fit)
    if api.template:
        messages: Any = messages_of(request, plan.salt)
    else:
        text = text_of_prompt(request, plan.salt)
        messages = [{"role": "user", "content": text}]
    more: dict[str, Any] = {}
    if api.streams and request.reasoning:
        more |= _effort(api, request.reasoning)
    if api.streams and request.priority:
        more["priority"] = request.priority
    return Question(
        model=plan.model,
        messages=messages,
        max_tokens=request.output_tokens,
        ignore_eos=plan.ignore_eos,
        continuous_usage=plan.continuous_usage,
        more=more,
    )


def _effort(api: Api, effort: str) -> dict[str, Any]:
    if api.name == "responses":
        return {"reasoning": {"effort": effort}}
    return {"reasoning_effort": effort}


def stretched(request: Request, fit: TextFit) -> Request:
    """Return a request whose filler makes as many tokens there as it asks for.

    A prompt of its own is fitted with the template. Parts that prompts have in common
    are all stretched alike, so that they still are in common; text that was given is
    left as it is.
    """
    scale = fit.chars_per_token / BYTES_PER_TOKEN
    if request.messages:
        messages = tuple(_stretched(m, scale) for m in request.messages)
        return replace(request, messages=messages)
    if request.prefix is not None:
        size, blocks = request.prefix
        prefix = Prefix(max(1, round(size * scale)), blocks)
        tokens = max(PER_MESSAGE, round(request.input_tokens * scale))
        return replace(request, prefix=prefix, input_tokens=tokens)
    filler = max(1, fit.filler(request.input_tokens, PER_MESSAGE))
    return replace(request, input_tokens=filler + PER_MESSAGE)


def _stretched(message: Message, scale: float) -> Message:
    if message.text is not None:
        return message
    spans = tuple(
        span._replace(tokens=max(1, round(span.tokens * scale)))
        for span in message.spans
    )
    return message._replace(spans=spans)
