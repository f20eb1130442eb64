"""The text of a planned prompt: equal names give equal text, of exactly their length.

A prompt that has nothing in common with any other is made from the request's number.
"""

from typing import TypedDict

from ..traffic.prompt import Message, Span
from ..traffic.request import Prefix, Request
from ..units import Tokens
from .tokens import PER_MESSAGE, prompt_of, salted


class ChatMessage(TypedDict):
    """A message as OpenAI's API has it."""

    role: str
    content: str


def messages_of(request: Request, salt: str = "") -> list[ChatMessage]:
    """Return the messages of a chat prompt of exactly the request's length.

    Another `salt` makes other text of all names. Raises `UsageError` for a prompt that
    is too short to be written.
    """
    if request.messages:
        return [
            {"role": message.role, "content": _content(message, salt)}
            for message in request.messages
        ]
    if request.prefix is not None:
        content = _recorded(request.prefix, request.input_tokens - PER_MESSAGE, salt)
    else:
        content = prompt_of(request.input_tokens, f"{salt}{request.index}")
    return [{"role": "user", "content": content}]


def text_of_prompt(request: Request, salt: str = "") -> str:
    """Return the same as one text without a template, for what takes no messages."""
    if request.messages:
        return "".join(_content(message, salt) for message in request.messages)
    return salted(request.input_tokens, f"{salt}{request.index}")


def _content(message: Message, salt: str) -> str:
    if message.text is not None:
        return message.text
    return "".join(salted(span.tokens, f"{salt}{span.name}") for span in message.spans)


def _recorded(prefix: Prefix, tokens: Tokens, salt: str) -> str:
    """Return the text of recorded blocks; the template has the first one's first token.

    Two prompts have the same text exactly as far as their ids are the same.
    """
    spans, left = [], tokens
    for i, block in enumerate(prefix.blocks):
        room = prefix.block_tokens - (PER_MESSAGE if i == 0 else 0)
        spans.append(Span(block, min(room, left)))
        left -= spans[-1].tokens
    return "".join(salted(span.tokens, f"{salt}block {span.name}") for span in spans)
