"""Requests to OpenAI's responses endpoint, and the conversation that they continue."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .body import reading
from .openai_error import ApiError
from .openai_fields import EFFORTS, RESPONSE
from .openai_messages import read_prompt
from .openai_request import GenerationRequest, check_shape
from .openai_tools import NO_TOOLS, read_format, read_tools, tools_text
from .rules import OBJECT, TEXT, Form, Rule, invalid, missing, one_of

Message = dict[str, Any]
Recall = Callable[[str], list[Message] | None]
"""Finds the messages of an earlier response by its id; None if it is not known."""

_REASONING: Final = Form(
    rules={"effort": one_of(*EFFORTS), "summary": TEXT, "generate_summary": TEXT}
)
_TEXT: Final = Form(rules={"format": OBJECT, "verbosity": TEXT})
_PART_TYPES: Final = ("input_text", "output_text", "text", "reasoning_text")
_CALL: Final = Form(
    required=("call_id", "name", "arguments"),
    rules={"call_id": TEXT, "name": TEXT, "arguments": TEXT},
)
_OUTPUT: Final = Form(
    required=("call_id", "output"),
    rules={
        "call_id": TEXT,
        "output": Rule(
            "a string or an array of parts",
            {"anyOf": [{"type": "string"}, {"type": "array"}]},
            lambda value: isinstance(value, (str, list)),
        ),
    },
)


@dataclass(slots=True, kw_only=True)
class ResponseRequest(GenerationRequest):
    """A request for a response. `messages` is the conversation as chat has it.

    `echo` has what the reply repeats of the request.
    """

    messages: list[Message]
    echo: Mapping[str, Any] = field(default_factory=dict)
    store: bool = True


def reader(recall: Recall) -> Callable[..., ResponseRequest]:
    """Return a reader of request bodies that looks earlier responses up."""

    @reading
    def parse(payload: dict[str, Any]) -> ResponseRequest:
        return _read(payload, recall)

    return parse


def _read(payload: dict[str, Any], recall: Recall) -> ResponseRequest:
    RESPONSE.check(payload)
    earlier = payload.get("previous_response_id")
    messages = _earlier(earlier, recall) if earlier else []
    messages = messages + _messages(payload["input"])
    effort = payload.get("reasoning") or {}
    _REASONING.check(effort, "reasoning.")
    text = payload.get("text") or {}
    _TEXT.check(text, "text.")
    tools = read_tools(payload, nested=False)
    if tools.choice and not tools.forced and messages[-1]["role"] == "tool":
        tools = NO_TOOLS
    if payload.get("stream_options") and not payload.get("stream"):
        raise invalid("stream_options", "'stream' to be true with it", "")
    if (payload.get("stream_options") or {}).get("include_obfuscation"):
        raise ApiError.not_modelled("stream_options.include_obfuscation")
    asked = ResponseRequest(
        model=payload["model"],
        prompts=(
            read_prompt(
                [*_instructions(payload), *messages], extra=tools_text(payload)
            ),
        ),
        stream=bool(payload.get("stream")),
        max_tokens=payload.get("max_output_tokens"),
        min_tokens=payload.get("min_tokens") or 0,
        ignore_eos=bool(payload.get("ignore_eos")),
        priority=payload.get("priority") or 0,
        cache_salt=payload.get("cache_salt") or "",
        tools=tools,
        schema=read_format(text.get("format"), "text.format"),
        effort=effort.get("effort") or "none",
        messages=messages,
        echo=payload,
        store=payload.get("store") is not False,
    )
    check_shape(asked)
    return asked


def _instructions(payload: Mapping[str, Any]) -> list[Message]:
    # They are not carried over from one response to the next.
    text = payload.get("instructions")
    return [{"role": "system", "content": text}] if text else []


def _earlier(response_id: str, recall: Recall) -> list[Message]:
    messages = recall(response_id)
    if messages is None:
        raise ApiError(
            f"Previous response with id '{response_id[:80]}' not found: this server"
            " forgets the oldest, and those that were sent with 'store': false.",
            status=404,
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return messages


def _messages(given: object) -> list[Message]:
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    assert isinstance(given, list)
    return [_message(item, f"input[{i}]") for i, item in enumerate(given)]


def _message(item: Mapping[str, Any], where: str) -> Message:
    kind = item.get("type", "message")
    if kind == "function_call":
        _CALL.check(item, f"{where}.")
        function = {"name": item["name"], "arguments": item["arguments"]}
        return {"role": "assistant", "tool_calls": [{"function": function}]}
    if kind == "function_call_output":
        _OUTPUT.check(item, f"{where}.")
        content = _content(item["output"])
        return {"role": "tool", "content": content, "tool_call_id": item["call_id"]}
    if kind == "reasoning":
        parts = item.get("content") or item.get("summary") or []
        return {"role": "assistant", "content": _content(parts)}
    if kind != "message":
        if isinstance(kind, str):
            raise ApiError.not_modelled(where, f"items of type {kind[:40]!r}")
        raise invalid(f"{where}.type", "a string", kind)
    if item.get("content") is None:
        raise missing(f"{where}.content")
    content = _content(item["content"])
    return {"role": item.get("role"), "content": content}


def _content(content: object) -> object:
    """Return content as chat has it: all kinds of text parts are text."""
    if not isinstance(content, list):
        return content
    parts: list[Any] = []
    for part in content:
        if isinstance(part, dict) and part.get("type") in (
            *_PART_TYPES,
            "summary_text",
        ):
            parts.append({"type": "text", "text": part.get("text")})
        else:
            parts.append(part)
    return parts
