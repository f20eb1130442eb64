"""Sources: a schedule that does not care, and users who wait for their answers."""

from collections.abc import Iterable, Iterator
from itertools import count
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.engine.fleet import build_fleet
from loadstone.engine.sequence import Sequence
from loadstone.engine.virtual import serve, whole_sequence
from loadstone.physics.limits import EngineLimits
from loadstone.physics.steplaw import StepLaw
from loadstone.traffic.journey import Journey
from loadstone.traffic.plan import Plan
from loadstone.traffic.request import Prefix, Request
from loadstone.traffic.source import Scheduled, Source, Users

LIMITS = EngineLimits(
    max_num_seqs=8, max_num_batched_tokens=512, kv_blocks=4096, block_size=16,
    max_model_len=4096,
)  # fmt: skip
FLAT = StepLaw(
    weights_ms=1000.0, gemm_us_per_token=0.0, kv_ns_per_token=0.0, pair_ns=0.0
)
"""Every step lasts one second."""


def users_of(n: int, *, think: float = 0.0, duration: float = 10.0) -> Users:
    """Return users whose prompts are numbered from 1 and answers two tokens long."""
    plan = Plan(users=n, think_s=think, duration_s=duration, seed=3)
    return Users(plan, alone((i, 2) for i in count(1)))


def alone(lengths: Iterable[tuple[int, int]]) -> Iterator[Journey]:
    """Return requests of these lengths, each a journey of its own."""
    return ((Request(i, 0.0, *each),) for i, each in enumerate(lengths))


def test_schedule_is_drawn_as_it_is_taken() -> None:
    """One ahead and no more; answers change nothing."""
    drawn = []

    def requests() -> object:
        for i in range(3):
            drawn.append(i)
            yield Request(i, float(i), 1, 1)

    source = Scheduled(requests())
    assert isinstance(source, Source)
    for i in range(3):
        assert (source.next_at, drawn) == (float(i), list(range(i + 1)))
        request = source.take()
        source.ended(request, 99.0)
        assert request.index == i
    assert source.next_at == inf


def test_users_ask_wait_and_ask_again_by_hand() -> None:
    """Two at t0; who has an answer asks at once, and nobody after the duration."""
    users = users_of(2, duration=5.0)
    assert isinstance(users, Source)
    first, second = users.take(), users.take()
    assert [(r.index, r.intended_s, r.input_tokens) for r in (first, second)] == [
        (0, 0.0, 1), (1, 0.0, 2),
    ]  # fmt: skip
    assert users.next_at == inf
    users.ended(second, 3.0)
    assert users.next_at == 3.0
    third = users.take()
    assert (third.index, third.intended_s, third.input_tokens) == (2, 3.0, 3)
    users.ended(first, 5.0)
    assert users.next_at == inf


def test_pauses_are_those_of_a_live_run() -> None:
    """Exponential, drawn in the order of answers from the seed of worker 0."""
    users, rng = users_of(3, think=2.0, duration=1e9), Random("3/think/0")
    asked = [users.take() for _ in range(3)]
    due = []
    for at, request in enumerate(asked):
        users.ended(request, float(at))
        due.append(at + rng.expovariate(1 / 2.0))
    assert [users.take().intended_s for _ in range(3)] == sorted(due)


@given(st.integers(1, 30), st.floats(0.0, 5.0), st.integers(1, 6))
def test_closed_loop_never_has_more_in_flight_than_users(
    n: int, think: float, output: int
) -> None:
    """Each user's next request comes after an answer, numbered in order of asking."""
    plan = Plan(users=n, think_s=think, duration_s=30.0)
    users = Users(plan, alone((5, output) for _ in count()))
    fleet = build_fleet(LIMITS, FLAT, engines=2, seed=0, router="least_loaded")
    served = list(serve(fleet, users))
    by_index = sorted(served, key=lambda each: each.request.index)
    assert [each.request.index for each in by_index] == list(range(len(served)))
    due = [each.request.intended_s for each in by_index]
    assert due == sorted(due)
    assert due[-1] < 30.0
    assert due[: n + 1].count(0.0) >= n
    edges = sorted(
        [(each.request.intended_s, 1) for each in served]
        + [(each.sequence.last_s or inf, -1) for each in served]
    )
    inside = 0
    for _, change in edges:
        inside += change
        assert inside <= n


def test_one_user_alone_by_hand() -> None:
    """A second for the prompt, one for the second token, no pause: every two seconds.

    An answer ends as the next step is planned, so the next request waits for it, if
    another is there; alone, it begins at once.
    """
    fleet = build_fleet(LIMITS, FLAT, engines=1, seed=0)
    served = list(serve(fleet, users_of(1, duration=5.0)))
    assert [each.request.intended_s for each in served] == [0.0, 2.0, 4.0]
    assert [each.sequence.first_s for each in served] == pytest.approx([1.0, 3.0, 5.0])


# ------------------------------------------------------------- how a run ends


def test_what_is_left_at_the_end_comes_last_unfinished() -> None:
    """Of four: one ended, one is in its first step, one due later never came."""
    fleet = build_fleet(LIMITS, FLAT, engines=1, seed=0)
    requests = [Request(i, at, 4, n) for i, (at, n) in enumerate(
        [(0.0, 2), (0.5, 9), (2.4, 2), (2.5, 2)]
    )]  # fmt: skip
    served = list(serve(fleet, requests, until=2.5))
    assert [(s.request.index, s.sequence.last_s) for s in served] == [
        (0, 2.0), (1, None), (2, None),
    ]  # fmt: skip


def test_a_run_may_be_stopped_at_any_event() -> None:
    """Endless arrivals; what is in flight after the third answer is handed over."""
    fleet = build_fleet(LIMITS, FLAT, engines=1, seed=0)
    asked = count()
    endless = (Request(i, i / 4, 4, 2) for i in asked)
    served = list(serve(fleet, endless, stopping=lambda: fleet.engines[0].steps > 9))
    done = [each.sequence.last_s is not None for each in served]
    assert 3 < done.count(True) < len(done) - 3
    assert done == sorted(done, reverse=True)
    assert len(done) == next(asked) - 1


# ------------------------------------------------------------- prefixes


@given(
    st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 6),
    st.sampled_from([1, 16, 32, 48, 100, 512, 700]),
)  # fmt: skip
def test_ids_are_shared_exactly_as_far_as_tokens_are(
    a: int, b: int, common: int, block_size: int
) -> None:
    """A block has the same id in two prompts if and only if it ends in what is common.

    Whatever the block size of the engine.
    """

    def ids(tokens: int, own: int) -> tuple[int, ...]:
        blocks = range(-(-tokens // 512))
        recorded = tuple(i if i < common else own + i for i in blocks)
        return Prefix(512, recorded).ids(tokens, block_size)

    first, second = ids(a, 1000), ids(b, 2000)
    assert (len(first), len(second)) == (a // block_size, b // block_size)
    assert len(set(first)) == len(first)
    shared = common * 512 // block_size
    assert first[:shared] == second[: len(first)][:shared] or min(a, b) < common * 512
    both = min(len(first), len(second))
    for i in range(both):
        assert (first[i] == second[i]) is (i < shared)


def test_sequences_carry_all_that_a_request_declares() -> None:
    """Maximum, priority and prefix ids of the engine's block size."""
    request = Request(
        7, 0.0, 40, 5, max_output_tokens=9, priority=2, prefix=Prefix(512, (3,))
    )
    sequence = whole_sequence(16)(request)
    assert isinstance(sequence, Sequence)
    assert (sequence.max_output_tokens, sequence.priority) == (9, 2)
    assert sequence.prefix_ids == (3 * 512 + 15, 3 * 512 + 31)
    plain = whole_sequence(16)(Request(8, 0.0, 40, 5))
    assert (plain.max_output_tokens, plain.priority, plain.prefix_ids) == (5, 0, ())
