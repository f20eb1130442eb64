"""What is sent to each of OpenAI's endpoints, and what a service may refuse of it.

Services agree on the shape of a request and differ in the fields they take. vLLM,
SGLang, TensorRT-LLM and NIM know `ignore_eos` and `min_tokens`; OpenAI and Azure refuse
them with 400, and want `max_completion_tokens` where a model reasons. So what nobody
has to know is asked for first, and left out once a service has refused it (`Dialect`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

import msgspec

from ..units import Tokens
from .tokens import PER_MESSAGE

Body = dict[str, Any]
Message = Mapping[str, Any]


# NOTE: a value, which nobody changes; frozen it takes seven times as long to make.
@dataclass(slots=True, kw_only=True)
class Question:
    """What is asked, whatever the endpoint; `more` are fields that go as they are."""

    model: str
    messages: Sequence[Message]
    max_tokens: Tokens
    ignore_eos: bool = False
    """Ask for exactly `max_tokens`."""
    continuous_usage: bool = False
    """Ask for the counts with every event, as vLLM and SGLang can send them."""
    more: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def text(self) -> str:
        """All of it as one text, for endpoints that take no conversation."""
        return "\n".join(str(m.get("content") or "") for m in self.messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One kind of endpoint: its path below `/v1`, and how a question is written.

    `template` is how many tokens the mock's rule adds for each message. `streams` says
    whether the answer is asked for as events.
    """

    name: str
    path: str
    write: Callable[[Question], Body]
    template: Tokens = 0
    streams: bool = True
    deployed: bool = True
    """Whether Azure has it below a deployment's path."""


def _generation(question: Question, limit: str) -> Body:
    body: Body = {"model": question.model, limit: question.max_tokens, "stream": True}
    if question.ignore_eos:
        body["ignore_eos"] = True
    return body


def _usage(question: Question) -> Body:
    options = {"include_usage": True}
    if question.continuous_usage:
        options["continuous_usage_stats"] = True
    return {"stream_options": options}


def _chat(question: Question) -> Body:
    body = _generation(question, "max_tokens") | _usage(question)
    return body | {"messages": list(question.messages)}


def _completions(question: Question) -> Body:
    body = _generation(question, "max_tokens") | _usage(question)
    return body | {"prompt": question.text}


def _responses(question: Question) -> Body:
    # The last event has the counts unasked.
    body = _generation(question, "max_output_tokens")
    return body | {"input": list(question.messages), "store": False}


def _embeddings(question: Question) -> Body:
    # Base64 is the numbers themselves: a thousand decimals would be read on the hub.
    return {
        "model": question.model, "input": question.text, "encoding_format": "base64",
    }  # fmt: skip


APIS: Final = {
    api.name: api
    for api in (
        Api(name="chat", path="/chat/completions", write=_chat, template=PER_MESSAGE),
        Api(name="completions", path="/completions", write=_completions),
        Api(
            name="responses", path="/responses", write=_responses,
            template=PER_MESSAGE, deployed=False,
        ),
        Api(
            name="embeddings", path="/embeddings", write=_embeddings, streams=False,
        ),
    )
}  # fmt: skip

_encode: Final = msgspec.json.Encoder().encode

_INSTEAD: Final[Mapping[str, Callable[[Body], Body]]] = {
    # What pins the length in servers that do not know vLLM's word for it.
    "ignore_eos": lambda body: {"min_tokens": _limit(body)},
    "min_tokens": lambda _: {},
    "max_tokens": lambda body: {"max_completion_tokens": body["max_tokens"]},
    "continuous_usage_stats": lambda _: {"stream_options": {"include_usage": True}},
    "stream_options": lambda _: {},
    "store": lambda _: {},
    "seed": lambda _: {},
    "encoding_format": lambda _: {},
    "priority": lambda _: {},
    "reasoning_effort": lambda _: {},
    "reasoning": lambda _: {},
    "temperature": lambda _: {},
}
"""A field that a service may refuse, and what is sent instead of it."""
_REFUSAL: Final = re.compile(
    r"unknown|unrecogni[sz]ed|unsupported|unexpected|not[ _](?:supported|permitted|"
    r"allowed|modelled|recogni[sz]ed)|extra[ _]|does not (?:support|accept)|additional",
    re.IGNORECASE,
)
_REFUSED_STATUS: Final = (400, 422)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a service has refused so far; requests leave it out."""

    refused: tuple[str, ...] = ()

    def write(self, api: Api, question: Question) -> Body:
        """Return the body of a request that this service takes."""
        body = {**api.write(question), **question.more}
        for name in self.refused:
            if _sends(body, name):
                instead = _INSTEAD[name](body)
                body.pop(name, None)
                body |= instead
        return body

    def after(self, status: int | None, said: str, body: Body) -> "Dialect | None":
        """Return the dialect that leaves out what an answer refused; None for nothing.

        `said` is the text of the error. A field counts as refused if it was sent, the
        text names it, and the text says that it is not known rather than wrong.
        """
        if status not in _REFUSED_STATUS or not _REFUSAL.search(said):
            return None
        for name in _INSTEAD:
            named = re.search(rf"\b{name}\b", said)
            if named and name not in self.refused and _sends(body, name):
                return replace(self, refused=(*self.refused, name))
        return None

    def without(self, names: Sequence[str]) -> "Dialect":
        """Return the dialect that leaves these out too, where that is possible."""
        new = [n for n in names if n in _INSTEAD and n not in self.refused]
        return replace(self, refused=(*self.refused, *new))


def encode(body: Body) -> bytes:
    """Write a body as it goes over the wire."""
    return _encode(body)


def _sends(body: Body, name: str) -> bool:
    return name in body or name in (body.get("stream_options") or {})


def _limit(body: Body) -> Tokens:
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    return next((int(body[name]) for name in names if name in body), 0)
