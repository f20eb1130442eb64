"""A request inside an engine, and the record of a step."""

from dataclasses import dataclass, field
from enum import Enum

from ..units import Seconds, Tokens
from .blocks import Run


class State(Enum):
    """Where a sequence is in its life."""

    NEW = "new"
    WAITING = "waiting"
    FETCHING = "fetching"
    PREFILL = "prefill"
    DECODE = "decode"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class Kv(Enum):
    """Where the KV of a prompt comes from and goes to."""

    HERE = "here"
    """One engine serves the whole request."""
    SENT = "sent"
    """Computed here and kept after the last token, until it is released."""
    FETCHED = "fetched"
    """Computed elsewhere, with the first token; it has to arrive."""


# NOTE: a lookup in an enum's class is slow, and there are several for each sequence.
_NEW, _HERE, _FETCHED = State.NEW, Kv.HERE, Kv.FETCHED


class Sequence:
    """A request inside one engine. Identity-hashed; the engine alone changes it.

    `arrived_s`, `scheduled_s`, `first_s` and `last_s` are on the engine's clock: the
    stamp under which it was admitted, the start of the first step it was in, and the
    ends of the steps that gave its first and last token.
    """

    __slots__ = (
        "arrived_s",
        "blocks",
        "cached_tokens",
        "done",
        "first_clock",
        "first_s",
        "generated",
        "id",
        "kv",
        "last_clock",
        "last_s",
        "max_output_tokens",
        "output_tokens",
        "preemptions",
        "prefix_ids",
        "priority",
        "prompt_tokens",
        "reserved",
        "scheduled_s",
        "state",
        "tenant",
        "weight",
    )

    def __init__(
        self,
        name: str,
        prompt_tokens: Tokens,
        output_tokens: Tokens,
        *,
        max_output_tokens: Tokens | None = None,
        priority: int = 0,
        prefix_ids: tuple[int, ...] = (),
        kv: Kv = _HERE,
        tenant: str = "",
        weight: float = 1.0,
    ) -> None:
        if prompt_tokens < 1 or output_tokens < 1:
            raise ValueError(
                f"sequence {name}: needs at least one prompt and one output token,"
                f" got {prompt_tokens} and {output_tokens}"
            )
        if max_output_tokens is not None and max_output_tokens < output_tokens:
            raise ValueError(
                f"sequence {name}: {output_tokens} output tokens are more than the"
                f" {max_output_tokens} it declared"
            )
        if kv is _FETCHED and output_tokens == 1:
            raise ValueError(f"sequence {name}: its one token came with its prefill")
        self.id = name
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.max_output_tokens = max_output_tokens or output_tokens
        """What it declared (`max_tokens`): the true output may be shorter."""
        self.priority = priority
        """The lower the sooner, as in vLLM."""
        self.prefix_ids = prefix_ids
        """Of its whole prompt blocks: each names its tokens and all before them."""
        self.kv = kv
        self.tenant = tenant
        """Whose it is, for fair scheduling."""
        self.weight = weight
        """Its tenant's share, against that of others."""
        self.state = _NEW
        self.arrived_s: Seconds = 0.0
        self.scheduled_s: Seconds | None = None
        self.first_s: Seconds | None = None
        self.last_s: Seconds | None = None
        self.generated: Tokens = 0
        """Output tokens given before the present stay in the batch."""
        self.done: Tokens = 0
        """Prefilled tokens of the present stay in the batch."""
        self.first_clock: Tokens = 0
        """Token clock at the first token of the present stay in the batch."""
        self.last_clock: Tokens = 0
        """Token clock at which it has all its tokens."""
        self.preemptions = 0
        self.reserved = 0
        """Blocks taken at the present admission."""
        self.blocks: Run | None = None
        """The last of its blocks that the prefix cache knows; those above it too."""
        self.cached_tokens: Tokens | None = None
        """Prompt tokens that were cached when it was first admitted."""

    def __repr__(self) -> str:
        return (
            f"<Sequence {self.id} {self.state.value}"
            f" {self.prompt_tokens}+{self.generated}/{self.output_tokens}>"
        )

    def moved(self, generated: Tokens) -> "Sequence":
        """Return it as it arrives at another engine, its KV lost.

        It has so many output tokens already and keeps the instants at which it got
        them; prompt and tokens are to be computed again.
        """
        other = Sequence(
            self.id,
            self.prompt_tokens,
            self.output_tokens,
            max_output_tokens=self.max_output_tokens,
            priority=self.priority,
            prefix_ids=self.prefix_ids,
            kv=self.kv,
            tenant=self.tenant,
            weight=self.weight,
        )
        other.generated = generated
        other.preemptions = self.preemptions
        if self.first_s is not None:
            other.first_s, other.scheduled_s = self.first_s, self.scheduled_s
            other.cached_tokens = self.cached_tokens
        return other

    @property
    def target(self) -> Tokens:
        """Tokens to prefill before the next output: prompt and what was recomputed."""
        return self.prompt_tokens + self.generated


@dataclass(slots=True)
class Step:
    """What happened in one step, as planned at `start_s` and completed at `end_s`.

    Each of the `decoding` sequences was given `advance` tokens at `end_s`, but for the
    `clipped` ones that those in `finished` had no use for; each one in `started` (its
    prefill completed) got one. So a sequence that started when the token clock was at
    c has, while it stays in the batch, 1 + `clock` - c tokens more than it had before.
    `context` and `pairs` are the KV and A of the step law. `preempted` left the batch
    when the step was planned and got none.
    """

    index: int
    start_s: Seconds
    end_s: Seconds
    decoding: int
    prefill_tokens: Tokens
    context: Tokens
    pairs: float
    free_blocks: int
    clock: Tokens
    """The engine's token clock at the step's end."""
    advance: Tokens = 1
    clipped: Tokens = 0
    started: list[Sequence] = field(default_factory=list)
    finished: list[Sequence] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)

    @property
    def tokens(self) -> Tokens:
        """Output tokens given."""
        return self.decoding * self.advance - self.clipped + len(self.started)

    def line(self) -> str:
        """Write the step for a log: every figure, sequences by id, floats exactly."""
        names = ("+" + s.id for s in self.started)
        ends = ("-" + s.id for s in self.finished)
        outs = ("!" + s.id for s in self.preempted)
        many = "" if self.advance == 1 else f"x{self.advance}-{self.clipped}"
        return (
            f"{self.index} {self.start_s!r} {self.end_s!r} {self.decoding}{many}"
            f" {self.prefill_tokens} {self.context} {self.free_blocks} "
            + " ".join((*names, *ends, *outs))
        )
