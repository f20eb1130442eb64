"""The engine: continuous batching, pure and synchronous, under any clock.

An engine is always either idle or inside one step. `step()` completes the step it is in
and plans the next, which starts at that instant; an idle engine starts at the stamp of
the first event it is told. Planning looks only at events (arrivals, cancellations, KV
that arrived or was sent) stamped at or before the start of the step, or some steps
earlier (`physics.pipeline`), however late it is called. So the schedule is a function
of the stamps alone: a live run's stamps, replayed in virtual time with the same seed,
give the identical step log.

The schedule is vLLM v1's: running sequences first (their next token each, then the rest
of a partial prefill), then waiting ones first come first served, under
`max_num_batched_tokens` and `max_num_seqs`. KV is held in blocks. When a block is
missing, the sequence admitted last is preempted: its blocks are freed, it goes to the
front of the queue and is recomputed later; a step that preempted admits nobody.
`policy` has what other engines do at admission, `order` what priorities change, and
`blocks` the prefix cache: what it has of a prompt is neither prefilled nor attended
from again, but at least one token always is. `disaggregated` has what becomes of a
sequence whose KV is sent or fetched.

A step costs O(admitted + finished) and not O(batch): `decoding` says why.
"""

from collections import deque
from collections.abc import Callable
from math import inf, nextafter
from random import Random
from typing import Any, Final

from ..errors import UsageError
from ..physics.limits import EngineLimits
from ..physics.pipeline import DIRECT, Pipeline
from ..physics.speculation import PLAIN, Speculation
from ..physics.steplaw import StepLaw
from ..units import Seconds, Tokens
from .blocks import BlockPool
from .decoding import Decoding
from .order import ORDERS, Order
from .policy import find_policy
from .sequence import Kv, Sequence, State, Step

Event = Callable[[Any], None]
"""What is done at the next planning: to a sequence, or to the engine."""

_BY: Final = {
    "fcfs": "first come, first served",
    "priority": "priority",
    "fair": "fair shares",
}

# NOTE: a lookup in an enum's class is slow, and there are several for each sequence.
_WAITING, _PREFILL = State.WAITING, State.PREFILL
_DECODE, _FINISHED = State.DECODE, State.FINISHED
_FETCHED, _SENT = Kv.FETCHED, Kv.SENT


class Engine:
    """One engine replica. All instants are seconds on the clock of whoever calls it."""

    # NOTE: instances with more than 30 fields share no keys; without slots a request of
    # a rack of 72 took 1 us longer.
    __slots__ = (
        "_arrive", "_block_size", "_busy_s", "_chunk_unit", "_decoding", "_drafts",
        "_inbox", "_kept", "_last_stamp", "_pace", "_partial", "_pipeline", "_planned",
        "_pool", "_queue", "_rng", "_running", "_start", "_waiting_of",
        "computed_tokens", "context_read", "due",
        "generated_tokens", "granted", "law", "limits", "policy", "preemptions",
        "prefix_cache_hits", "prefix_cache_queries", "prefix_caching",
        "prompt_tokens_done", "running", "scheduling_policy", "waiting",
        "waiting_output_tokens",
    )  # fmt: skip

    def __init__(
        self,
        limits: EngineLimits,
        law: StepLaw,
        rng: Random,
        *,
        policy: str = "vllm",
        scheduling_policy: str = "fcfs",
        prefix_caching: bool = True,
        speculation: Speculation = PLAIN,
        pipeline: Pipeline = DIRECT,
    ) -> None:
        """Raise `UsageError` for a combination that is not modelled."""
        speculation.check(limits)
        self.limits = limits
        self.policy = find_policy(policy)
        self.policy.check(limits)
        self.scheduling_policy = scheduling_policy
        self.prefix_caching = prefix_caching
        self.law = law
        self._rng = rng
        self._inbox: deque[tuple[Seconds, Event, Any]] = deque()
        self._pace, self._pipeline = 1.0, None if pipeline == DIRECT else pipeline
        self._last_stamp: Seconds = -inf
        self._start: Seconds = -inf
        """Start of the step planned last: what comes later than that must be stamped
        later."""
        self.due: Seconds | None = None
        """When `step()` is to be called next; None while there is nothing to do."""
        self._planned: Step | None = None
        self._queue = self._find_order(scheduling_policy)
        self._arrive = self._queue.arrive
        self._running: dict[Sequence, None] = {}
        self._partial: Sequence | None = None
        self._decoding = Decoding(
            speculation, limits.block_size, grows=self.policy.grows
        )
        self._pool = BlockPool(limits.kv_blocks)
        self._drafts = speculation.draft_tokens
        self._block_size = limits.block_size
        self._chunk_unit = limits.block_size if self.policy.whole_chunks else 1
        self._kept: dict[Sequence, int] = {}
        """Blocks of those that ended and whose KV is to be sent."""
        self.granted: list[Sequence] = []
        """Those that the step planned last gave blocks and a place, to be fetched."""
        # NOTE: plain numbers: a router looks at every engine for each request, and a
        # property for `running` took it 3 us more on a rack of 72.
        self.running = self.waiting = 0
        """Sequences in the batch, one that is partly prefilled included, and those that
        wait to be admitted, those preempted included."""
        self.waiting_output_tokens: Tokens = 0
        """Output tokens that the waiting sequences still want."""
        self._waiting_of: dict[str, int] | None
        self._waiting_of = {} if scheduling_policy == "fair" else None
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

    def _find_order(self, scheduling_policy: str) -> Order:
        if scheduling_policy not in ORDERS:
            raise UsageError(
                f"no scheduling policy {scheduling_policy!r}",
                hint=f"one of {', '.join(ORDERS)}",
            )
        if scheduling_policy != "fcfs":
            self.policy.refuse_extra(
                f"scheduling by {_BY[scheduling_policy]}", "use policy vllm"
            )
        return ORDERS[scheduling_policy]()

    def __repr__(self) -> str:
        return (
            f"<Engine step {self.steps} running={self.running} waiting={self.waiting}"
            f" kv={self.kv_usage:.1%} due={self.due}>"
        )

    # ---------------------------------------------------------------- what can be seen

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
        return self._decoding.steps

    def waiting_of(self, tenant: str) -> int:
        """Return how many of a tenant's wait; known under fair scheduling alone."""
        if self._waiting_of is None:
            raise RuntimeError(f"{self!r} does not tell tenants apart")
        return self._waiting_of.get(tenant, 0)

    @property
    def clock(self) -> Tokens:
        """The token clock after the steps completed."""
        return self._decoding.clock

    def given(self, seq: Sequence) -> Tokens:
        """Return the output tokens that `seq`, which is here, has by now."""
        return self._generated_by_now(seq)

    @property
    def start_s(self) -> Seconds:
        """Start of the step planned last, or when there was nothing left to plan."""
        return self._start

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
        self.check(seq)
        stamp = seq.arrived_s = self._note(at, self._arrive, seq)
        seq.state = _WAITING
        self._count_waiting(seq, 1)
        return stamp

    def check(self, seq: Sequence) -> None:
        """Raise `UsageError` for what could never be served here."""
        if seq.prompt_tokens + seq.max_output_tokens > self.limits.max_model_len:
            raise UsageError(
                f"{seq.prompt_tokens} prompt and {seq.max_output_tokens} output tokens"
                f" are more than max_model_len ({self.limits.max_model_len})",
                code="context_length_exceeded",
            )
        if seq.priority and self.scheduling_policy != "priority":
            raise UsageError(
                f"priority {seq.priority}: scheduling is {_BY[self.scheduling_policy]}",
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

    def cancel(self, seq: Sequence, at: Seconds) -> Seconds:
        """Take `seq` out at the first step from `at` on; an ended one is left alone."""
        return self._note(at, self._remove, seq)

    def receive(self, seq: Sequence, at: Seconds) -> Seconds:
        """Let `seq`, which was granted, decode from `at` on: its KV has arrived."""
        return self._note(at, self._enter, seq)

    def release(self, seq: Sequence, at: Seconds) -> Seconds:
        """Free the blocks that `seq` kept to be sent, at the first step from `at` on.

        A sequence that keeps none is left alone.
        """
        return self._note(at, self._free_kept, seq)

    def pace(self, factor: float, at: Seconds) -> Seconds:
        """Let every step planned from `at` on take `factor` times what the law says."""
        return self._note(at, self._set_pace, factor)

    def restart(self, at: Seconds) -> Seconds:
        """Come up with empty KV at the first step from `at` on.

        Every sequence must have been cancelled by then.
        """
        return self._note(at, self._start_empty, None)

    def _note(self, at: Seconds, event: Event, subject: Any) -> Seconds:
        stamp = at if at > self._start else nextafter(self._start, inf)
        self._last_stamp = stamp = max(stamp, self._last_stamp)
        self._inbox.append((stamp, event, subject))
        if self.due is None:
            self.due = stamp
        return stamp

    # ---------------------------------------------------------------- what happens

    def step(self) -> Step | None:
        """Complete the step that is due and plan the next one.

        Returns the completed step, or None when the engine was idle and only began one.
        Raises `RuntimeError` when nothing is due.
        """
        start = self.due
        if start is None:
            raise RuntimeError(f"{self!r} has nothing to do")
        done = self._planned
        if done is not None:
            self._complete(done)
        planned = self._planned = self._plan(start)
        if planned is not None:
            self.due = planned.end_s
        else:
            # An overlap may leave what is stamped before this very instant.
            self.due = max(start, self._inbox[0][0]) if self._inbox else None
        return done

    def _plan(self, start: Seconds) -> Step | None:
        self._start = start
        self.granted = []
        inbox, seen, gathers = self._inbox, start, True
        done, pipeline = self._planned, self._pipeline
        if pipeline is not None and done is not None and self._busy:
            seen -= pipeline.overlap_steps * (start - done.start_s)
            gathers = self.steps % pipeline.gather_steps == 0
        while inbox and inbox[0][0] <= seen:
            _, event, subject = inbox.popleft()
            event(subject)
        preempted: list[Sequence] = []
        chunks: list[tuple[Sequence, Tokens]] = []
        batch = self._decoding
        growth = batch.growth()
        if growth > self._pool.free:
            growth = self._preempt_until(0, preempted)
        budget = self.limits.max_num_batched_tokens - batch.count * (1 + self._drafts)
        partial = self._partial
        if partial is not None:
            n = self._continue_partial(partial, budget, growth, preempted)
            if n:
                chunks.append((partial, n))
                budget -= n
        elif growth:
            self._pool.take(growth)
        # A prompt that is still cut short is first in line for what is left.
        if gathers and not preempted and self._partial is None:
            self._admit_waiting(budget, chunks)
        if not batch.count and not chunks:
            return None
        return self._price(start, chunks, preempted)

    @property
    def _busy(self) -> bool:
        return self._decoding.count > 0 or self._partial is not None

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
            if seq.done == seq.prompt_tokens + seq.generated:
                started.append(seq)
        batch = self._decoding
        count, steps, context = batch.count, batch.steps, batch.context
        expected = self.law.seconds(
            count, prefill, context, pairs, count * self._drafts
        )
        end = start + expected * self.law.noise(self._rng) * self._pace
        clock, clipped = batch.ahead()
        return Step(
            steps, start, end, count, prefill, context, pairs, self._pool.free, clock,
            clock - batch.clock, clipped, started, [], preempted,
        )  # fmt: skip

    def _complete(self, step: Step) -> None:
        batch, end = self._decoding, step.end_s
        batch.clock = step.clock
        for seq in step.started:
            batch.join(seq)
            if seq.first_s is None:
                seq.first_s = end
        step.finished = batch.end_step()
        for seq in step.finished:
            self._leave(seq, _FINISHED, seq.output_tokens)
            seq.last_s = end
        self.prompt_tokens_done += step.prefill_tokens
        self.generated_tokens += step.tokens
        self.computed_tokens += step.decoding * (1 + self._drafts) + step.prefill_tokens
        self.context_read += step.context
        self._busy_s += end - step.start_s

    # ---------------------------------------------------------------- planning, part by
    # part

    def _preempt_until(self, more: int, preempted: list[Sequence]) -> int:
        """Preempt until decoding can go on and, with it, the partial prefill.

        The latter needs `more` blocks, and no longer does once it is out itself.
        Returns the blocks that decoding needs.
        """
        partial = self._partial
        while (growth := self._decoding.growth()) + more > self._pool.free:
            preempted.append(self._preempt_one())
            if preempted[-1] is partial:
                more = 0
        return growth

    def _continue_partial(
        self,
        seq: Sequence,
        budget: Tokens,
        growth: int,
        preempted: list[Sequence],
    ) -> Tokens:
        """Take the blocks of decoding and of the partial prefill's next chunk.

        Returns the chunk's tokens; 0 where there is no room for one.
        """
        n = self._chunk(seq.target - seq.done, budget)
        if n == 0:
            self._pool.take(growth)
            return 0
        held = max(self._blocks(seq.done), seq.reserved)
        blocks = max(0, self._blocks(seq.done + n) - held)
        self._pool.take(self._preempt_until(blocks, preempted))
        if self._partial is None:
            return 0
        self._pool.take(blocks)
        if seq.prefix_ids and self.prefix_caching:
            filled = (seq.done + n) // self._block_size
            seq.blocks = self._pool.name(seq.blocks, seq.prefix_ids, filled)
        if seq.done + n == seq.target:
            self._partial = None
        return n

    def _admit_waiting(
        self, budget: Tokens, chunks: list[tuple[Sequence, Tokens]]
    ) -> None:
        running, most, head = self._running, self.limits.max_num_seqs, self._queue.head
        while budget > 0 and len(running) < most:
            seq = head()
            if seq is None:
                break
            if seq.kv is _FETCHED:
                if not self._grant(seq):
                    break
                continue
            n = self._admit(seq, budget)
            if n == 0:
                break
            chunks.append((seq, n))
            budget -= n
            if self._partial is not None:
                break

    def _admit(self, seq: Sequence, budget: Tokens) -> Tokens:
        """Let the head of the queue in and return its first chunk, 0 if it stays."""
        # NOTE: `if ids` spares plain traffic what it does not use; 10 % of an offline
        # run of 72 engines.
        pool, size = self._pool, self._block_size
        ids = seq.prefix_ids if self.prefix_caching else ()
        target = seq.prompt_tokens + seq.generated
        found = idle = start = 0
        if ids:
            # Its last token it must always compute.
            found, idle, run = pool.find(ids, min(len(ids), (target - 1) // size))
            start = found * size
        n = self._chunk(target - start, budget)
        reserved = self._blocks(self.policy.room(seq, start + n))
        new = reserved - found
        if n == 0 or new + idle > pool.free:
            return 0
        if found:
            seq.blocks = pool.hold(run, found)
            seq.done = start
        pool.take(new)
        self._take_in(seq, _PREFILL, reserved)
        if ids:
            seq.blocks = pool.name(seq.blocks, ids, (start + n) // size)
        if seq.scheduled_s is None:
            seq.scheduled_s = self._start
            if self.prefix_caching:
                seq.cached_tokens = start
                self.prefix_cache_queries += seq.prompt_tokens
                self.prefix_cache_hits += start
        if start + n < target:
            self._partial = seq
        return n

    def _grant(self, seq: Sequence) -> bool:
        """Give blocks and a place to the head of the queue, whose KV is to arrive."""
        reserved = self._blocks(self.policy.room(seq, seq.prompt_tokens))
        if reserved > self._pool.free:
            return False
        self._pool.take(reserved)
        self._take_in(seq, State.FETCHING, reserved)
        self.granted.append(seq)
        return True

    def _take_in(self, seq: Sequence, state: State, reserved: int) -> None:
        self._queue.admit(self._running)
        self.running += 1
        self._count_waiting(seq, -1)
        seq.reserved = reserved
        seq.state = state

    def _chunk(self, rest: Tokens, budget: Tokens) -> Tokens:
        return rest if rest <= budget else budget - budget % self._chunk_unit

    # ---------------------------------------------------------------- a sequence's
    # moves

    def _set_pace(self, factor: float) -> None:
        self._pace = factor

    def _start_empty(self, _: None) -> None:
        if self._running or self._kept:
            raise RuntimeError(f"{self!r} restarts with sequences on it")
        self._pool = BlockPool(self.limits.kv_blocks)

    def _enter(self, seq: Sequence) -> None:
        if seq.state is State.FETCHING:
            seq.kv = Kv.HERE
            seq.done = seq.prompt_tokens
            self._decoding.join(seq)

    def _leave(self, seq: Sequence, state: State, generated: Tokens) -> None:
        """Take a sequence out of the batch and free its blocks.

        `generated` is its count of output tokens by now.
        """
        context = seq.done
        if seq.state is _DECODE:
            ended = state is _FINISHED
            context = self._decoding.leave(seq, ended=ended)
        elif seq is self._partial:
            self._partial = None
        held = seq.reserved
        if self.policy.grows:
            held = max(held, self._blocks(context))
        if state is _FINISHED and seq.kv is _SENT:
            self._kept[seq] = held
        else:
            self._pool.release(seq.blocks, held)
            seq.blocks = None
        del self._running[seq]
        self.running -= 1
        seq.state = state
        seq.generated = generated
        seq.done = 0

    def _preempt_one(self) -> Sequence:
        seq = self._queue.give_up(self._running)
        self._leave(seq, _WAITING, self._generated_by_now(seq))
        self._queue.put_back(seq)
        self._count_waiting(seq, 1)
        self.preemptions += 1
        seq.preemptions += 1
        return seq

    def _remove(self, seq: Sequence) -> None:
        if seq.state is _WAITING:
            self._count_waiting(seq, -1)
            seq.generated = self._generated_by_now(seq)
            seq.state = State.CANCELLED
        elif seq.state in (State.FETCHING, _PREFILL, _DECODE):
            self._leave(seq, State.CANCELLED, self._generated_by_now(seq))

    def _count_waiting(self, seq: Sequence, more: int) -> None:
        self.waiting += more
        wanted = seq.output_tokens - seq.generated - (seq.kv is _FETCHED)
        self.waiting_output_tokens += more * wanted
        if self._waiting_of is not None:
            self._waiting_of[seq.tenant] = self.waiting_of(seq.tenant) + more

    def _free_kept(self, seq: Sequence) -> None:
        held = self._kept.pop(seq, None)
        if held is not None:
            self._pool.release(seq.blocks, held)
            seq.blocks = None

    def _generated_by_now(self, seq: Sequence) -> Tokens:
        """Output tokens given before the step that is being planned."""
        if seq.state is _DECODE:
            return seq.generated + 1 + self._decoding.clock - seq.first_clock
        # What is still to be fetched had its first token where it was prefilled.
        return seq.generated + (seq.kv is _FETCHED)

    def _blocks(self, tokens: Tokens) -> int:
        """Count the blocks for so many tokens and the drafts beyond them."""
        return -(-(tokens + self._drafts) // self._block_size)


EVENTS: Final[dict[str, Callable[[Engine, Sequence, Seconds], Seconds]]] = {
    "submit": Engine.submit,
    "cancel": Engine.cancel,
    "receive": Engine.receive,
    "release": Engine.release,
}
"""Everything that an engine can be told of a sequence; a journal tells of it."""

MACHINE_EVENTS: Final[dict[str, Callable[[Engine, float, Seconds], Seconds]]] = {
    "pace": Engine.pace,
    "restart": lambda engine, _, at: engine.restart(at),
}
"""And what it can be told of itself."""
