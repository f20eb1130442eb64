"""The text of a planned prompt: equal names give equal text, of exactly their length.

A prompt that has nothing in common with any other is made from the request's number.
Lengths are exact by the token rule of the mock; for another endpoint they are drawn to
its own tokens by what its replies say of its tokenizer (`traffic.textfit`).
"""

from typing import TypedDict

from ..errors import UsageError
from ..traffic.prompt import Message, Span
from ..traffic.request import Prefix, Request
from ..traffic.textfit import OWN_RULE, TextFit
from ..units import Tokens
from .tokens import BYTES_PER_TOKEN, LEAST_PROMPT, PER_MESSAGE, salted


class ChatMessage(TypedDict):
    """A message as OpenAI's API has it."""

    role: str
    content: str


def messages_of(
    request: Request,
    salt: str = "",
    fit: TextFit = OWN_RULE,
    template: Tokens = PER_MESSAGE,
) -> list[ChatMessage]:
    """Return the messages of a prompt of the request's length.

    Another `salt` makes other text of all names. `template` is what the mock's rule
    adds for a message on this API. Raises `UsageError` for a prompt that is too short
    to be written.
    """
    if request.messages:
        return [
            {"role": message.role, "content": _content(message, salt, fit)}
            for message in request.messages
        ]
    if request.input_tokens < template:
        raise UsageError(
            f"a chat prompt of {request.input_tokens} tokens cannot be written",
            hint=f"its template has {template}: ask for {LEAST_PROMPT} or more",
        )
    tokens = fit.filler(request.input_tokens, template)
    if request.prefix is not None:
        content = _recorded(request.prefix, tokens, salt, fit)
    else:
        content = salted(tokens, f"{salt}{request.index}")
    return [{"role": "user", "content": content}]


def _content(message: Message, salt: str, fit: TextFit) -> str:
    if message.text is not None:
        return message.text
    return "".join(
        salted(_filler(span.tokens, fit), f"{salt}{span.name}")
        for span in message.spans
    )


def _filler(tokens: Tokens, fit: TextFit) -> Tokens:
    """Return how much filler makes so many tokens there, a template apart."""
    return round(tokens * fit.chars_per_token / BYTES_PER_TOKEN)


def _recorded(prefix: Prefix, tokens: Tokens, salt: str, fit: TextFit) -> str:
    """Return the text of recorded blocks; the template has the first one's first token.

    Two prompts have the same text exactly as far as their ids are the same.
    """
    spans, left = [], tokens
    for i, block in enumerate(prefix.blocks):
        whole = _filler(prefix.block_tokens, fit)
        room = whole - (PER_MESSAGE if i == 0 else 0)
        spans.append(Span(block, min(room, left)))
        left -= spans[-1].tokens
    return "".join(salted(span.tokens, f"{salt}block {span.name}") for span in spans)
