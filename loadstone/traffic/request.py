"""A request that the plan intends."""

from dataclasses import dataclass
from typing import NamedTuple

from ..units import Seconds, Tokens


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


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask, and when: `intended_s` is in seconds since the run's t0."""

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

    @property
    def id(self) -> str:
        """A name that is unique within the run and sorts in plan order."""
        return f"{self.index:06d}"
