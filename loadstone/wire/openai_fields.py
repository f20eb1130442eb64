"""The fields of every request, and what each may hold: the tables.

They are read by the parsers, to check, and by `openapi`, to describe. `STREAM_OPTIONS`,
`TOOL` and the like are the objects inside.
"""

from collections.abc import Mapping
from typing import Any, Final

from . import rules
from .openai_error import ApiError
from .rules import BOOL, OBJECT, TEXT, Form, Rule, many, number, one_of, whole

MAX_CHOICES: Final = 128
"""Answers to one request, as at OpenAI."""
MAX_INPUTS: Final = 2048
"""Texts in one request, as at OpenAI."""
MAX_STOPS: Final = 64
"""OpenAI takes 4 and vLLM any number, but each is a search through the whole text."""
EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh")

TOKENS: Final = many(whole(0, (1 << 32) - 1), "an array of token ids", least=1)
TEXTS: Final = rules.either(
    TEXT,
    TOKENS,
    many(TEXT, "an array of strings", least=1, most=MAX_INPUTS),
    many(TOKENS, "an array of arrays of token ids", least=1, most=MAX_INPUTS),
)
_OBJECTS: Final = many(OBJECT, "an array of objects")
_STOP: Final = rules.either(
    TEXT, many(TEXT, f"an array of up to {MAX_STOPS} strings", most=MAX_STOPS)
)
_EMPTY: Final[tuple[Any, ...]] = ([], {})
_SALT: Final = rules.Rule(
    "a non-empty string",
    {"type": "string", "minLength": 1},
    lambda value: isinstance(value, str) and value != "",
)
"""As vLLM's: prompts share cached blocks only with those of the same salt."""

_SAMPLING: Final[Mapping[str, Rule]] = {
    "model": TEXT,
    "stream": BOOL,
    "stream_options": OBJECT,
    "max_tokens": whole(1),
    "min_tokens": whole(0),
    "ignore_eos": BOOL,
    "stop": _STOP,
    "include_stop_str_in_output": BOOL,
    "n": whole(1, MAX_CHOICES),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "top_k": whole(-1),
    "min_p": number(0, 1),
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "repetition_penalty": number(0, 1e9),
    "seed": whole(-(1 << 63), (1 << 64) - 1),
    "user": TEXT,
    "logit_bias": OBJECT,
    "skip_special_tokens": BOOL,
    "priority": whole(-(1 << 31), (1 << 31) - 1),
    "cache_salt": _SALT,
}
_UNSUPPORTED: Final[Mapping[str, tuple[Any, ...]]] = {
    "best_of": (1,),
    "use_beam_search": (False,),
    "prompt_logprobs": (0,),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "stop_token_ids": _EMPTY,
    "truncate_prompt_tokens": (),
    "kv_transfer_params": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "allowed_token_ids": _EMPTY,
    "bad_words": _EMPTY,
}

CHAT: Final = Form(
    required=("model", "messages"),
    rules={
        **_SAMPLING,
        "messages": many(OBJECT, "a non-empty array of messages", least=1),
        "max_completion_tokens": whole(1),
        "logprobs": BOOL,
        "top_logprobs": whole(0, 20),
        "metadata": OBJECT,
        "store": BOOL,
        "service_tier": TEXT,
        "tools": _OBJECTS,
        "tool_choice": rules.either(one_of("none", "auto", "required"), OBJECT),
        "parallel_tool_calls": BOOL,
        "response_format": OBJECT,
        "reasoning_effort": one_of(*EFFORTS),
    },
    off={
        **_UNSUPPORTED,
        "functions": _EMPTY,
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "web_search_options": (),
        "echo": (False,),
        "chat_template": (),
        "continue_final_message": (False,),
        "documents": _EMPTY,
    },
)
COMPLETION: Final = Form(
    required=("model", "prompt"),
    rules={
        **_SAMPLING,
        "prompt": TEXTS,
        "logprobs": whole(0, 20),
        "echo": BOOL,
        "max_tokens": whole(0),
    },
    off={**_UNSUPPORTED, "suffix": ("",), "response_format": ({"type": "text"},)},
)
RESPONSE: Final = Form(
    required=("model", "input"),
    rules={
        "model": TEXT,
        "input": rules.either(TEXT, many(OBJECT, "an array of items", least=1)),
        "instructions": TEXT,
        "max_output_tokens": whole(1),
        "stream": BOOL,
        "stream_options": OBJECT,
        "temperature": number(0, 2),
        "top_p": number(0, 1),
        "tools": _OBJECTS,
        "tool_choice": rules.either(one_of("none", "auto", "required"), OBJECT),
        "parallel_tool_calls": BOOL,
        "text": OBJECT,
        "reasoning": OBJECT,
        "previous_response_id": TEXT,
        "store": BOOL,
        "user": TEXT,
        "metadata": OBJECT,
        "service_tier": TEXT,
        "priority": whole(-(1 << 31), (1 << 31) - 1),
        "cache_salt": _SALT,
        "ignore_eos": BOOL,
        "min_tokens": whole(0),
    },
    off={
        "background": (False,),
        "conversation": (),
        "prompt": (),
        "include": _EMPTY,
        "max_tool_calls": (),
        "top_logprobs": (0,),
        "truncation": ("disabled",),
    },
)
EMBEDDING: Final = Form(
    required=("model", "input"),
    rules={
        "model": TEXT,
        "input": TEXTS,
        "dimensions": whole(1, 4096),
        "encoding_format": one_of("float", "base64"),
        "user": TEXT,
        "priority": whole(-(1 << 31), (1 << 31) - 1),
    },
    off={"truncate_prompt_tokens": (), "normalize": (True,)},
)
TOKENIZE: Final = Form(
    rules={
        "model": TEXT,
        "prompt": TEXT,
        "messages": many(OBJECT, "a non-empty array of messages", least=1),
        "tools": _OBJECTS,
        "return_token_strs": BOOL,
    },
    off={
        "add_special_tokens": (True, False),
        "add_generation_prompt": (True, False),
        "continue_final_message": (False,),
        "chat_template": (),
    },
)
DETOKENIZE: Final = Form(
    required=("tokens",),
    rules={
        "model": TEXT,
        "tokens": many(whole(0, (1 << 32) - 1), "an array of token ids"),
    },
)

STREAM_OPTIONS: Final = Form(
    rules={"include_usage": BOOL, "continuous_usage_stats": BOOL},
    off={"include_obfuscation": (False,)},
)


def check_stream_options(options: Mapping[str, object], *, stream: bool) -> None:
    """Check the options; raises `ApiError` for options that cannot be."""
    if not stream:
        raise ApiError(
            "Stream options can only be defined when `stream=True`.",
            param="stream_options",
        )
    STREAM_OPTIONS.check(options, "stream_options.")
