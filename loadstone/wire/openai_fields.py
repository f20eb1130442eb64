"""The fields of a chat completion request: which there are, and what each may hold.

Three tables. `RULES` says what is valid. `OFF` names the fields that would change the
shape or the course of the answer in a way that is not emulated, with the values that
leave them off: anything else is refused, because a silent no would make a measurement a
lie. All other fields are let through, as vLLM does; `RULES` covers those of them whose
values clients get wrong.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from . import tokens
from .openai_error import ApiError

Check = Callable[[object], str | None]
"""Says what a value should have been, or None when it is fine."""


def _whole(low: int, high: int = 1 << 53) -> Check:
    def check(value: object) -> str | None:
        # A bool is an int to Python and to nobody else.
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and low <= value <= high
        ):
            return None
        return f"an integer of at least {low}" + (
            f" and at most {high}" if high < 1 << 53 else ""
        )

    return check


def _number(low: float, high: float) -> Check:
    def check(value: object) -> str | None:
        fine = isinstance(value, (int, float)) and not isinstance(value, bool)
        if fine and low <= value <= high:  # type: ignore[operator]  # `fine` narrows it
            return None
        return f"a number between {low:g} and {high:g}"

    return check


def _is(kind: type, name: str) -> Check:
    def check(value: object) -> str | None:
        return None if isinstance(value, kind) else name

    return check


def _stop(value: object) -> str | None:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return "a string or an array of strings"
    if any(text and tokens.may_occur(text) for text in texts):
        raise ApiError.not_modelled(
            "stop", "the emulated text could contain such a string"
        )
    return None


_BOOL: Final = _is(bool, "a boolean")
_TEXT: Final = _is(str, "a string")
_OBJECT: Final = _is(dict, "an object")

RULES: Final[Mapping[str, Check]] = {
    "model": _TEXT,
    "messages": _is(list, "an array of messages"),
    "stream": _BOOL,
    "stream_options": _OBJECT,
    "max_tokens": _whole(1),
    "max_completion_tokens": _whole(1),
    "min_tokens": _whole(0),
    "ignore_eos": _BOOL,
    "stop": _stop,
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "top_k": _whole(-1),
    "min_p": _number(0, 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "repetition_penalty": _number(0, 1e9),
    "seed": _whole(-(1 << 63), (1 << 64) - 1),
    "user": _TEXT,
    "metadata": _OBJECT,
    "logit_bias": _OBJECT,
    "store": _BOOL,
    "service_tier": _TEXT,
    "parallel_tool_calls": _BOOL,
    "skip_special_tokens": _BOOL,
    "n": _whole(1),
    "logprobs": _BOOL,
    "top_logprobs": _whole(0),
}
"""A field that is absent or null is left at its default and meets no rule."""

_EMPTY: Final[tuple[Any, ...]] = ([], {})

OFF: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "prompt_logprobs": (0,),
    "echo": (False,),
    "tools": _EMPTY,
    "tool_choice": ("none", "auto"),
    "functions": _EMPTY,
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "reasoning_effort": ("none",),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "stop_token_ids": _EMPTY,
    "truncate_prompt_tokens": (),
    "chat_template": (),
    "documents": _EMPTY,
    "priority": (0,),
    "kv_transfer_params": (),
    "return_token_ids": (False,),
}
"""Fields that are not emulated, and their values that do not matter (null never does).
"""

STREAM_OPTIONS_OFF: Final[Mapping[str, tuple[Any, ...]]] = {
    "continuous_usage_stats": (False,),
    "include_obfuscation": (False,),
}


def check_fields(payload: Mapping[str, object]) -> None:
    """Check every field of a request; raises `ApiError` for the first at fault."""
    for name, value in payload.items():
        if value is None:
            continue
        rule = RULES.get(name)
        expected = rule(value) if rule else None
        if expected is not None:
            raise invalid(name, expected, value)
        off = OFF.get(name)
        if off is not None and not _among(value, off):
            raise ApiError.not_modelled(name)


def check_stream_options(options: Mapping[str, object], *, stream: bool) -> bool:
    """Return `include_usage`; raises `ApiError` for options that cannot be."""
    if not stream:
        raise ApiError(
            "Stream options can only be defined when `stream=True`.",
            param="stream_options",
        )
    for name, off in STREAM_OPTIONS_OFF.items():
        value = options.get(name)
        if value is not None and not _among(value, off):
            raise ApiError.not_modelled(f"stream_options.{name}")
    include_usage = options.get("include_usage")
    if include_usage is not None and not isinstance(include_usage, bool):
        raise invalid("stream_options.include_usage", "a boolean", include_usage)
    return bool(include_usage)


def invalid(param: str, expected: str, value: object) -> ApiError:
    """Return the error for a value that breaks its rule: field, rule and value."""
    return ApiError(
        f"Invalid value for '{param}': expected {expected}, got {_shown(value)}.",
        param=param,
        code="invalid_value",
    )


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "an array"
    if isinstance(value, dict):
        return "an object"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


_SHOWN: Final = 60
"""Characters of an offending value that an error repeats."""


def _among(value: object, off: tuple[Any, ...]) -> bool:
    # 1 == True and 0 == False in Python; in JSON they are different values.
    return any(
        value == x and isinstance(value, bool) == isinstance(x, bool) for x in off
    )
