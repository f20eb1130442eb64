"""A request that the plan intends."""

from dataclasses import dataclass

from ..units import Seconds, Tokens


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

    @property
    def id(self) -> str:
        """A name that is unique within the run and sorts in plan order."""
        return f"{self.index:06d}"
