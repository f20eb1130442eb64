"""Requests as they arrive: bytes in, a checked request or an error out."""

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from ..units import Tokens
from . import tokens
from .openai_error import ApiError
from .openai_fields import check_fields, check_stream_options, invalid
from .openai_messages import Prompt, chat_strings, read_prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A chat completion request that can be served.

    `max_tokens` is None where the client set no limit. Sampling fields were checked and
    then dropped: the emulated text does not depend on them.
    """

    model: str
    prompt: Prompt
    stream: bool = False
    include_usage: bool = False
    max_tokens: Tokens | None = None
    min_tokens: Tokens = 0
    ignore_eos: bool = False

    def output_limit(self, max_model_len: Tokens) -> Tokens:
        """Return the most tokens the answer may have: what was asked, or what fits.

        Raises `ApiError` when prompt and answer do not fit in `max_model_len` together.
        """
        room = max_model_len - self.prompt.tokens
        limit = room if self.max_tokens is None else self.max_tokens
        if room < 1 or limit > room:
            raise _too_long(max_model_len, self.prompt.tokens, self.max_tokens)
        if self.min_tokens > limit:
            raise invalid(
                "min_tokens", f"at most max_tokens ({limit})", self.min_tokens
            )
        return limit


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """A request to vLLM's `/tokenize`; `model` is empty where none was named."""

    model: str
    ids: list[int]


def parse_chat(body: bytes) -> ChatRequest:
    """Read a chat completion request; raises `ApiError` for what cannot be served."""
    payload = read_object(body)
    for name in ("model", "messages"):
        if payload.get(name) is None:
            raise ApiError(
                f"Missing required parameter: '{name}'.",
                param=name,
                code="missing_required_parameter",
            )
    check_fields(payload)
    stream = bool(payload.get("stream"))
    options = payload.get("stream_options") or {}
    return ChatRequest(
        model=payload["model"],
        prompt=read_prompt(payload["messages"]),
        stream=stream,
        include_usage=bool(options) and check_stream_options(options, stream=stream),
        max_tokens=_max_tokens(payload),
        min_tokens=payload.get("min_tokens") or 0,
        ignore_eos=bool(payload.get("ignore_eos")),
    )


def parse_tokenize(body: bytes) -> TokenizeRequest:
    """Read a `/tokenize` request, of a prompt or of messages; raises `ApiError`."""
    payload = read_object(body)
    model = payload.get("model") or ""
    if not isinstance(model, str):
        raise invalid("model", "a string", model)
    if payload.get("messages") is not None:
        return TokenizeRequest(
            model, tokens.tokenize_chat(chat_strings(payload["messages"]))
        )
    prompt = payload.get("prompt")
    if not isinstance(prompt, str):
        raise invalid("prompt", "a string (or give messages)", prompt)
    try:
        return TokenizeRequest(model, tokens.tokenize(prompt))
    except UnicodeEncodeError:
        raise invalid("prompt", "well-formed Unicode", prompt) from None


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; raises `ApiError` for bytes that are anything else."""
    try:
        payload = json.loads(body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        # ValueError is bad UTF-8, bad JSON and integers of thousands of digits alike.
        reason = (
            "nested too deeply" if isinstance(error, RecursionError) else str(error)
        )
        raise ApiError(
            f"We could not parse the JSON body of your request: {reason}.",
            code="invalid_json",
        ) from None
    if not isinstance(payload, dict):
        raise ApiError(
            "The body of your request must be a JSON object.", code="invalid_json"
        )
    return payload


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _max_tokens(payload: dict[str, Any]) -> Tokens | None:
    old, new = payload.get("max_tokens"), payload.get("max_completion_tokens")
    if old is not None and new is not None and old != new:
        raise ApiError(
            "'max_tokens' and 'max_completion_tokens' differ; give one of them.",
            param="max_completion_tokens",
            code="invalid_value",
        )
    limit: Tokens | None = old if new is None else new
    return limit


def _too_long(limit: Tokens, prompt: Tokens, output: Tokens | None) -> ApiError:
    if output is None or prompt >= limit:
        asked, what = f"your messages resulted in {prompt} tokens", "messages"
    else:
        asked = (
            f"you requested {prompt + output} tokens"
            f" ({prompt} in the messages, {output} in the completion)"
        )
        what = "messages or completion"
    return ApiError(
        f"This model's maximum context length is {limit} tokens. However, {asked}."
        f" Please reduce the length of the {what}.",
        param="messages",
        code="context_length_exceeded",
    )
