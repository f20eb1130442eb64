"""The engine against a naive scheduler: random workloads, limits and cancellations.

The naive one goes through the batch sequence by sequence and counts every token and
every block anew in each step; the engine does none of that and must come to the same.
"""

from collections import Counter, deque
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from loadstone.engine.core import Engine
from loadstone.engine.sequence import Sequence, State, Step
from loadstone.physics.limits import EngineLimits
from loadstone.physics.steplaw import StepLaw

LAW = StepLaw(
    weights_ms=10.0,
    gemm_us_per_token=100.0,
    kv_ns_per_token=30_000.0,
    pair_ns=7_000.0,
    knee=1.4,
    sequence_us=11.0,
    step_ms=0.5,
)


# ------------------------------------------------------------- the naive scheduler


@dataclass(eq=False)
class Item:
    """A sequence as the naive scheduler keeps it: every token of it is counted."""

    id: str
    prompt: int
    output: int
    kv: int = 0
    given: int = 0
    decoding: bool = False
    cancelled: bool = False
    token_times: list[float] = field(default_factory=list)


@dataclass
class Event:
    """An arrival or a cancellation, and when."""

    at: float
    arrives: bool
    number: int


@dataclass
class Naive:
    """vLLM v1's schedule, one sequence after the other, without a single shortcut."""

    limits: EngineLimits
    law: StepLaw
    running: list[Item] = field(default_factory=list)
    waiting: list[Item] = field(default_factory=list)
    log: list[tuple] = field(default_factory=list)

    def blocks(self, tokens: int) -> int:
        """Count whole blocks, block by block."""
        return len(range(0, tokens, self.limits.block_size))

    def free(self) -> int:
        """Count what no sequence holds."""
        held = sum(self.blocks(item.kv) for item in self.running)
        return self.limits.kv_blocks - held

    def run(self, items: list[Item], events: list[Event]) -> None:
        """Run until nothing is left to do."""
        todo = deque(events)
        now = -inf
        while todo or self.running or self.waiting:
            if not self.running and not self.waiting:
                now = max(now, todo[0].at)
            while todo and todo[0].at <= now:
                event = todo.popleft()
                self.take(items[event.number], arrives=event.arrives)
            if self.running or self.waiting:
                now = self.step(now)

    def take(self, item: Item, *, arrives: bool) -> None:
        """Let a sequence arrive or take it out."""
        if arrives:
            self.waiting.append(item)
        elif item in self.waiting or item in self.running:
            (self.waiting if item in self.waiting else self.running).remove(item)
            item.cancelled = True

    def step(self, now: float) -> float:
        """Run one step and return its end."""
        budget = self.limits.max_num_batched_tokens
        chunks: list[tuple[Item, int]] = []
        preempted: list[Item] = []
        decoding: list[Item] = []
        for item in list(self.running):
            if item not in self.running:
                continue
            n = 1 if item.decoding else min(item.prompt + item.given - item.kv, budget)
            while item in self.running and (
                self.blocks(item.kv + n) - self.blocks(item.kv) > self.free()
            ):
                victim = self.running.pop()
                victim.kv, victim.decoding = 0, False
                self.waiting.insert(0, victim)
                preempted.append(victim)
            if item in self.running:
                item.kv += n
                budget -= n
                if item.decoding:
                    decoding.append(item)
                else:
                    chunks.append((item, n))
        while (
            self.waiting
            and not preempted
            and budget > 0
            and len(self.running) < self.limits.max_num_seqs
        ):
            item = self.waiting[0]
            n = min(item.prompt + item.given, budget)
            if self.blocks(n) > self.free():
                break
            self.running.append(self.waiting.pop(0))
            item.kv = n
            budget -= n
            chunks.append((item, n))
        assert decoding or chunks, "a livelock: there is work, and nothing is done"
        return self.record(now, decoding, chunks, preempted)

    def record(
        self,
        now: float,
        decoding: list[Item],
        chunks: list[tuple[Item, int]],
        preempted: list[Item],
    ) -> float:
        """Price the step, give its tokens and write it down."""
        pairs = sum(  # the j-th token attends to j - 1 others and, half, to itself
            j - 0.5 for item, n in chunks for j in range(item.kv - n + 1, item.kv + 1)
        )
        prefill = sum(n for _, n in chunks)
        context = sum(item.kv for item in decoding)
        free = self.free()
        end = now + self.law.seconds(len(decoding), prefill, context, pairs)
        started = [i for i, _ in chunks if i.kv == i.prompt + i.given]
        finished = []
        for item in decoding + started:
            item.decoding = True
            item.given += 1
            item.token_times.append(end)
            if item.given == item.output:
                self.running.remove(item)
                finished.append(item)
        names = (
            [i.id for i in started],
            {i.id for i in finished},
            [i.id for i in preempted],
        )
        self.log.append(
            (now, end, len(decoding), prefill, context, pairs, free, *names)
        )
        return end


def as_naive(step: Step) -> tuple:
    """Write an engine's step as the naive scheduler writes its own."""
    return (
        step.start_s,
        step.end_s,
        step.decoding,
        step.prefill_tokens,
        step.context,
        step.pairs,
        step.free_blocks,
        [s.id for s in step.started],
        {s.id for s in step.finished},
        [s.id for s in step.preempted],
    )


# ------------------------------------------------------------- random workloads


@st.composite
def tight_limits(draw: st.DrawFn) -> EngineLimits:
    """Draw limits with a pool that just holds the longest sequence, or little more."""
    size = draw(st.integers(1, 32))
    longest = draw(st.integers(2, 80))
    seqs = draw(st.integers(1, 6))
    least = -(-longest // size)
    return EngineLimits(
        max_num_seqs=seqs,
        max_num_batched_tokens=seqs + draw(st.integers(0, 40)),
        kv_blocks=least + draw(st.integers(0, 2) | st.integers(0, least)),
        block_size=size,
        max_model_len=longest,
    )


GAPS = st.sampled_from([0.0, 0.0, 0.001, 0.02, 0.3]) | st.floats(0.0, 0.1)


@st.composite
def workloads(draw: st.DrawFn) -> tuple[EngineLimits, list[Item], list[Event]]:
    """Draw limits, sequences that fit them, and when they come and are cancelled."""
    limits = draw(tight_limits())
    items: list[Item] = []
    events: list[Event] = []
    now = 0.0
    for number in range(draw(st.integers(1, 24))):
        prompt = draw(st.integers(1, limits.max_model_len - 1))
        output = draw(st.integers(1, limits.max_model_len - prompt))
        items.append(Item(f"s{number}", prompt, output))
        now += draw(GAPS)
        events.append(Event(now, arrives=True, number=number))
        events += [
            Event(now + delay, arrives=False, number=number)
            for delay in draw(st.lists(st.floats(0.0, 1.5), max_size=2))
            if draw(st.booleans())
        ]
    events.sort(key=lambda event: event.at)
    return limits, items, events


@dataclass
class Told:
    """What an engine did with a workload, and its sequences."""

    engine: Engine
    sequences: list[Sequence]
    steps: list[Step]
    tally: Counter[Sequence]
    """Tokens of each sequence, counted one by one from the steps."""


def run_engine(
    limits: EngineLimits, items: list[Item], events: list[Event], law: StepLaw = LAW
) -> Told:
    """Tell a fresh engine all events, run it to the end and watch each step."""
    engine = Engine(limits, LAW, Random(1))
    sequences = [Sequence(item.id, item.prompt, item.output) for item in items]
    for event in events:
        tell = engine.submit if event.arrives else engine.cancel
        assert tell(sequences[event.number], event.at) == event.at
    steps: list[Step] = []
    tally: Counter[Sequence] = Counter()
    decoding: set[Sequence] = set()
    while engine.due is not None:
        decoding = {s for s in decoding if s.state is State.DECODE}
        step = engine.step()
        assert 0.0 <= engine.kv_usage <= 1.0
        assert engine.running <= limits.max_num_seqs
        waiting = [s for s in sequences if s.state is State.WAITING]
        assert engine.waiting == len(waiting)
        assert engine.waiting_output_tokens == sum(
            s.output_tokens - s.generated for s in waiting
        )
        if step is None:
            continue
        assert step.decoding == len(decoding)
        tally.update(decoding)
        tally.update(step.started)
        decoding |= set(step.started)
        decoding -= set(step.finished)
        steps.append(step)
    return Told(engine, sequences, steps, tally)


@given(workloads())
def test_schedule_is_that_of_the_naive_scheduler(
    workload: tuple[EngineLimits, list[Item], list[Event]],
) -> None:
    """Step by step, instants and KV included, under preemption and cancellation too."""
    limits, items, events = workload
    naive = Naive(limits, LAW)
    naive.run(items, events)
    told = run_engine(limits, items, events)
    assert [as_naive(step) for step in told.steps] == naive.log
    assert [step.index for step in told.steps] == list(range(len(naive.log)))
    for item, sequence in zip(items, told.sequences, strict=True):
        assert sequence.first_s == (item.token_times[0] if item.given else None)
        if not item.cancelled:
            assert sequence.last_s == item.token_times[-1]


@given(workloads())
def test_tokens_and_blocks_are_conserved(
    workload: tuple[EngineLimits, list[Item], list[Event]],
) -> None:
    """What is asked is given, no more, and every block comes back; all requests end."""
    limits, items, events = workload
    told = run_engine(limits, items, events)
    for sequence in told.sequences:
        assert told.tally[sequence] == sequence.generated
        if sequence.state is State.FINISHED:
            assert sequence.generated == sequence.output_tokens
            assert sequence.first_s is not None and sequence.last_s is not None  # noqa: PT018
            assert sequence.arrived_s < sequence.first_s <= sequence.last_s
        else:
            assert sequence.state is State.CANCELLED
            assert sequence.generated < sequence.output_tokens
            assert sequence.last_s is None
    engine, steps = told.engine, told.steps
    given_tokens = sum(step.tokens for step in steps)
    assert given_tokens == engine.generated_tokens == told.tally.total()
    assert engine.prompt_tokens_done == sum(step.prefill_tokens for step in steps)
    assert engine.preemptions == sum(len(step.preempted) for step in steps)
    assert (engine.kv_usage, engine.running, engine.waiting) == (0.0, 0, 0)
    assert all(0 <= step.free_blocks < limits.kv_blocks for step in steps)


@given(workloads())
def test_limits_hold_in_every_step(
    workload: tuple[EngineLimits, list[Item], list[Event]],
) -> None:
    """Budget and batch limit; no step overlaps another; first come, first admitted."""
    limits, items, events = workload
    told = run_engine(limits, items, events)
    for step in told.steps:
        assert 0 < step.decoding + step.prefill_tokens <= limits.max_num_batched_tokens
        assert step.decoding + len(step.started) <= limits.max_num_seqs
        assert step.end_s > step.start_s
    stamps = {event.at for event in events}
    for before, after in pairwise(told.steps):
        # Contiguous while busy; an idle engine begins at a stamp.
        assert after.start_s == before.end_s or (
            after.start_s > before.end_s and after.start_s in stamps
        )
    firsts = [s for step in told.steps for s in step.started if s.first_s == step.end_s]
    order = {sequence: number for number, sequence in enumerate(told.sequences)}
    assert [order[s] for s in firsts] == sorted(order[s] for s in firsts)


@given(tight_limits(), st.integers(0, 2**32))
def test_no_livelock_at_twice_the_load_in_the_smallest_pool(
    limits: EngineLimits, seed: int
) -> None:
    """They come twice as fast as one by one could be served; each gets all it asked."""
    rng = Random(seed)
    least = -(-limits.max_model_len // limits.block_size)
    limits = replace(limits, kv_blocks=least)
    items, events, now = [], [], 0.0
    for number in range(30):
        prompt = rng.randrange(1, limits.max_model_len)
        output = rng.randint(1, limits.max_model_len - prompt)
        items.append(Item(f"s{number}", prompt, output))
        events.append(Event(now, arrives=True, number=number))
        now += output * 0.0105 / 2
    told = run_engine(limits, items, events)
    assert all(s.state is State.FINISHED for s in told.sequences)
    assert told.engine.generated_tokens == sum(item.output for item in items)
