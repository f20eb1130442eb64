"""Requests for text as they arrive: bytes in, a checked request or an error out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..units import Tokens
from . import tokens
from .body import reading
from .openai_error import ApiError
from .openai_fields import (
    CHAT,
    COMPLETION,
    DETOKENIZE,
    MAX_CHOICES,
    TOKENIZE,
    check_stream_options,
)
from .openai_messages import (
    Prompt,
    last_role,
    read_prompt,
    read_texts,
    shown_texts,
)
from .openai_tools import (
    NO_TOOLS,
    OutputSchema,
    Tools,
    read_format,
    read_tools,
    tools_text,
)
from .rules import invalid

COMPLETION_TOKENS: Final = 16
"""Longest answer of the completions endpoint unless asked otherwise, as at OpenAI."""


# NOTE: not frozen, though nobody changes it: twenty fields of a frozen one cost 4 us.
@dataclass(slots=True, kw_only=True)
class GenerationRequest:
    """A request for text that can be served, whichever endpoint it came by.

    `max_tokens` is None where the client set no limit. `prompts` are several only for
    completions; each gets `n` answers. `logprobs` is how many alternatives each token
    is shown with, None for none at all. Sampling fields but `seed` were checked and
    then dropped: the emulated text does not depend on them.
    """

    model: str
    prompts: tuple[Prompt, ...]
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    max_tokens: Tokens | None = None
    min_tokens: Tokens = 0
    ignore_eos: bool = False
    n: int = 1
    seed: int = 0
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    logprobs: int | None = None
    priority: int = 0
    cache_salt: str = ""
    tools: Tools = NO_TOOLS
    schema: OutputSchema | None = None
    effort: str = "none"
    echoed: tuple[Sequence[str], ...] = ()
    """What the tokens of each prompt show, if the answers begin with their prompts."""
    unseen: bool = False
    """Whether nothing but the prompts is to be shown."""

    @property
    def longest(self) -> Tokens:
        """Tokens of its longest prompt."""
        return max(prompt.tokens for prompt in self.prompts)

    def output_limit(self, max_model_len: Tokens) -> Tokens:
        """Return the most tokens an answer may have: what was asked, or what fits.

        Raises `ApiError` when prompt and answer do not fit in `max_model_len` together.
        """
        room = max_model_len - self.longest
        limit = room if self.max_tokens is None else self.max_tokens
        if room < 1 or limit > room:
            raise _too_long(max_model_len, self.longest, self.max_tokens)
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
    strings: bool = False
    """Whether each token's text is wanted too."""


@reading
def parse_chat(payload: dict[str, Any]) -> GenerationRequest:
    """Read a chat completion request; raises `ApiError` for what cannot be served."""
    CHAT.check(payload)
    wants_logprobs = bool(payload.get("logprobs"))
    top = payload.get("top_logprobs")
    if top and not wants_logprobs:
        raise invalid("top_logprobs", "'logprobs' to be true with it", top)
    tools = read_tools(payload, nested=True)
    if tools.choice and not tools.forced and last_role_is_tool(payload):
        tools = NO_TOOLS
    asked = _common(
        payload,
        (read_prompt(payload["messages"], tools_text(payload)),),
        max_tokens=_max_tokens(payload),
        logprobs=(top or 0) if wants_logprobs else None,
        tools=tools,
        schema=read_format(payload.get("response_format"), "response_format"),
        effort=payload.get("reasoning_effort") or "none",
    )
    check_shape(asked)
    return asked


@reading
def parse_completion(payload: dict[str, Any]) -> GenerationRequest:
    """Read a request to the completions endpoint; raises `ApiError`."""
    COMPLETION.check(payload)
    prompts = tuple(read_texts(payload["prompt"], "prompt"))
    limit = payload.get("max_tokens")
    echo = bool(payload.get("echo"))
    if limit == 0 and not echo:
        raise invalid("max_tokens", "at least 1 without 'echo'", limit)
    asked = _common(
        payload,
        prompts,
        max_tokens=COMPLETION_TOKENS if limit is None else max(1, limit),
        logprobs=payload.get("logprobs"),
        echoed=tuple(shown_texts(payload["prompt"])) if echo else (),
        unseen=limit == 0,
    )
    if len(prompts) * asked.n > MAX_CHOICES:
        raise invalid("n", f"at most {MAX_CHOICES} answers in all", asked.n)
    return asked


def _common(
    payload: dict[str, Any], prompts: tuple[Prompt, ...], **more: Any
) -> GenerationRequest:
    """Read what chat and completions share."""
    stream = bool(payload.get("stream"))
    options = payload.get("stream_options") or {}
    if options:
        check_stream_options(options, stream=stream)
    stop = payload.get("stop") or ()
    return GenerationRequest(
        model=payload["model"],
        prompts=prompts,
        stream=stream,
        include_usage=bool(options.get("include_usage")),
        continuous_usage=bool(options.get("continuous_usage_stats")),
        min_tokens=payload.get("min_tokens") or 0,
        ignore_eos=bool(payload.get("ignore_eos")),
        n=payload.get("n") or 1,
        seed=payload.get("seed") or 0,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        keep_stop=bool(payload.get("include_stop_str_in_output")),
        priority=payload.get("priority") or 0,
        cache_salt=payload.get("cache_salt") or "",
        **more,
    )


def check_shape(asked: GenerationRequest) -> None:
    """Refuse lengths that an answer of a given shape cannot have."""
    if asked.schema or asked.tools.choice:
        why = "JSON is as long as its schema makes it"
        if asked.ignore_eos:
            raise ApiError.not_modelled("ignore_eos", why)
        if asked.min_tokens:
            raise ApiError.not_modelled("min_tokens", why)


def last_role_is_tool(payload: dict[str, Any]) -> bool:
    """Say whether a tool has just answered: then the model speaks, and loops end."""
    return last_role(payload["messages"]) in ("tool", "function")


@reading
def parse_tokenize(payload: dict[str, Any]) -> TokenizeRequest:
    """Read a `/tokenize` request, of a prompt or of messages; raises `ApiError`."""
    TOKENIZE.check(payload)
    model = payload.get("model") or ""
    strings = bool(payload.get("return_token_strs"))
    if payload.get("messages") is not None:
        ids = tokens.ids_of(
            read_prompt(payload["messages"], tools_text(payload)).padded
        )
        return TokenizeRequest(model, ids, strings)
    prompt = payload.get("prompt")
    if prompt is None:
        raise invalid("prompt", "a string (or give messages)", prompt)
    try:
        return TokenizeRequest(model, tokens.tokenize(prompt), strings)
    except UnicodeEncodeError:
        raise invalid("prompt", "well-formed Unicode", prompt) from None


@reading
def parse_detokenize(payload: dict[str, Any]) -> TokenizeRequest:
    """Read a `/detokenize` request; raises `ApiError`."""
    DETOKENIZE.check(payload)
    return TokenizeRequest(payload.get("model") or "", payload["tokens"])


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
