"""Virtual time: requests are served once, runs replay exactly, queues obey Little."""

import gc
from collections import defaultdict
from collections.abc import Iterator
from itertools import count, pairwise
from math import inf, nextafter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.catalog.presets import load_preset
from loadstone.catalog.workloads import load_lengths
from loadstone.engine.core import Engine
from loadstone.engine.fleet import Fleet, build_fleet
from loadstone.engine.sequence import Sequence, Step
from loadstone.engine.virtual import (
    JournalEntry,
    Served,
    rare_collections,
    replay,
    serve,
)
from loadstone.errors import UsageError
from loadstone.physics.limits import EngineLimits
from loadstone.physics.steplaw import StepLaw
from loadstone.traffic.arrivals import Arrivals
from loadstone.traffic.lengths import Lengths
from loadstone.traffic.request import Request

LIMITS = EngineLimits(
    max_num_seqs=64, max_num_batched_tokens=512, kv_blocks=4096, block_size=16,
    max_model_len=4096,
)  # fmt: skip
LAW = StepLaw(
    weights_ms=10.0, gemm_us_per_token=20.0, kv_ns_per_token=100.0, pair_ns=1.0
)
FLAT = StepLaw(
    weights_ms=1000.0, gemm_us_per_token=0.0, kv_ns_per_token=0.0, pair_ns=0.0
)
"""Every step lasts one second."""


def requests_at(
    *instants: float, input_tokens: int = 4, output: int = 2
) -> list[Request]:
    """Return equal requests due at the given instants."""
    return [Request(i, at, input_tokens, output) for i, at in enumerate(instants)]


# ------------------------------------------------------------- serve


def test_requests_are_served_on_their_engines_by_hand() -> None:
    """Two engines in turn, a second a step; each request ends once, in time's order."""
    fleet = build_fleet(LIMITS, FLAT, engines=2, seed=0)
    steps: list[tuple[int, float]] = []
    served = list(
        serve(
            fleet,
            requests_at(0.0, 0.5, 0.75),
            on_step=lambda engine, step: steps.append((engine, step.end_s)),
        )
    )
    figures = [
        (s.request.index, s.engine, s.sequence.first_s, s.sequence.last_s)
        for s in served
    ]
    assert figures == [(0, 0, 1.0, 2.0), (1, 1, 1.5, 2.5), (2, 0, 2.0, 3.0)]
    assert steps == [(0, 1.0), (1, 1.5), (0, 2.0), (1, 2.5), (0, 3.0)]
    assert served[1].sequence.id == "000001"


@pytest.mark.parametrize(("due", "first"), [(1.0, 2.0), (nextafter(1.0, inf), 3.0)])
def test_request_due_when_a_step_ends_is_in_the_next(due: float, first: float) -> None:
    """At equal instants arrivals come before steps; a hair later it waits one more."""
    fleet = build_fleet(LIMITS, FLAT, engines=1, seed=0)
    served = list(serve(fleet, requests_at(0.0, due)))
    assert served[1].sequence.first_s == first


def test_idle_engines_wait_for_the_next_arrival() -> None:
    """Nothing happens in between, and the next step starts at the stamp."""
    fleet = build_fleet(LIMITS, FLAT, engines=1, seed=0)
    starts: list[float] = []
    list(
        serve(
            fleet,
            requests_at(0.25, 100.5),
            on_step=lambda _, step: starts.append(step.start_s),
        )
    )
    assert starts == [0.25, 1.25, 100.5, 101.5]


def test_all_at_zero_share_the_first_step() -> None:
    """An offline run fills the batch and the budget before the first step."""
    fleet = build_fleet(LIMITS, FLAT, engines=1, seed=0)
    steps: list[Step] = []
    list(serve(fleet, requests_at(*[0.0] * 100), on_step=lambda _, s: steps.append(s)))
    assert [s.id for s in steps[0].started] == [f"{i:06d}" for i in range(64)]
    assert (len(steps[0].started), steps[0].prefill_tokens) == (64, 64 * 4)


def test_request_that_cannot_be_served_is_an_error() -> None:
    """It is not skipped, and it does not wait for ever."""
    fleet = build_fleet(LIMITS, FLAT, engines=1, seed=0)
    with pytest.raises(UsageError, match="max_model_len"):
        list(serve(fleet, requests_at(0.0, input_tokens=4095, output=2)))


def test_arrivals_are_taken_one_by_one() -> None:
    """An endless stream of arrivals is served as it goes."""
    fleet = build_fleet(LIMITS, FLAT, engines=1, seed=0)
    endless = (Request(i, i / 4, 4, 2) for i in count())
    served = serve(fleet, endless)
    assert [next(served).request.index for _ in range(50)] == list(range(50))


# ------------------------------------------------------------- replay


class LateDriver:
    """A live driver at its worst.

    It wakes late by random amounts and sometimes exactly on time, completes every step
    that is due then, on some engines and not on others, and submits and cancels with
    its own idea of now, which may be older than what it has just completed.
    """

    def __init__(self, engines: list[Engine], rng: Random) -> None:
        self.engines = engines
        self.rng = rng
        self.now = 0.0
        self.journal: list[JournalEntry] = []
        self.lines: dict[int, list[str]] = defaultdict(list)
        self.alive: list[tuple[Sequence, int]] = []
        self.batched = 0
        """Most steps completed in one go."""

    def run(self, events: int) -> None:
        """Live through that many arrivals and cancellations, then run dry."""
        for number in range(events):
            self.pass_time()
            for index in range(len(self.engines)):
                if self.rng.random() < 0.5:
                    self.wake(index, self.now)
            if self.alive and self.rng.random() < 0.3:
                self.cancel()
            else:
                self.submit(str(number))
        for index in range(len(self.engines)):
            self.wake(index, inf)

    def pass_time(self) -> None:
        """Go on a little, or a lot, or just to the instant an engine is due."""
        due = [e.due for e in self.engines if e.due is not None]
        if due and self.rng.random() < 0.3:
            self.now = max(self.now, self.rng.choice(due))
        else:
            self.now += self.rng.choice((0.0, 0.001, 0.01, 0.1)) * self.rng.random()

    def wake(self, index: int, until: float) -> None:
        """Complete every step of an engine that is due by then."""
        engine, before = self.engines[index], len(self.lines[index])
        while engine.due is not None and engine.due <= until:
            step = engine.step()
            if step is not None:
                self.lines[index].append(step.line())
        if until < inf:
            self.batched = max(self.batched, len(self.lines[index]) - before)

    def heard(self) -> float:
        """When the driver heard of something: now, or some time ago."""
        return self.now - self.rng.choice((0.0, 0.0, 0.01)) * self.rng.random()

    def submit(self, name: str) -> None:
        """Let a random request arrive at a random engine."""
        index = self.rng.randrange(len(self.engines))
        longest = self.engines[index].max_model_len
        prompt = self.rng.randrange(1, longest)
        output = self.rng.randint(1, longest - prompt)
        sequence = Sequence(name, prompt, output)
        stamp = self.engines[index].submit(sequence, self.heard())
        self.alive.append((sequence, index))
        self.journal.append(JournalEntry("submit", name, index, stamp, prompt, output))

    def cancel(self) -> None:
        """Cancel any request of the past, whatever became of it."""
        sequence, index = self.rng.choice(self.alive)
        stamp = self.engines[index].cancel(sequence, self.heard())
        self.journal.append(JournalEntry("cancel", sequence.id, index, stamp, 0, 0))


def small_engines(rng: Random, n: int) -> Iterator[list[Engine]]:
    """Yield equal sets of engines, noisy and short of blocks, as often as asked."""
    size, longest = rng.randint(1, 8), rng.randint(2, 40)
    limits = EngineLimits(
        max_num_seqs=4,
        max_num_batched_tokens=rng.randint(4, 30),
        kv_blocks=-(-longest // size) + rng.randint(0, 2),
        block_size=size,
        max_model_len=longest,
    )
    law = StepLaw(
        weights_ms=10.0, gemm_us_per_token=10.0, kv_ns_per_token=10.0, pair_ns=1.0,
        sigma=rng.choice((0.0, 0.1)),
    )  # fmt: skip
    while True:
        yield build_fleet(limits, law, engines=n, seed=5).engines


@given(st.integers(0, 2**32), st.integers(1, 3))
def test_replay_of_a_late_driver_gives_the_same_steps(seed: int, n: int) -> None:
    """The stamps alone decide: same log, with preemptions, cancellations and noise."""
    rng = Random(seed)
    fresh = small_engines(rng, n)
    live = LateDriver(next(fresh), rng)
    live.run(events=60)
    again: dict[int, list[str]] = defaultdict(list)
    replay(next(fresh), live.journal, lambda i, step: again[i].append(step.line()))
    assert again == {index: lines for index, lines in live.lines.items() if lines}


def test_late_drivers_are_late() -> None:
    """The drivers above do batch steps, move stamps, preempt and cancel what runs."""
    batched = preempted = moved = cancelled = 0
    for seed in range(40):
        rng = Random(seed)
        live = LateDriver(next(small_engines(rng, 3)), rng)
        live.run(events=60)
        batched = max(batched, live.batched)
        preempted += sum(engine.preemptions for engine in live.engines)
        stamps = [entry.at_s for entry in live.journal]
        moved += sum(a > b for a, b in pairwise(stamps))
        cancelled += sum(0 < s.generated < s.output_tokens for s, _ in live.alive)
    assert batched >= 4
    assert min(preempted, moved, cancelled) >= 40


def test_replay_runs_each_engine_by_its_own_stamps() -> None:
    """One engine's stamp, moved past now, says nothing of what another has done by now.

    Both engines are in the step from 0 to 1. At 1 the driver completes it on engine 0
    only, then submits to both: engine 0 takes it just after 1, engine 1 at 1.
    """
    fresh = [build_fleet(LIMITS, FLAT, engines=2, seed=0).engines for _ in range(2)]
    live, journal = fresh[0], []
    for index, name in enumerate("ab"):
        live[index].submit(Sequence(name, 4, 3), 0.0)
        live[index].step()
        journal.append(JournalEntry("submit", name, index, 0.0, 4, 3))
    live[0].step()
    for index, name in enumerate("cd"):
        stamp = live[index].submit(Sequence(name, 4, 1), 1.0)
        journal.append(JournalEntry("submit", name, index, stamp, 4, 1))
    assert [entry.at_s for entry in journal[2:]] == [nextafter(1.0, inf), 1.0]
    started: dict[str, float] = {}

    def watch(_: int, step: Step) -> None:
        started.update((s.id, step.end_s) for s in step.started)

    replay(fresh[1], journal, watch)
    assert started == {"a": 1.0, "b": 1.0, "c": 3.0, "d": 2.0}


def test_virtual_run_replays_from_its_own_stamps() -> None:
    """What `serve` did, told as a journal, gives the identical step log, with noise."""
    law = StepLaw(
        weights_ms=10.0, gemm_us_per_token=20.0, kv_ns_per_token=100.0, pair_ns=1.0,
        sigma=0.05,
    )  # fmt: skip
    logs: list[dict[int, list[str]]] = [defaultdict(list), defaultdict(list)]
    rng = Random(3)
    requests = [
        Request(i, due, rng.randint(1, 200), rng.randint(1, 50))
        for i, due in enumerate(Arrivals.parse("poisson").times(100.0, 5.0, rng))
    ]
    fleet = build_fleet(LIMITS, law, engines=3, seed=9, router="least_loaded")
    served = list(
        serve(fleet, requests, on_step=lambda i, s: logs[0][i].append(s.line()))
    )
    where = {s.request.index: s.engine for s in served}
    journal = [
        JournalEntry(
            "submit",
            r.id,
            where[r.index],
            r.intended_s,
            r.input_tokens,
            r.output_tokens,
        )
        for r in requests
    ]
    fresh = build_fleet(LIMITS, law, engines=3, seed=9).engines
    replay(fresh, journal, lambda i, s: logs[1][i].append(s.line()))
    assert logs[0] == logs[1]
    assert len(logs[0]) == 3


# ------------------------------------------------------------- queueing


class WatchedFleet(Fleet):
    """Notes how many requests are there when one arrives."""

    seen: list[int]

    def route(self, sequence: Sequence | None = None) -> int:
        """Count, then choose."""
        self.seen.append(sum(e.waiting + e.running for e in self.engines))
        return super().route(sequence)


def open_loop(
    rate: float, seconds: float
) -> tuple[list[Served], list[Step], list[int]]:
    """Return what was served, every step, and what each Poisson arrival met."""
    rng = Random(11)
    requests = [
        Request(i, due, rng.randint(1, 400), rng.randint(1, 100))
        for i, due in enumerate(Arrivals.parse("poisson").times(rate, seconds, rng))
    ]
    fleet = WatchedFleet(build_fleet(LIMITS, LAW, engines=1, seed=0).engines)
    fleet.seen = []
    steps: list[Step] = []
    served = list(serve(fleet, requests, on_step=lambda _, s: steps.append(s)))
    return served, steps, fleet.seen


def test_littles_law() -> None:
    """Mean number in the system is arrival rate times mean stay, seen from both sides.

    Poisson arrivals see the time average. While decoding it holds exactly, for steps
    and stamps count the same seconds.
    """
    rate, seconds = 20.0, 400.0
    served, steps, seen = open_loop(rate, seconds)
    assert len(served) == pytest.approx(rate * seconds, rel=0.05)
    ended = [s.sequence for s in served]
    stay = sum(q.last_s - q.arrived_s for q in ended if q.last_s is not None)
    number = sum(seen) / len(seen)
    assert number > 5
    assert number == pytest.approx(stay / seconds, rel=0.03)
    decoding = sum(step.decoding * (step.end_s - step.start_s) for step in steps)
    stamps = sum(q.last_s - q.first_s for q in ended if q.first_s and q.last_s)
    assert decoding == pytest.approx(stamps, rel=1e-9)


def test_ttft_rises_with_the_load() -> None:
    """Time to first token is queueing: little below saturation, ever more above it."""

    def mean_ttft(rate: float) -> float:
        served, _, _ = open_loop(rate, 60.0)
        waits = [s.sequence.first_s - s.sequence.arrived_s for s in served]
        return sum(waits) / len(waits)

    idle, busy, over = (mean_ttft(rate) for rate in (1.0, 20.0, 80.0))
    assert 0.010 < idle < busy < 0.1 < over


# ------------------------------------------------------------- the rack, offline


def mean_square(lengths: Lengths) -> float:
    """Return the second moment of a distribution that is uniform between its levels."""
    spans = zip(lengths.levels, lengths.levels[1:], strict=False)
    ends = zip(lengths.tokens, lengths.tokens[1:], strict=False)
    return sum(
        (high - low) * (a * a + a * b + b * b) / 3
        for (low, high), (a, b) in zip(spans, ends, strict=True)
    )


def test_offline_run_tends_to_the_closed_form() -> None:
    """One GPU of the rack: a long run is within 2 % of it, a short one well below.

    The budget of M tokens a step is shared by prompts (I tokens each) and decoding
    (O - 1 each), so M / (I + O - 1) requests begin with each step. The context of those
    in flight is size-biased: long answers are seen more often.
    """
    machine = load_preset("azure-nd-gb300-v6", "llama-2-70b")
    prompts = load_lengths("mlperf-llama2-70b-input")
    answers = load_lengths("mlperf-llama2-70b-output")
    i, o, oo = prompts.mean, answers.mean, mean_square(answers)
    begun = machine.limits.max_num_batched_tokens / (i + o - 1)
    assert begun * o < machine.limits.max_num_seqs
    seconds = machine.law.seconds(
        begun * (o - 1),
        begun * i,
        begun * (i * (o - 1) + (oo - o) / 2),
        begun * mean_square(prompts) / 2,
    )
    closed_form = begun * o / seconds
    published = machine.facts["published_vm_mean"].value
    assert 4 * closed_form == pytest.approx(published, rel=0.02)

    def rate(requests: int) -> float:
        rng = Random(5)
        fleet = build_fleet(machine.limits, machine.law, engines=1, seed=1)
        arrivals = (
            Request(n, 0.0, prompts.draw(rng), answers.draw(rng))
            for n in range(requests)
        )
        ended = [served.sequence for served in serve(fleet, arrivals)]
        assert len(ended) == requests
        end = max(q.last_s for q in ended if q.last_s is not None)
        return sum(q.output_tokens for q in ended) / end

    short, long = rate(40_000 // 4), rate(100_000)
    assert short < 0.93 * closed_form
    assert 0.98 * closed_form < long < closed_form


def test_a_run_leaves_no_garbage_for_the_collector() -> None:
    """Requests that ended and blocks that were forgotten are freed at once."""
    limits = EngineLimits(
        max_num_seqs=64, max_num_batched_tokens=512, kv_blocks=64, block_size=16,
        max_model_len=256,
    )  # fmt: skip
    fleet = build_fleet(limits, LAW, engines=2, seed=1)

    def sequence_of(request: Request) -> Sequence:
        head = tuple(range(request.index % 3 + 1))
        own = tuple(range(request.index << 8, (request.index << 8) + 4))
        return Sequence(request.id, 128, 40, prefix_ids=head + own)

    gc.collect()
    gc.disable()
    try:
        arrivals = (Request(i, i / 50, 128, 40) for i in range(500))
        assert sum(1 for _ in serve(fleet, arrivals, sequence_of=sequence_of)) == 500
        assert gc.collect() == 0
    finally:
        gc.enable()
    assert sum(engine.prefix_cache_hits for engine in fleet.engines) > 0
    assert sum(engine.preemptions for engine in fleet.engines) > 0


def test_collections_are_rare_until_the_run_ends_however_it_ends() -> None:
    """The threshold of the first generation is raised, and put back after an error."""
    before = gc.get_threshold()

    def fail() -> None:
        assert gc.get_threshold() == (1_000_000, *before[1:])
        raise UsageError("no")

    with pytest.raises(UsageError), rare_collections():
        fail()
    assert gc.get_threshold() == before
