"""The engine: continuous batching, pure and synchronous, under any clock.

Theory of operation ------------------- An engine is always either idle or inside one
step. `step()` completes the step it is in and plans the next, which starts at that
instant; an idle engine starts at the stamp of its first arrival. Planning looks only at
arrivals and cancellations stamped at or before the start of the step, however late it
is called. So the schedule is a function of the stamps alone: a live run's stamps,
replayed in virtual time with the same seed, give the identical step log.

The schedule is vLLM v1's: running sequences first (one token each, then the rest of a
partial prefill), then waiting ones first come first served, under
`max_num_batched_tokens` and `max_num_seqs`. KV is held in blocks. When a block is
missing, the sequence admitted last is preempted: its blocks are freed, it goes to the
front of the queue and is recomputed later; a step that preempted admits nobody.
`policy` has what other engines do at admission, `order` what priorities change, and
`blocks` the prefix cache: what it has of a prompt is neither prefilled nor attended
from again, but at least one token always is.

Why a step costs O(admitted + finished) and not O(batch)
-------------------------------------------------------- All decoding sequences advance
together, one token a step, so nothing is kept per token. With `f` the step that gave a
sequence its first token and `P` the tokens it had prefilled, at step `n` its context is
`P + n - f`. Hence the batch's context is `sum(P - f) + B n`, the step that finishes it
is known when it starts, and it needs a new block exactly at the steps with `(P - f - 1
+ n) % block_size == 0`: one counter per residue says how many blocks a step needs.
"""

from collections import deque
from math import inf, nextafter
from random import Random

from ..errors import UsageError
from ..physics.limits import EngineLimits
from ..physics.steplaw import StepLaw
from ..units import Seconds, Tokens
from .blocks import BlockPool
from .order import ORDERS
from .policy import find_policy
from .sequence import Sequence, State, Step


class Engine:
    """One engine replica. All instants are seconds on the clock of whoever calls it."""

    def __init__(
        self,
        limits: EngineLimits,
        law: StepLaw,
        rng: Random,
        *,
        policy: str = "vllm",
        scheduling_policy: str = "fcfs",
        prefix_caching: bool = True,
    ) -> None:
        """Raise `UsageError` for a combination that is not modelled."""
        self.limits = limits
        self.policy = find_policy(policy)
        self.policy.check(limits)
        if scheduling_policy not in ORDERS:
            raise UsageError(
                f"no scheduling policy {scheduling_policy!r}",
                hint=f"one of {', '.join(ORDERS)}",
            )
        if scheduling_policy != "fcfs":
            self.policy.refuse_extra("scheduling by priority", "use policy vllm")
        self.scheduling_policy = scheduling_policy
        self.prefix_caching = prefix_caching
        self.law = law
        self._rng = rng
        self._inbox: deque[tuple[Seconds, bool, Sequence]] = deque()
        self._last_stamp: Seconds = -inf
        self._start: Seconds = -inf
        """Start of the step planned last: what comes later than that must be stamped
        later."""
        self._index = 0
        self._planned: Step | None = None
        self._queue = ORDERS[scheduling_policy]()
        self._running: dict[Sequence, None] = {}
        self._partial: Sequence | None = None
        self._decoding = 0
        self._context_base = 0
        self._pool = BlockPool(limits.kv_blocks)
        self._chunk_unit = limits.block_size if self.policy.whole_chunks else 1
        self._growth = [0] * limits.block_size
        self._finishing: dict[int, list[Sequence]] = {}
        self.waiting = 0
        """Sequences waiting to be admitted, those preempted included."""
        self.waiting_output_tokens: Tokens = 0
        """Output tokens that the waiting sequences still want."""
        self.preemptions = 0
        self.prompt_tokens_done: Tokens = 0
        """Tokens prefilled, recomputed ones included."""
        self.generated_tokens: Tokens = 0
        self.computed_tokens: Tokens = 0
        """Tokens that went through the GEMMs of the completed steps."""
        self.context_read: Tokens = 0
        """Tokens of context that their decode attention read."""
        self._busy_s: Seconds = 0.0
        """Time inside completed steps."""
        self.prefix_cache_queries: Tokens = 0
        """Prompt tokens of those admitted, each counted once, if caching is on."""
        self.prefix_cache_hits: Tokens = 0
        """Those of them that were cached."""

    def __repr__(self) -> str:
        return (
            f"<Engine step {self._index} running={self.running} waiting={self.waiting}"
            f" kv={self.kv_usage:.1%} due={self.due}>"
        )

    # ---------------------------------------------------------------- what can be seen

    @property
    def due(self) -> Seconds | None:
        """When `step()` is to be called next; None while there is nothing to do."""
        if self._planned is not None:
            return self._planned.end_s
        return self._inbox[0][0] if self._inbox else None

    @property
    def running(self) -> int:
        """Sequences in the batch, one that is partly prefilled included."""
        return len(self._running)

    @property
    def kv_usage(self) -> float:
        """Share of KV blocks in use, 0 to 1; what is only cached is not in use."""
        return 1.0 - self._pool.free / self.limits.kv_blocks

    @property
    def max_model_len(self) -> Tokens:
        """Most tokens of prompt and output together."""
        return self.limits.max_model_len

    @property
    def steps(self) -> int:
        """Steps completed."""
        return self._index

    def busy_s(self, now: Seconds) -> Seconds:
        """Return the time spent inside steps up to `now`; it never falls."""
        step = self._planned
        inside = min(now, step.end_s) - step.start_s if step else 0.0
        return self._busy_s + max(0.0, inside)

    @property
    def token_rate(self) -> float:
        """Output tokens per second of the step it is in; 0 when idle."""
        step = self._planned
        return step.tokens / (step.end_s - step.start_s) if step else 0.0

    # ---------------------------------------------------------------- what comes in

    def submit(self, seq: Sequence, at: Seconds) -> Seconds:
        """Let `seq` arrive at `at` and return its effective stamp.

        The stamp is moved past the start of the step planned last, and past earlier
        stamps, so that replaying it gives the same schedule. Raises `UsageError` when
        the sequence could never be served.
        """
        self._check(seq)
        seq.arrived_s = self._stamp(at)
        seq.state = State.WAITING
        self._inbox.append((seq.arrived_s, True, seq))
        self.waiting += 1
        self.waiting_output_tokens += seq.output_tokens
        return seq.arrived_s

    def _check(self, seq: Sequence) -> None:
        if seq.prompt_tokens + seq.max_output_tokens > self.limits.max_model_len:
            raise UsageError(
                f"{seq.prompt_tokens} prompt and {seq.max_output_tokens} output tokens"
                f" are more than max_model_len ({self.limits.max_model_len})",
                code="context_length_exceeded",
            )
        if seq.priority and self.scheduling_policy == "fcfs":
            raise UsageError(
                f"priority {seq.priority}: scheduling is first come, first served",
                hint="use scheduling_policy priority",
            )
        if not (seq.prefix_ids and self.prefix_caching):
            return
        self.policy.refuse_extra("a prefix cache", "turn prefix caching off")
        if len(seq.prefix_ids) * self.limits.block_size > seq.prompt_tokens:
            raise UsageError(
                f"{len(seq.prefix_ids)} prefix blocks of {self.limits.block_size}"
                f" tokens are more than the prompt's {seq.prompt_tokens}",
                hint="prefix_ids are of whole blocks only",
            )
        if len(set(seq.prefix_ids)) < len(seq.prefix_ids):
            raise UsageError(
                f"sequence {seq.id}: two of its blocks have the same prefix id",
                hint="an id names a block's tokens and all before them",
            )

    def cancel(self, seq: Sequence, at: Seconds) -> Seconds:
        """Take `seq` out at the first step from `at` on; an ended one is left alone."""
        stamp = self._stamp(at)
        self._inbox.append((stamp, False, seq))
        return stamp

    def _stamp(self, at: Seconds) -> Seconds:
        stamp = at if at > self._start else nextafter(self._start, inf)
        self._last_stamp = max(stamp, self._last_stamp)
        return self._last_stamp

    # ---------------------------------------------------------------- what happens

    def step(self) -> Step | None:
        """Complete the step that is due and plan the next one.

        Returns the completed step, or None when the engine was idle and only began one.
        Raises `RuntimeError` when nothing is due.
        """
        due = self.due
        if due is None:
            raise RuntimeError(f"{self!r} has nothing to do")
        done = self._planned
        if done is not None:
            self._complete(done)
        self._planned = self._plan(due)
        return done

    def _plan(self, start: Seconds) -> Step | None:
        self._start = start
        self._admit_events(start)
        preempted: list[Sequence] = []
        growth = self._preempt_until(0, preempted)
        budget = self.limits.max_num_batched_tokens - self._decoding
        chunks = self._continue_partial(budget, growth, preempted)
        # A prompt that is still cut short is first in line for what is left.
        if not preempted and self._partial is None:
            self._admit_waiting(budget - sum(n for _, n in chunks), chunks)
        if not self._decoding and not chunks:
            return None
        return self._price(start, chunks, preempted)

    def _price(
        self,
        start: Seconds,
        chunks: list[tuple[Sequence, Tokens]],
        preempted: list[Sequence],
    ) -> Step:
        prefill = 0
        pairs = 0.0
        started = []
        for seq, n in chunks:
            prefill += n
            pairs += n * (seq.done + 0.5 * n)
            seq.done += n
            if seq.done == seq.target:
                started.append(seq)
        decoding = self._decoding
        context = self._context_base + decoding * self._index
        expected = self.law.seconds(decoding, prefill, context, pairs)
        end = start + expected * self.law.noise(self._rng)
        return Step(
            self._index, start, end, decoding, prefill, context, pairs, self._pool.free,
            started, [], preempted,
        )  # fmt: skip

    def _complete(self, step: Step) -> None:
        for seq in step.started:
            self._join(seq, step)
        for seq in self._finishing.pop(step.index, ()):
            # An entry is stale when its sequence was preempted or cancelled since.
            if seq.state is State.DECODE and seq.finish_step == step.index:
                self._leave(seq, State.FINISHED, seq.output_tokens)
                seq.last_s = step.end_s
                step.finished.append(seq)
        self.prompt_tokens_done += step.prefill_tokens
        self.generated_tokens += step.tokens
        self.computed_tokens += step.decoding + step.prefill_tokens
        self.context_read += step.context
        self._busy_s += step.end_s - step.start_s
        self._index += 1

    # ---------------------------------------------------------------- planning, part by
    # part

    def _admit_events(self, start: Seconds) -> None:
        inbox = self._inbox
        while inbox and inbox[0][0] <= start:
            _, arrives, seq = inbox.popleft()
            if arrives:
                self._queue.arrive(seq)
            else:
                self._remove(seq)

    def _preempt_until(self, more: int, preempted: list[Sequence]) -> int:
        """Preempt until decoding can go on and, with it, the partial prefill.

        The latter needs `more` blocks, and no longer does once it is out itself.
        Returns the blocks that decoding needs.
        """
        partial = self._partial
        growth, residue = self._growth, -self._index % self.limits.block_size
        while growth[residue] + more > self._pool.free:
            preempted.append(self._preempt_worst())
            if preempted[-1] is partial:
                more = 0
        return growth[residue]

    def _continue_partial(
        self, budget: Tokens, growth: int, preempted: list[Sequence]
    ) -> list[tuple[Sequence, Tokens]]:
        """Take the blocks of decoding and of the partial prefill's next chunk."""
        seq = self._partial
        n = self._chunk(seq.target - seq.done, budget) if seq else 0
        if seq is None or n == 0:
            if growth:
                self._pool.take(growth)
            return []
        held = max(self._blocks(seq.done), seq.reserved)
        blocks = max(0, self._blocks(seq.done + n) - held)
        self._pool.take(self._preempt_until(blocks, preempted))
        if self._partial is None:
            return []
        self._pool.take(blocks)
        if seq.prefix_ids:
            self._name_blocks(seq, seq.done + n)
        if seq.done + n == seq.target:
            self._partial = None
        return [(seq, n)]

    def _admit_waiting(
        self, budget: Tokens, chunks: list[tuple[Sequence, Tokens]]
    ) -> None:
        while budget > 0 and len(self._running) < self.limits.max_num_seqs:
            seq = self._queue.head()
            n = self._admit(seq, budget) if seq else 0
            if seq is None or n == 0:
                break
            chunks.append((seq, n))
            budget -= n
            if self._partial is not None:
                break

    def _admit(self, seq: Sequence, budget: Tokens) -> Tokens:
        """Let the head of the queue in and return its first chunk, 0 if it stays."""
        # NOTE: `if seq.prefix_ids` spares plain traffic what it does not use; 10 % of
        # an offline run of 72 engines.
        found, idle = self._cached(seq) if seq.prefix_ids else (0, 0)
        start = found * self.limits.block_size
        n = self._chunk(seq.target - start, budget)
        reserved = self._blocks(self.policy.room(seq, start + n))
        pool, new = self._pool, reserved - found
        if n == 0 or new + idle > pool.free:
            return 0
        self._queue.admit(self._running)
        self.waiting -= 1
        self.waiting_output_tokens -= seq.output_tokens - seq.generated
        seq.reserved = reserved
        if found:
            seq.blocks = seq.prefix_ids[:found]
            pool.hold(seq.blocks)
            seq.done = start
        pool.take(new)
        if seq.prefix_ids:
            self._name_blocks(seq, start + n)
        if seq.cached_tokens is None:
            self._count_cached(seq, start)
        seq.state = State.PREFILL
        if seq.scheduled_s is None:
            seq.scheduled_s = self._start
        if start + n < seq.target:
            self._partial = seq
        return n

    def _chunk(self, rest: Tokens, budget: Tokens) -> Tokens:
        return rest if rest <= budget else budget - budget % self._chunk_unit

    def _cached(self, seq: Sequence) -> tuple[int, int]:
        """Count the blocks it need not compute, and those of them that are idle.

        Its last token it must always compute.
        """
        if not self.prefix_caching:
            return 0, 0
        most = (seq.target - 1) // self.limits.block_size
        return self._pool.find(seq.prefix_ids[:most])

    def _name_blocks(self, seq: Sequence, end: Tokens) -> None:
        if self.prefix_caching:
            filled = end // self.limits.block_size
            seq.blocks = self._pool.name(seq.blocks, seq.prefix_ids, filled)

    def _count_cached(self, seq: Sequence, cached: Tokens) -> None:
        if self.prefix_caching:
            seq.cached_tokens = cached
            self.prefix_cache_queries += seq.prompt_tokens
            self.prefix_cache_hits += cached

    # ---------------------------------------------------------------- a sequence's
    # moves

    def _join(self, seq: Sequence, step: Step) -> None:
        seq.state = State.DECODE
        seq.first_step = step.index
        seq.finish_step = step.index + seq.output_tokens - seq.generated - 1
        if seq.first_s is None:
            seq.first_s = step.end_s
        self._decoding += 1
        self._context_base += seq.done - step.index
        if self.policy.grows:
            self._growth[self._residue(seq)] += 1
        self._finishing.setdefault(seq.finish_step, []).append(seq)

    def _leave(self, seq: Sequence, state: State, generated: Tokens) -> None:
        """Take a sequence out of the batch and free its blocks.

        `generated` is its count of output tokens by now. Its context holds all of them
        but the newest, plus what it had prefilled.
        """
        context = seq.done
        if seq.state is State.DECODE:
            context += generated - seq.generated - 1
            self._decoding -= 1
            self._context_base -= seq.done - seq.first_step
            if self.policy.grows:
                self._growth[self._residue(seq)] -= 1
        elif seq is self._partial:
            self._partial = None
        self._pool.release(seq.blocks, max(self._blocks(context), seq.reserved))
        seq.blocks = ()
        del self._running[seq]
        seq.state = state
        seq.generated = generated
        seq.done = 0

    def _preempt_worst(self) -> Sequence:
        seq = self._queue.worst(self._running)
        self._leave(seq, State.WAITING, self._generated_by_now(seq))
        self._queue.put_back(seq)
        self.waiting += 1
        self.waiting_output_tokens += seq.output_tokens - seq.generated
        self.preemptions += 1
        seq.preemptions += 1
        return seq

    def _remove(self, seq: Sequence) -> None:
        if seq.state is State.WAITING:
            seq.state = State.CANCELLED
            self.waiting -= 1
            self.waiting_output_tokens -= seq.output_tokens - seq.generated
        elif seq.state in (State.PREFILL, State.DECODE):
            self._leave(seq, State.CANCELLED, self._generated_by_now(seq))

    def _generated_by_now(self, seq: Sequence) -> Tokens:
        """Output tokens given before the step that is being planned."""
        stay = self._index - seq.first_step if seq.state is State.DECODE else 0
        return seq.generated + stay

    def _residue(self, seq: Sequence) -> int:
        return (seq.done - seq.first_step - 1) % self.limits.block_size

    def _blocks(self, tokens: Tokens) -> int:
        return -(-tokens // self.limits.block_size)
