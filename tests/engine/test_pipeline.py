"""When an engine looks at what arrived: overlap and gathering."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.engine.core import Engine
from loadstone.engine.fleet import build_fleet
from loadstone.engine.sequence import Sequence, State
from loadstone.engine.virtual import serve
from loadstone.physics.limits import EngineLimits
from loadstone.physics.pipeline import DIRECT, Pipeline
from loadstone.physics.steplaw import StepLaw
from loadstone.traffic.request import Request

SECOND = StepLaw(
    weights_ms=1000.0, gemm_us_per_token=0.0, kv_ns_per_token=0.0, pair_ns=0.0
)
LIMITS = EngineLimits(
    max_num_seqs=64, max_num_batched_tokens=4096, kv_blocks=4096, block_size=16,
    max_model_len=4096,
)  # fmt: skip


def _engine(pipeline: Pipeline) -> Engine:
    return Engine(LIMITS, SECOND, Random(0), pipeline=pipeline)


def _run(engine: Engine) -> list[str]:
    log, before = [], 0.0
    while engine.due is not None:
        assert engine.due >= before
        before = engine.due
        step = engine.step()
        if step is not None:
            log.append(step.line())
    return log


@pytest.mark.parametrize(
    ("pipeline", "first_s"),
    [
        (DIRECT, 3.0),  # planned at 2 s
        (Pipeline(overlap_steps=0.8), 3.0),  # 1.2 s is no later than 2 - 0.8
        (Pipeline(overlap_steps=0.81), 4.0),
        (Pipeline(overlap_steps=1.65), 4.0),
        (Pipeline(gather_steps=4), 5.0),  # let in when four steps are complete
        (Pipeline(gather_steps=10), 11.0),
        (Pipeline(overlap_steps=2.85, gather_steps=4), 9.0),  # seen at 5 s, let in at 8
    ],
)
def test_a_busy_engine_looks_late(pipeline: Pipeline, first_s: float) -> None:
    """By hand: steps of a second, the second request due at 1.2 s."""
    engine = _engine(pipeline)
    long, late = Sequence("long", 16, 40), Sequence("late", 16, 3)
    engine.submit(long, 0.0)
    engine.submit(late, 1.2)
    _run(engine)
    assert long.first_s == 1.0
    assert late.first_s == pytest.approx(first_s)
    assert late.last_s == pytest.approx(first_s + 2)


def test_an_idle_engine_waits_for_nothing() -> None:
    """Nor does one that has just become idle with something it had not looked at."""
    engine = _engine(Pipeline(overlap_steps=1.65, gather_steps=10))
    one, two = Sequence("one", 16, 2), Sequence("two", 16, 2)
    engine.submit(one, 0.0)
    engine.submit(two, 1.5)
    _run(engine)
    assert (one.last_s, two.first_s) == (2.0, 3.0)


def test_the_last_of_a_batch_may_be_cancelled() -> None:
    """What is stamped just after is looked at in the same instant."""
    engine = _engine(Pipeline(overlap_steps=1.65))
    gone, then = Sequence("gone", 16, 99), Sequence("then", 16, 2)
    engine.submit(gone, 0.0)
    engine.cancel(gone, 1.2)
    engine.submit(then, 1.4)
    _run(engine)
    assert gone.state is State.CANCELLED
    # The cancellation is seen at 3 s, and then nothing is left to overlap with.
    assert then.first_s == 4.0


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    """Return requests in order of arrival."""
    gaps = draw(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=25))
    dues = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    size = st.integers(1, 60)
    return [Request(i, due, draw(size), draw(size)) for i, due in enumerate(dues)]


PIPELINES = st.builds(Pipeline, st.floats(0.0, 4.0), st.integers(1, 12))


@given(requests(), PIPELINES)
def test_it_delays_starts_and_leaves_the_pace(
    arrivals: list[Request], pipeline: Pipeline
) -> None:
    """Everything is answered; a token takes its step; starts wait so long at most."""
    fleet = build_fleet(LIMITS, SECOND, engines=1, seed=0, pipeline=pipeline)
    served = list(serve(fleet, arrivals))
    assert len(served) == len(arrivals)
    for request, sequence, _, _ in served:
        assert sequence.first_s is not None
        assert sequence.last_s == pytest.approx(
            sequence.first_s + request.output_tokens - 1
        )
        # A step to be seen in, and the steps of the pipeline, rounded up.
        longest = 3 + pipeline.overlap_steps + pipeline.gather_steps
        assert sequence.first_s - request.intended_s + 1e-6 >= 1
        assert sequence.first_s - request.intended_s <= longest


@given(requests(), PIPELINES)
def test_stamps_alone_decide(arrivals: list[Request], pipeline: Pipeline) -> None:
    """Told as it happens or all beforehand: the same log."""
    log: list[str] = []
    fleet = build_fleet(LIMITS, SECOND, engines=1, seed=0, pipeline=pipeline)
    for _ in serve(fleet, arrivals, on_step=lambda _, step: log.append(step.line())):
        pass
    told = _engine(pipeline)
    for request in arrivals:
        sequence = Sequence(request.id, request.input_tokens, request.output_tokens)
        told.submit(sequence, request.intended_s)
    assert _run(told) == log


@pytest.mark.parametrize("wrong", [(-0.1, 1), (0.0, 0), (float("nan"), 1)])
def test_what_no_software_does(wrong: tuple[float, int]) -> None:
    """Looking into the future, or never letting anyone in."""
    with pytest.raises(ValueError, match="not a pipeline"):
        Pipeline(*wrong)
