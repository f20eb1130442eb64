"""A request that the plan intends."""

from typing import Any, NamedTuple, Self

import msgspec

from ..units import Seconds, Tokens
from .prompt import Message, block_ids


class Prefix(NamedTuple):
    """What a prompt has in common with others, as recorded: ids of its blocks.

    Equal ids mean equal tokens and equal tokens before them. The last block may be cut
    short by the prompt's end.
    """

    block_tokens: Tokens
    blocks: tuple[int, ...]

    def ids(self, prompt_tokens: Tokens, block_size: Tokens) -> tuple[int, ...]:
        """Return ids of the prompt's whole blocks of another size.

        A block is named by where it ends: the recorded block that holds its last token,
        and how deep inside. A prompt's partial last block has no id.
        """
        ends = range(block_size - 1, prompt_tokens, block_size)
        size = self.block_tokens
        return tuple(self.blocks[end // size] * size + end % size for end in ends)


# A struct as rows are, and for the same reason.
class Request(msgspec.Struct, frozen=True, gc=False):
    """What to ask, and when: `intended_s` is in seconds since the run's t0.

    `index` is the number of the arrival. Requests of one `conversation` depend on each
    other: those of a turn are due together, `think_s` after the last answer of the turn
    before, and only those of turn 0 at a time that is known beforehand. For the others
    `intended_s` is when the conversation begins, until they are due.
    """

    index: int
    intended_s: Seconds
    input_tokens: Tokens
    output_tokens: Tokens
    scenario: str = "chat"
    tenant: str = "default"
    stage: str = "generate"
    max_output_tokens: Tokens | None = None
    """What it declares (`max_tokens`); None: exactly what it gets."""
    priority: int = 0
    """The lower the sooner, as in vLLM."""
    prefix: Prefix | None = None
    conversation: str = ""
    """What it is a part of; empty for a request that stands alone."""
    turn: int = 0
    think_s: Seconds = 0.0
    messages: tuple[Message, ...] = ()
    """What it says, where that is not a text of its own; see `prompt`."""
    slice: str = ""
    """What its prompt was told apart by in the file that it came from."""
    flow: str = ""
    """Who asks it, where that is more than to send it; see `flow`."""
    kind: str = "generate"
    """`generate` or `embed`."""
    reasoning: str = ""
    """The effort of reasoning that it asks for."""
    model: str = ""
    """Whom it asks, where that is not the plan's model."""
    part: int = 0
    """Its place in its conversation, from 0."""
    extra: int = 0
    """What a flow asks beside the planned request is numbered from 1."""

    @property
    def number(self) -> str:
        """What tells it from the others of the run."""
        return f"{self.index}{self._suffix}"

    @property
    def _suffix(self) -> str:
        part = f".{self.part:02d}" if self.part else ""
        return part + (f"-{self.extra}" if self.extra else "")

    @property
    def id(self) -> str:
        """The same so that it sorts in plan order."""
        return f"{self.index:06}{self._suffix}"

    def but(self, **changes: Any) -> Self:
        """Return it with other values of these fields."""
        return msgspec.structs.replace(self, **changes)

    def block_ids(self, block_size: Tokens) -> tuple[int, ...]:
        """Return ids of its prompt's whole blocks, equal where prompts begin alike.

        None are given for a prompt that has nothing in common with any other.
        """
        if self.prefix is not None:
            return self.prefix.ids(self.input_tokens, block_size)
        return block_ids(self.messages, block_size)
