"""Prompts of one's own, as they were read from a file."""

from dataclasses import dataclass

from ..units import Tokens
from .prompt import Message


@dataclass(frozen=True, slots=True)
class OwnTurn:
    """What is new in a turn, and how long its answer was; None where nobody says."""

    messages: tuple[Message, ...]
    output_tokens: Tokens | None = None


@dataclass(frozen=True, slots=True)
class OwnPrompt:
    """A prompt of one turn or a conversation of several."""

    turns: tuple[OwnTurn, ...]
    slice: str = ""

    @property
    def tokens(self) -> Tokens:
        """The length of the last turn's prompt, but for answers that nobody states."""
        return sum(
            sum(m.tokens for m in turn.messages) + (turn.output_tokens or 0)
            for turn in self.turns
        )
