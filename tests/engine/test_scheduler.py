"""The engine against the naive scheduler: random limits, loads and cancellations.

Each property holds in every mode: the three policies, priorities, the prefix cache.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive import Event, Item, Naive

from loadstone.engine.blocks import Run
from loadstone.engine.core import Engine
from loadstone.engine.sequence import Sequence, State, Step
from loadstone.physics.limits import EngineLimits
from loadstone.physics.speculation import PLAIN, Speculation
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
        step.tokens,
        [s.id for s in step.started],
        {s.id for s in step.finished},
        [s.id for s in step.preempted],
    )


# ------------------------------------------------------------- random workloads


@dataclass(frozen=True)
class Mode:
    """How an engine schedules, and what its sequences carry."""

    policy: str = "vllm"
    by_priority: bool = False
    prefixes: bool = False
    speculation: Speculation = PLAIN


DRAFTS = Speculation(2.4, 3)
MODES = {
    "vllm": Mode(),
    "trtllm_max_util": Mode("trtllm_max_util"),
    "trtllm_no_evict": Mode("trtllm_no_evict"),
    "priority": Mode(by_priority=True),
    "prefixes": Mode(prefixes=True),
    "speculation": Mode(speculation=DRAFTS),
    "trtllm_max_util speculation": Mode("trtllm_max_util", speculation=DRAFTS),
    "trtllm_no_evict speculation": Mode("trtllm_no_evict", speculation=DRAFTS),
    "drafts never right": Mode(speculation=Speculation(1.0, 1)),
    "all": Mode(by_priority=True, prefixes=True, speculation=DRAFTS),
}
every_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


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
def prefixes(draw: st.DrawFn, blocks: int) -> tuple[int, ...]:
    """Draw the ids of a prompt: one of two texts up to some block, then a variant."""
    text, variant = draw(st.integers(0, 1)), draw(st.integers(0, 2))
    shared = draw(st.integers(0, blocks))
    return tuple(
        hash((text, i) if i < shared else (text, shared, variant, i))
        for i in range(blocks)
    )


@st.composite
def items_for(draw: st.DrawFn, limits: EngineLimits, name: str) -> Item:
    """Draw a sequence that fits the limits, with everything that it might carry."""
    prompt = draw(st.integers(1, limits.max_model_len - 1))
    declared = draw(st.integers(1, limits.max_model_len - prompt))
    return Item(
        id=name,
        prompt=prompt,
        output=draw(st.integers(1, declared)),
        declared=declared,
        priority=draw(st.integers(-1, 1)),
        prefix=draw(prefixes(prompt // limits.block_size)),
    )


Workload = tuple[EngineLimits, list[Item], list[Event]]


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Draw limits, sequences that fit them, and when they come and are cancelled."""
    limits = draw(tight_limits())
    items: list[Item] = []
    events: list[Event] = []
    now = 0.0
    for number in range(draw(st.integers(1, 24))):
        items.append(draw(items_for(limits, f"s{number}")))
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


def fitted(mode: Mode, workload: Workload) -> Workload:
    """Take away what a mode refuses, and give each chunk room for a block."""
    limits, items, events = workload
    for item in items:
        item.priority *= mode.by_priority
        item.prefix = item.prefix if mode.prefixes else ()
    drafts = mode.speculation
    budget = limits.max_num_batched_tokens + limits.max_num_seqs * drafts.draft_tokens
    more = drafts.longest - 1 + drafts.draft_tokens
    limits = replace(limits, kv_blocks=limits.kv_blocks + -(-more // limits.block_size))
    if mode.policy != "vllm":
        budget = max(budget, limits.block_size)
    return replace(limits, max_num_batched_tokens=budget), items, events


def fresh_engine(mode: Mode, limits: EngineLimits) -> Engine:
    """Return an engine of that mode."""
    return Engine(
        limits, LAW, Random(1), policy=mode.policy,
        scheduling_policy="priority" if mode.by_priority else "fcfs",
        speculation=mode.speculation,
    )  # fmt: skip


def as_sequence(item: Item) -> Sequence:
    """Return what the engine is told of an item."""
    return Sequence(
        item.id, item.prompt, item.output, max_output_tokens=item.declared,
        priority=item.priority, prefix_ids=item.prefix,
    )  # fmt: skip


def runs_below(run: Run) -> Iterator[Run]:
    """Yield every run of a tree but its root, parents first."""
    for first, child in run.below.items():
        assert child.ids[0] == first
        assert (child.above, child.start) == (run, run.end)
        yield child
        yield from runs_below(child)


def check_blocks(engine: Engine, sequences: list[Sequence]) -> None:
    """Count every block: free ones, by the list; those held, by who holds them."""
    pool = engine._pool
    idle = list(pool.idle())
    ring = [pool._root, *idle]
    for older, newer in zip(ring, [*idle, pool._root], strict=True):
        assert (older.newer, newer.older) == (newer, older)
    plain = sum(run.behind for run in ring)
    assert min(run.behind for run in ring) >= 0
    assert pool.free == plain + sum(run.end - run.start for run in idle)
    # A run is held by the sequences that end with it and by the held ones below it.
    holders: Counter[Run] = Counter([pool._root])
    for sequence in sequences:
        run = sequence.blocks
        assert run is None or sequence in engine._running
        while run is not None:
            holders[run] += 1
            run = run.above if holders[run] == 1 else None
    known = list(runs_below(pool._root))
    tree = [pool._root, *known]
    assert {run: run.holders for run in tree if run.holders} == holders
    assert {run for run in known if not run.holders} == set(idle)
    assert all(run.behind == 0 for run in tree if run not in ring)
    assert pool.known == sum(run.end - run.start for run in known)
    assert all(run.end > run.start for run in known)
    used = pool.total - pool.free
    assert sum(run.end - run.start for run in holders) <= used <= pool.total
    if not engine.running:
        assert used == 0


def run_engine(
    mode: Mode, limits: EngineLimits, items: list[Item], events: list[Event]
) -> Told:
    """Tell a fresh engine all events, run it to the end and watch each step."""
    engine = fresh_engine(mode, limits)
    sequences = [as_sequence(item) for item in items]
    for event in events:
        tell = engine.submit if event.arrives else engine.cancel
        assert tell(sequences[event.number], event.at) == event.at
    steps: list[Step] = []
    tally: Counter[Sequence] = Counter()
    decoding: set[Sequence] = set()
    while engine.due is not None:
        decoding = {s for s in decoding if s.state is State.DECODE}
        step = engine.step()
        check_blocks(engine, sequences)
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
        for sequence in decoding:
            # What a driver would stream: up to the clock, or to the sequence's end.
            upto = min(step.clock, sequence.last_clock)
            tally[sequence] += upto - (step.clock - step.advance)
        tally.update(step.started)
        decoding |= set(step.started)
        decoding -= set(step.finished)
        steps.append(step)
    return Told(engine, sequences, steps, tally)


@every_mode
@given(workload=workloads())
def test_schedule_is_that_of_the_naive_scheduler(
    mode: Mode, workload: Workload
) -> None:
    """Step by step, instants and KV included, under preemption and cancellation too."""
    limits, items, events = fitted(mode, workload)
    naive = Naive(
        limits, LAW, mode.policy, mode.by_priority,
        Fraction(mode.speculation.accepted), mode.speculation.draft_tokens,
    )  # fmt: skip
    naive.run(items, events)
    told = run_engine(mode, limits, items, events)
    assert [as_naive(step) for step in told.steps] == naive.log
    assert [step.index for step in told.steps] == list(range(len(naive.log)))
    counters = (told.engine.prefix_cache_queries, told.engine.prefix_cache_hits)
    assert counters == (naive.queries, naive.hits)
    for item, sequence in zip(items, told.sequences, strict=True):
        assert sequence.cached_tokens == item.cached
        assert sequence.first_s == (item.token_times[0] if item.given else None)
        if not item.cancelled:
            assert sequence.last_s == item.token_times[-1]


@every_mode
@given(workload=workloads())
def test_tokens_and_blocks_are_conserved(mode: Mode, workload: Workload) -> None:
    """What is asked is given, no more, and every block comes back; all requests end."""
    limits, items, events = fitted(mode, workload)
    told = run_engine(mode, limits, items, events)
    for sequence in told.sequences:
        assert told.tally[sequence] == sequence.generated
        if sequence.state is State.FINISHED:
            assert sequence.generated == sequence.output_tokens
            assert sequence.first_s is not None and sequence.last_s is not None  # noqa: PT018 - for mypy
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


@every_mode
@given(workload=workloads())
def test_limits_hold_in_every_step(mode: Mode, workload: Workload) -> None:
    """Budget and batch limit; no step overlaps another; first come, first admitted."""
    limits, items, events = fitted(mode, workload)
    told = run_engine(mode, limits, items, events)
    for step in told.steps:
        verified = step.decoding * mode.speculation.verified
        assert 0 < verified + step.prefill_tokens <= limits.max_num_batched_tokens
        assert step.decoding + len(step.started) <= limits.max_num_seqs
        assert step.end_s > step.start_s
    stamps = {event.at for event in events}
    for before, after in pairwise(told.steps):
        # Contiguous while busy; an idle engine begins at a stamp.
        assert after.start_s == before.end_s or (
            after.start_s > before.end_s and after.start_s in stamps
        )
    if mode.by_priority:
        return
    firsts = [s for step in told.steps for s in step.started if s.first_s == step.end_s]
    order = {sequence: number for number, sequence in enumerate(told.sequences)}
    assert [order[s] for s in firsts] == sorted(order[s] for s in firsts)


@every_mode
@given(limits=tight_limits(), seed=st.integers(0, 2**32))
def test_no_livelock_at_twice_the_load_in_the_smallest_pool(
    mode: Mode, limits: EngineLimits, seed: int
) -> None:
    """They come twice as fast as one by one could be served; each gets all it asked."""
    rng = Random(seed)
    # `fitted` adds what drafts need: the pool is the smallest that there may be.
    least = -(-limits.max_model_len // limits.block_size)
    limits = replace(limits, kv_blocks=least)
    items, events, now = [], [], 0.0
    for number in range(30):
        prompt = rng.randrange(1, limits.max_model_len)
        output = rng.randint(1, limits.max_model_len - prompt)
        ids = tuple(range(prompt // limits.block_size))
        items.append(
            Item(id=f"s{number}", prompt=prompt, output=output, prefix=ids,
                 declared=output, priority=rng.randint(0, 2))
        )  # fmt: skip
        events.append(Event(now, arrives=True, number=number))
        now += output * 0.0105 / 2
    told = run_engine(mode, *fitted(mode, (limits, items, events)))
    assert all(s.state is State.FINISHED for s in told.sequences)
    assert told.engine.generated_tokens == sum(item.output for item in items)
