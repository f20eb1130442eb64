"""The sequences that decode, kept as sums: a step costs the same for any batch.

All decoding sequences advance together by what the token clock moves: one token a step,
or what speculation keeps. So nothing is kept per token. With `f` the clock when a
sequence got its first token, `c` the clock now and `P` the tokens it had prefilled, its
context is `P + 1 + c - f`. Hence the batch's context is `sum(P + 1 - f) + B c`, the
step that finishes it is known when it starts, and it needs a new block exactly when the
clock passes a value with `(P + drafts - f - 1 + c) % block_size == 0`: one counter per
residue says how many blocks a step needs.

Under speculation a sequence holds blocks for `draft_tokens` beyond its context, as
vLLM's lookahead slots; and a last step that overshoots its end takes the blocks that it
takes in any other step (vLLM allocates for all it verifies; only what has a declared
maximum reserved is clipped there, as in TensorRT-LLM). Tokens given are always exact.
"""

from typing import Final

from ..physics.speculation import Speculation
from ..units import Tokens
from .sequence import Sequence, State

_DECODE: Final = State.DECODE
"""NOTE: a lookup in an enum's class is slow, and there is one for each sequence."""


class Decoding:
    """The decoding part of one engine's batch, and its token clock."""

    __slots__ = (
        "_base", "_block_size", "_drafts", "_finishing", "_grows", "_growth", "clock",
        "count", "speculation", "steps",
    )  # fmt: skip

    def __init__(
        self, speculation: Speculation, block_size: Tokens, *, grows: bool
    ) -> None:
        """`grows`: blocks are taken as the context grows, and not all at admission."""
        self.speculation = speculation
        self.count = 0
        self.steps = 0
        """Steps completed."""
        self.clock: Tokens = 0
        """The token clock after them."""
        self._drafts = speculation.draft_tokens
        self._block_size = block_size
        self._grows = grows
        self._base = 0
        self._growth = [0] * block_size
        self._finishing: dict[int, list[Sequence]] = {}
        """Who gets the last token in which step, in the order in which they joined."""

    def __repr__(self) -> str:
        return f"<Decoding {self.count} at clock {self.clock}>"

    @property
    def context(self) -> Tokens:
        """Tokens of context that the next step reads."""
        return self._base + self.count * self.clock

    def growth(self) -> int:
        """Count the blocks that the next step needs."""
        size, clock = self._block_size, self.clock
        if not self._drafts:
            return self._growth[-(clock + 1) % size]
        then = self.speculation.clock(self.steps + 1)
        return sum(self._growth[-c % size] for c in range(clock + 1, then + 1))

    def ahead(self) -> tuple[Tokens, Tokens]:
        """Return the token clock after the next step, and the tokens it is too many.

        The latter are those by which it overshoots ends of sequences.
        """
        if not self._drafts:
            return self.clock + 1, 0
        clock = self.speculation.clock(self.steps + 1)
        ending = self._finishing.get(self.steps, ())
        return clock, sum(clock - seq.last_clock for seq in ending)

    def join(self, seq: Sequence) -> None:
        """Let `seq` decode; its first token of this stay is from this very instant."""
        clock = self.clock
        seq.state = _DECODE
        seq.first_clock = clock
        seq.last_clock = clock + seq.output_tokens - seq.generated - 1
        self.count += 1
        self._base += seq.done + 1 - clock
        if self._grows:
            # NOTE: written out twice, for a call costs 2 % of an offline run.
            residue = (seq.done + self._drafts - clock - 1) % self._block_size
            self._growth[residue] += 1
        last = self._last_step(seq) if self._drafts else seq.last_clock - 1
        ending = self._finishing.get(last)
        if ending is None:
            self._finishing[last] = [seq]
        else:
            ending.append(seq)

    def leave(self, seq: Sequence, *, ended: bool) -> Tokens:
        """Take `seq` out; returns the tokens of context that it had blocks for."""
        done, first = seq.done, seq.first_clock
        self.count -= 1
        self._base -= done + 1 - first
        if self._grows:
            self._growth[(done + self._drafts - first - 1) % self._block_size] -= 1
        if not ended:
            self._finishing[self._last_step(seq)].remove(seq)
        return done + self.clock - first

    def end_step(self) -> list[Sequence]:
        """Complete a step whose clock is set; returns who got the last token."""
        ending = self._finishing.pop(self.steps, None)
        self.steps += 1
        return [] if ending is None else ending

    def _last_step(self, seq: Sequence) -> int:
        return self.speculation.steps_to(seq.last_clock) - 1
