"""Classes of traffic: what one kind of arrival asks, drawn from a seed before the run.

An arrival is a conversation of one or more turns. Each turn says all that was said
before, so prompts grow:

    turn 0   system, user
    turn 1   system, user, assistant, user

The answers in the history are the planned ones, text of exactly the planned length, so
that the same plan and seed ask the same whatever a server says.

With `branches` a turn that is not the last is followed by calls that run side by side,
each a request of its own beside the conversation; the next turn waits for all of them
and has what they brought in its prompt. That is an agent: steps that depend on each
other, with tools called in parallel between them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from ..units import Seconds, Tokens
from .fields import DURATION, POSITIVE, TEXT, Field, checked, one_of, read_table, whole
from .lengths import LENGTHS, NUMBERS, LengthSpec
from .profile import Profile

EFFORTS: Final = ("minimal", "low", "medium", "high")

FIELDS: Final = (
    Field(name="name", kind=TEXT, needed=True,
          text="what its requests are called: the scenario of their rows"),
    Field(name="text", kind=TEXT, text="what it is, in a line"),
    Field(name="weight", kind=POSITIVE, text="its share of the arrivals"),
    Field(name="tenant", kind=TEXT, text="whose requests they are, a [[tenant]]"),
    Field(name="kind", kind=one_of("generate", "embed"),
          text="generate answers, or embed the input"),
    Field(name="input", kind=LENGTHS, needed=True,
          text="tokens of what a user says in a turn"),
    Field(name="output", kind=LENGTHS, text="tokens of an answer"),
    Field(name="turns", kind=NUMBERS, text="turns of a conversation"),
    Field(name="think", kind=DURATION, into="think_s",
          text="mean pause between an answer and the next turn, exponential"),
    Field(name="system", kind=LENGTHS,
          text="tokens of the system prompt, which conversations share"),
    Field(name="system_prompts", kind=whole(1),
          text="how many different system prompts there are"),
    Field(name="context", kind=LENGTHS,
          text="tokens of a document that the first turn of a conversation brings"),
    Field(name="branches", kind=NUMBERS,
          text="calls side by side after each turn but the last"),
    Field(name="branch_input", kind=LENGTHS, text="tokens that a call is given"),
    Field(name="branch_output", kind=LENGTHS, text="tokens that a call brings back"),
    Field(name="branch_time", kind=DURATION, into="branch_s",
          text="mean time of a tool before its call is made, exponential"),
    Field(name="max_context", kind=whole(1),
          text="a conversation ends before prompt and answer would be longer"),
    Field(name="reasoning", kind=one_of(*EFFORTS),
          text="ask for reasoning of this effort, as part of the output"),
    Field(name="priority", kind=whole(-(1 << 31)),
          text="the lower the sooner, where the server knows priorities"),
    Field(name="profile", kind=checked(TEXT, Profile.parse),
          text="how its own rate goes over the run; without it, as the plan's"),
    Field(name="prompts", kind=TEXT,
          text="file with own prompts: JSON lines, CSV, ShareGPT"),
    Field(name="slice_by", kind=TEXT,
          text="column or field of that file by which results are told apart"),
    Field(name="flow", kind=TEXT,
          text="who asks each request, where that is more than to send it"),
)  # fmt: skip
"""The keys of `[[class]]` in a plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficClass:
    """One kind of arrival; see `FIELDS`. Lengths in tokens."""

    name: str
    input: LengthSpec
    output: LengthSpec = (1, 1)
    text: str = ""
    weight: float = 1.0
    tenant: str = "default"
    kind: str = "generate"
    turns: LengthSpec = (1, 1)
    think_s: Seconds = 0.0
    system: LengthSpec | None = None
    system_prompts: int = 1
    context: LengthSpec | None = None
    branches: LengthSpec | None = None
    branch_input: LengthSpec = (1, 1)
    branch_output: LengthSpec = (1, 1)
    branch_s: Seconds = 0.0
    max_context: Tokens | None = None
    reasoning: str = ""
    priority: int = 0
    profile: str | None = None
    prompts: str | None = None
    slice_by: str | None = None
    flow: str = ""

    @classmethod
    def from_toml(cls, table: Mapping[str, object]) -> Self:
        """Read a `[[class]]`; raises `KeyedError` naming the key that is wrong."""
        return cls(**read_table(FIELDS, table, "a class"))

    def to_toml(self) -> dict[str, Any]:
        """Return the same as TOML-ready values, defaults left out."""
        names = {each.into or each.name: each.name for each in FIELDS}
        return {
            names[each.name]: list(value) if isinstance(value, tuple) else value
            for each in fields(self)
            if (value := getattr(self, each.name)) != each.default
        }
