"""Prefill and decode pools: by hand, conserved, causal, replayed, and as queues."""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from math import inf, nextafter, sqrt
from random import Random
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.engine.disaggregated import Disaggregated, Link, build_disaggregated
from loadstone.engine.policy import POLICIES
from loadstone.engine.sequence import Kv, Sequence, State
from loadstone.engine.virtual import JournalEntry, replay, serve
from loadstone.errors import UsageError
from loadstone.physics.limits import EngineLimits
from loadstone.physics.speculation import PLAIN, Speculation
from loadstone.physics.steplaw import StepLaw
from loadstone.physics.transfer import KvTransfer
from loadstone.traffic.arrivals import Arrivals
from loadstone.traffic.request import Request

FLAT = StepLaw(
    weights_ms=1000.0, gemm_us_per_token=0.0, kv_ns_per_token=0.0, pair_ns=0.0
)
"""Every step lasts one second."""
LINK = KvTransfer(kv_bytes_per_token=1.0, bytes_per_s=80.0, setup_s=0.125)
"""An eighth of a second and as much again for ten tokens."""
LIMITS = EngineLimits(
    max_num_seqs=4, max_num_batched_tokens=64, kv_blocks=16, block_size=4,
    max_model_len=64,
)  # fmt: skip


def requests_at(
    *instants: float, input_tokens: int = 10, output: int = 3
) -> list[Request]:
    """Return equal requests due at the given instants."""
    return [Request(i, at, input_tokens, output) for i, at in enumerate(instants)]


def small(
    prefill: int = 1, decode: int = 1, limits: EngineLimits = LIMITS
) -> Disaggregated:
    """Return pools whose steps last a second."""
    return build_disaggregated(
        limits, FLAT, LINK, prefill=prefill, decode=decode, seed=0
    )


# ------------------------------------------------------------- by hand


def test_one_request_by_hand() -> None:
    """First token after a step, 0.25 s on the link, and then a token a step.

    The transfer is in the gap after the first token and not in TTFT.
    """
    cluster = small()
    steps: list[tuple[int, float, float]] = []
    (served,) = serve(
        cluster,
        requests_at(0.5),
        on_step=lambda i, step: steps.append((i, step.start_s, step.end_s)),
    )
    sequence = served.sequence
    assert steps == [(0, 0.5, 1.5), (1, 1.75, 2.75), (1, 2.75, 3.75)]
    assert (sequence.arrived_s, sequence.scheduled_s) == (0.5, 0.5)
    assert (sequence.first_s, sequence.last_s, served.engine) == (1.5, 3.75, 1)
    assert [e.generated_tokens for e in cluster.engines] == [1, 2]
    assert [e.prompt_tokens_done for e in cluster.engines] == [10, 0]
    assert cluster.engines[1].context_read == 11 + 12
    assert (cluster.waiting, sequence.state) == (0, State.FINISHED)


def test_answer_of_one_token_needs_no_decode_engine() -> None:
    """Nothing is kept or moved."""
    cluster = small()
    (served,) = serve(cluster, requests_at(0.0, output=1))
    assert (served.engine, served.sequence.last_s) == (0, 1.0)
    assert served.sequence.first_s == 1.0
    assert cluster.engines[1].steps == 0
    assert [e.kv_usage for e in cluster.engines] == [0.0, 0.0]


def step_all(cluster: Disaggregated, until: float) -> None:
    """Step the actors in order of time, as a driver of one's own would."""
    while True:
        due = [
            (actor.due, i if i < len(cluster.engines) else i - len(cluster.actors))
            for i, actor in enumerate(cluster.actors)
            if actor.due is not None and actor.due <= until
        ]
        if not due:
            return
        _, index = min(due)
        cluster.follow(index, cluster.actors[index].step())


def test_blocks_are_kept_until_the_transfer_is_over() -> None:
    """Three blocks of four tokens on both sides until then, on the decode side after.

    They go with the first planning from that instant on.
    """
    cluster = small()
    prefill, decode = cluster.engines
    cluster.submit(Sequence("a", 10, 3), 0.0)
    step_all(cluster, 1.1)
    assert [e.kv_usage for e in (prefill, decode)] == [3 / 16, 3 / 16]
    assert (decode.running, decode.token_rate, decode.due) == (1, 0.0, None)
    step_all(cluster, nextafter(1.25, 0.0))
    assert prefill.kv_usage == 3 / 16
    step_all(cluster, 1.25)
    assert (prefill.kv_usage, decode.token_rate) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("seats", "blocks", "end"), [(2, 6, 4.25), (1, 6, 5.5), (2, 5, 5.5)]
)
def test_decode_engine_wants_blocks_and_a_place(
    seats: int, blocks: int, end: float
) -> None:
    """Three blocks and a place each, or the second waits for the end of the first.

    With both, its KV comes second over the link, at 1.5, within a step that ends at
    2.25. Without, its transfer begins when the first has its last token, at 3.25.
    """
    tight = replace(
        LIMITS, max_num_seqs=seats, kv_blocks=blocks, max_model_len=4 * blocks
    )
    cluster = build_disaggregated(
        LIMITS, FLAT, LINK, prefill=1, decode=1, seed=0, decode_limits=tight
    )
    ends = [s.sequence.last_s for s in serve(cluster, requests_at(0.0, 0.0))]
    assert ends == [3.25, end]


def test_full_decode_pool_holds_up_the_prefill_pool() -> None:
    """Prompts of five blocks in a pool of eight: kept ones leave no room for another.

    The first two decode one after the other; the third is prefilled only when the
    second is on its way out of the prefill engine.
    """
    tight = replace(LIMITS, max_num_seqs=1, kv_blocks=8, max_model_len=32)
    cluster = small(limits=tight)
    served = list(serve(cluster, requests_at(0.0, 0.0, 0.0, input_tokens=20, output=3)))
    first = [s.sequence.first_s for s in served]
    last = [s.sequence.last_s for s in served]
    transfer = LINK.seconds(20)
    assert first[0] == 1.0
    assert first[1] == 1.0 + transfer + 1.0
    assert last[0] == 1.0 + transfer + 2.0
    assert first[2] == last[0] + transfer + 1.0


def test_links_of_one_engine_are_serial_and_those_of_two_are_not() -> None:
    """Two prompts at once take twice as long out of one engine, not out of two."""
    for prefill, ends in ((1, [3.25, 4.25]), (2, [3.25, 3.25])):
        served = serve(small(prefill=prefill), requests_at(0.0, 0.0))
        assert sorted(s.sequence.last_s or 0.0 for s in served) == ends


def test_link_without_work_is_a_mistake_of_the_driver() -> None:
    """It says so instead of spinning."""
    with pytest.raises(RuntimeError, match="nothing to do"):
        Link(LINK).step()


def test_preempted_on_the_decode_side_is_recomputed_there() -> None:
    """Seven tokens each in four blocks of two: the second goes, and is read again.

    The prefill engine is not asked again.
    """
    tight = replace(LIMITS, max_num_seqs=2, kv_blocks=4, block_size=2, max_model_len=8)
    cluster = build_disaggregated(
        LIMITS, FLAT, LINK, prefill=2, decode=1, seed=0, decode_limits=tight
    )
    list(serve(cluster, requests_at(0.0, 0.0, input_tokens=3, output=4)))
    *prefill, decode = cluster.engines
    assert [e.prompt_tokens_done for e in prefill] == [3, 3]
    assert decode.preemptions == 1
    assert decode.prompt_tokens_done == 3 + 2
    assert sum(e.generated_tokens for e in cluster.engines) == 8


@pytest.mark.parametrize("at", [0.5, 1.0, 1.1, 1.25, 1.5, 2.25, 9.0])
def test_cancelled_wherever_it_is(at: float) -> None:
    """In prefill, on the link, decoding, ended: no block and no request stays."""
    cluster = small()
    sequence = Sequence("a", 10, 4)
    cluster.submit(sequence, 0.0)
    step_all(cluster, nextafter(at, 0.0))
    cluster.cancel(sequence, at)
    step_all(cluster, inf)
    ended = at > 4.25
    assert sequence.state is (State.FINISHED if ended else State.CANCELLED)
    assert [e.kv_usage for e in cluster.engines] == [0.0, 0.0]
    assert (cluster.waiting, sum(e.running for e in cluster.engines)) == (0, 0)
    assert (cluster._legs, cluster._wholes, cluster._homes) == ({}, {}, {})
    assert cluster.cancel(sequence, 20.0) == ()


def test_what_either_side_refuses_is_refused_at_the_door() -> None:
    """A prompt that is too long for the decode side is not prefilled first."""
    cluster = build_disaggregated(
        LIMITS, FLAT, LINK, prefill=1, decode=1, seed=0,
        decode_limits=replace(LIMITS, max_model_len=32),
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"max_model_len \(32\)"):
        cluster.submit(Sequence("a", 30, 3), 0.0)
    assert cluster.waiting == 0
    with pytest.raises(ValueError, match="its one token came with its prefill"):
        Sequence("a", 30, 1, kv=Kv.FETCHED)
    for wrong in (
        {"bytes_per_s": 0.0},
        {"setup_s": -1.0},
        {"bytes_per_s": float("nan")},
    ):
        with pytest.raises(ValueError, match="not a transfer law"):
            replace(LINK, **wrong)


# ------------------------------------------------------------- random loads


@dataclass
class Run:
    """A random load on random pools, driven to its end."""

    cluster: Disaggregated
    fresh: Disaggregated
    sequences: list[Sequence]
    journal: list[JournalEntry]
    lines: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    tokens: int = 0


def random_run(seed: int) -> Run:
    """Drive pools that are short of everything, under any policy, with cancellations.

    The driver steps whatever is due before each event, and looks at every step.
    """
    rng = Random(seed)
    journal: list[JournalEntry] = []
    policy = rng.choice(list(POLICIES))
    by_priority = policy == "vllm" and rng.random() < 0.5
    speculation = rng.choice((PLAIN, Speculation(2.4, 3)))
    size, longest = rng.randint(1, 8), rng.randint(8, 40)
    limits = EngineLimits(
        max_num_seqs=3, max_num_batched_tokens=rng.randint(12, 30),
        kv_blocks=-(-(longest + 6) // size) + rng.randint(0, 2), block_size=size,
        max_model_len=longest,
    )  # fmt: skip
    law = StepLaw(
        weights_ms=10.0, gemm_us_per_token=10.0, kv_ns_per_token=10.0, pair_ns=1.0,
        sigma=rng.choice((0.0, 0.1)),
    )  # fmt: skip
    transfer = KvTransfer(
        kv_bytes_per_token=1.0, bytes_per_s=rng.choice((1e3, 1e6)),
        setup_s=rng.choice((0.0, 0.004, 0.1)),
    )  # fmt: skip
    shape = rng.randint(1, 2), rng.randint(1, 2)
    cluster, fresh = (
        build_disaggregated(
            limits, law, transfer, prefill=shape[0], decode=shape[1], seed=5,
            policy=policy, scheduling_policy="priority" if by_priority else "fcfs",
            speculation=speculation, note=note,
        )
        for note in (lambda *told: journal.append(JournalEntry.of(*told)), None)
    )  # fmt: skip
    run = Run(cluster, fresh, [], journal)
    now = 0.0
    for number in range(30):
        now += rng.choice((0.0, 0.001, 0.01, 0.1)) * rng.random()
        drive(run, now)
        if run.sequences and rng.random() < 0.25:
            cluster.cancel(rng.choice(run.sequences), now)
            continue
        prompt = rng.randrange(1, longest)
        output = rng.randint(1, longest - prompt)
        ids = tuple(range(rng.randint(0, prompt // size))) if policy == "vllm" else ()
        sequence = Sequence(
            str(number), prompt, output, prefix_ids=ids,
            priority=rng.randint(0, 1) * by_priority,
        )  # fmt: skip
        cluster.submit(sequence, now)
        run.sequences.append(sequence)
    drive(run, inf)
    return run


def drive(run: Run, until: float) -> None:
    """Step what is due before `until`, in order of time."""
    cluster = run.cluster
    while True:
        due = [
            (actor.due, i if i < len(cluster.engines) else i - len(cluster.actors))
            for i, actor in enumerate(cluster.actors)
            if actor.due is not None and actor.due < until
        ]
        if not due:
            return
        instant, index = min(due)
        step = cluster.actors[index].step()
        if step is not None:
            assert step.end_s == instant
            assert step.end_s > step.start_s
            run.lines[index].append(step.line())
            run.tokens += step.tokens
        cluster.follow(index, step)


@given(st.integers(0, 2**32))
def test_tokens_and_kv_are_conserved_and_nothing_comes_before_its_cause(
    seed: int,
) -> None:
    """Every request ends with what it asked, or cancelled; every block comes back."""
    run = random_run(seed)
    cluster = run.cluster
    for sequence in run.sequences:
        if sequence.state is State.FINISHED:
            assert sequence.generated == sequence.output_tokens
            assert sequence.first_s is not None
            assert sequence.last_s is not None
            gap = 0.0
            if sequence.output_tokens > 1:
                gap = cluster.links[0].transfer.seconds(sequence.prompt_tokens)
            assert sequence.arrived_s < sequence.first_s
            assert sequence.first_s + gap <= sequence.last_s + 1e-9
        else:
            assert sequence.state is State.CANCELLED
            assert sequence.generated < sequence.output_tokens
    engines = cluster.engines
    assert run.tokens == sum(e.generated_tokens for e in engines)
    assert run.tokens >= sum(s.generated for s in run.sequences)
    for engine in engines:
        assert (engine.kv_usage, engine.running, engine.waiting) == (0.0, 0, 0)
        assert engine.waiting_output_tokens == 0
        assert not engine._kept
    assert (cluster._legs, cluster._wholes, cluster._homes) == ({}, {}, {})
    assert all(link.due is None for link in cluster.links)


@given(st.integers(0, 2**32))
def test_each_engine_follows_from_its_stamps(seed: int) -> None:
    """The journal, replayed on fresh engines one by one, gives the same step logs."""
    run = random_run(seed)
    again: dict[int, list[str]] = defaultdict(list)
    replay(run.fresh.engines, run.journal, lambda i, step: again[i].append(step.line()))
    assert again == {index: lines for index, lines in run.lines.items() if lines}


def test_random_runs_come_to_everything() -> None:
    """They preempt on both sides, cancel at every stage and wait for the link."""
    kinds: dict[str, int] = defaultdict(int)
    for seed in range(60):
        run = random_run(seed)
        half = len(run.cluster.prefill.engines)
        kinds["preempted"] += sum(e.preemptions for e in run.cluster.engines[half:])
        for entry in run.journal:
            kinds[
                f"{entry.kind} {'decode' if entry.engine >= half else 'prefill'}"
            ] += 1
    assert set(kinds) == {
        "preempted", "submit prefill", "cancel prefill", "release prefill",
        "submit decode", "cancel decode", "receive decode",
    }  # fmt: skip
    assert min(kinds.values()) > 20


# ------------------------------------------------------------- as queues

FAST = StepLaw(weights_ms=1.0, gemm_us_per_token=0.0, kv_ns_per_token=0.0, pair_ns=0.0)
ROOMY = EngineLimits(
    max_num_seqs=64, max_num_batched_tokens=512, kv_blocks=1 << 16, block_size=16,
    max_model_len=1024,
)  # fmt: skip


def prefill_waits(load: float, seed: int) -> list[float]:
    """Return how long prompts wait for a prefill engine that takes one at a time."""
    cluster = build_disaggregated(
        replace(ROOMY, max_num_seqs=1), FLAT, LINK, prefill=1, decode=1, seed=0,
        decode_limits=ROOMY, decode_law=FAST,
    )  # fmt: skip
    arrivals = Arrivals.parse("poisson").times(load, 2000.0, Random(seed))
    requests = [Request(i, at, 10, 2) for i, at in enumerate(arrivals)]
    ended = [s.sequence for s in serve(cluster, requests)]
    return [s.first_s - s.arrived_s - 1.0 for s in ended if s.first_s is not None]


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_prefill_pool_waits_as_in_m_d_1(load: float) -> None:
    """Pollaczek and Khinchine, rho / (2 (1 - rho)): the decode side is not in it.

    Forty seeds; within three standard errors.
    """
    means = [fmean(prefill_waits(load, seed)) for seed in range(40)]
    exact = load / (2 * (1 - load))
    error = stdev(means) / sqrt(len(means))
    assert error < 0.06 * exact
    assert abs(fmean(means) - exact) < 3 * error


class Watched(Disaggregated):
    """Notes how many requests are on each side when one arrives."""

    seen: list[tuple[int, int]]

    def submit(self, sequence: Sequence, at: float) -> int:
        """Count, then submit."""
        sides = (self.prefill, self.decode)
        self.seen.append(
            (
                sum(e.waiting + e.running for e in sides[0].engines),
                sum(e.waiting + e.running for e in sides[1].engines),
            )
        )
        return super().submit(sequence, at)


def test_littles_law_on_both_sides() -> None:
    """Poisson arrivals see the time average: rate times stay, before and after.

    The stay on the decode side is from the first token to the last, transfer included.
    """
    rate, seconds, rng = 20.0, 300.0, Random(4)
    law = StepLaw(
        weights_ms=10.0, gemm_us_per_token=20.0, kv_ns_per_token=100.0, pair_ns=1.0
    )
    built = build_disaggregated(ROOMY, law, LINK, prefill=2, decode=3, seed=0)
    fast = KvTransfer(kv_bytes_per_token=1.0, bytes_per_s=1e4, setup_s=0.002)
    cluster = Watched(built.prefill, built.decode, fast)
    cluster.seen = []
    requests = [
        Request(i, due, rng.randint(1, 400), rng.randint(2, 100))
        for i, due in enumerate(Arrivals.parse("poisson").times(rate, seconds, rng))
    ]
    ended = [s.sequence for s in serve(cluster, requests)]
    assert len(ended) == len(requests)
    before = sum(q.first_s - q.arrived_s for q in ended if q.first_s) / seconds
    after = sum(q.last_s - q.first_s for q in ended if q.first_s and q.last_s) / seconds
    numbers = [fmean(side) for side in zip(*cluster.seen, strict=True)]
    assert numbers[1] > 5
    assert numbers == pytest.approx([before, after], rel=0.04)


def test_pools_work_at_once() -> None:
    """A run that prefill bounds lasts as long as prefill, plus the last one's way out.

    Two prompts a second for 200 s; then two transfers, a wait for the next step of the
    decode engine, and four steps there.
    """
    requests = [Request(i, 0.0, 10, 5) for i in range(400)]
    cluster = build_disaggregated(
        replace(ROOMY, max_num_seqs=2), FLAT, LINK, prefill=1, decode=1, seed=0,
        decode_limits=ROOMY,
    )  # fmt: skip
    ended = [s.sequence for s in serve(cluster, requests)]
    end = max(q.last_s for q in ended if q.last_s)
    assert max(q.first_s for q in ended if q.first_s) == 200.0
    assert 200.0 + 2 * LINK.seconds(10) + 4.0 <= end <= 200.0 + 0.5 + 1.0 + 4.0
