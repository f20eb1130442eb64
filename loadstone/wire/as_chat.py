"""Events of OpenAI's responses endpoint, retold in the words of chat completions.

One reader then knows one form: a delta with text, reasoning or a call; a reason to
finish; a usage with prompt and completion tokens; an error. Anything else that a
stream of responses says (items announced and told again whole) is nothing new.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

Chunk = dict[str, Any]

_NOTHING: Final[Chunk] = {"choices": []}


def is_response(chunk: Chunk) -> bool:
    """Say whether a parsed event or body is of the responses endpoint."""
    kind = chunk.get("type")
    told = isinstance(kind, str) and kind.startswith("response.")
    return told or kind == "error" or chunk.get("object") == "response"


def as_chat(chunk: Chunk) -> Chunk:
    """Return an event or a body of the responses endpoint as one of chat."""
    if chunk.get("object") == "response":
        return _whole(chunk, chunk)
    kind = chunk["type"]
    if kind == "error":
        return {"error": chunk.get("error") or chunk}
    if kind in _DELTAS:
        said = chunk.get("delta")
        return {"choices": [{"delta": _DELTAS[kind](said)}]} if said else _NOTHING
    if kind in _ENDS:
        response = chunk.get("response")
        return _ended(chunk, response if isinstance(response, dict) else {})
    return _NOTHING


_DELTAS: Final[Mapping[str, Callable[[Any], Chunk]]] = {
    "response.output_text.delta": lambda text: {"content": text},
    "response.refusal.delta": lambda text: {"refusal": text},
    "response.reasoning_text.delta": lambda text: {"reasoning_content": text},
    "response.reasoning_summary_text.delta": lambda text: {"reasoning_content": text},
    "response.function_call_arguments.delta": lambda text: {
        "tool_calls": [{"function": {"arguments": text}}]
    },
}
_ENDS: Final = ("response.completed", "response.incomplete", "response.failed")
_REASONS: Final = {"max_output_tokens": "length"}
_PARTS: Final = {"message": "content", "reasoning": "reasoning_content"}
_SIDES: Final = (("input", "prompt"), ("output", "completion"))


def _ended(event: Chunk, response: Chunk) -> Chunk:
    """Retell the last event: why it ended, what it counted; the text is known."""
    told = _NOTHING | {
        "choices": [{"delta": {}, "finish_reason": _reason(response)}],
        "usage": _usage(response.get("usage")),
    }
    if response.get("error"):
        told["error"] = response["error"]
    known = ("type", "response", "sequence_number")
    return told | {name: value for name, value in event.items() if name not in known}


def _whole(event: Chunk, response: Chunk) -> Chunk:
    """Retell a response that came in one piece, its items included."""
    told = _ended({}, response)
    told["choices"][0]["delta"] = _message(response.get("output"))
    known = ("usage", "error", "object", "output", "choices")
    return {name: v for name, v in event.items() if name not in known} | told


def _message(items: object) -> Chunk:
    message: Chunk = {}
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, dict):
            continue
        if item.get("type") == "function_call":
            message.setdefault("tool_calls", []).append({"function": item})
        name = _PARTS.get(str(item.get("type")))
        parts = item.get("content")
        for part in parts if name and isinstance(parts, list) else []:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                message[str(name)] = message.get(str(name), "") + part["text"]
    return message


def _reason(response: Chunk) -> str | None:
    status = response.get("status")
    if status == "completed":
        return "stop"
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    if status != "incomplete" or not isinstance(reason, str):
        return None
    return _REASONS.get(reason, reason)


def _usage(usage: object) -> Chunk | None:
    if not isinstance(usage, dict):
        return None
    told: Chunk = {}
    for theirs, chats in _SIDES:
        told[f"{chats}_tokens"] = usage.get(f"{theirs}_tokens")
        told[f"{chats}_tokens_details"] = usage.get(f"{theirs}_tokens_details")
    return told
