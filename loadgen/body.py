"""What a request says, as the bytes of an OpenAI body."""

import json
from typing import Any, Final

from loadstone.traffic.plan import Plan
from loadstone.traffic.request import Request
from loadstone.wire.prompts import messages_of, text_of_prompt

CHAT_PATH: Final = "/v1/chat/completions"
EMBEDDINGS_PATH: Final = "/v1/embeddings"


def path_of(request: Request) -> str:
    """Return where it is sent to."""
    return EMBEDDINGS_PATH if request.kind == "embed" else CHAT_PATH


def body_of(request: Request, plan: Plan) -> bytes:
    """Return the body of a request under a plan."""
    body = (
        _embed(request, plan) if request.kind == "embed" else _generate(request, plan)
    )
    return json.dumps({"model": request.model or plan.model, **body}).encode()


def _embed(request: Request, plan: Plan) -> dict[str, Any]:
    # Base64 is the numbers themselves: a thousand decimals would be read on the hub.
    return {
        "input": text_of_prompt(request, plan.salt), "encoding_format": "base64",
    }  # fmt: skip


def _generate(request: Request, plan: Plan) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": messages_of(request, plan.salt),
        "max_tokens": request.output_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if plan.ignore_eos:
        body["ignore_eos"] = True
    if request.reasoning:
        body["reasoning_effort"] = request.reasoning
    if request.priority:
        body["priority"] = request.priority
    return body
