"""Which trace a request belongs to, and whether it is sampled."""

from random import Random

import pytest

from loadgen.tracing import Traces, root_span_id
from loadstone.wire.traceparent import TraceParent

N = 4000


def drawn(seed: int = 0, run: str = "a", ratio: float = 0.5) -> list[TraceParent]:
    """Draw the traces of one run, in plan order."""
    traces = Traces(seed, run=run, ratio=ratio)
    return [traces.of(index) for index in range(N)]


def sample(traces: list[TraceParent]) -> list[int]:
    """Return the indices of the requests that are sampled."""
    return [index for index, trace in enumerate(traces) if trace.sampled]


def test_same_seed_same_run_same_traces() -> None:
    """In every worker, and in whatever order requests come."""
    traces = Traces(7, run="a", ratio=0.5)
    order = list(range(N))
    Random(1).shuffle(order)
    shuffled = {index: traces.of(index) for index in order}
    assert [shuffled[index] for index in range(N)] == drawn(7)


def test_same_seed_same_sample_in_another_run() -> None:
    """Two runs of one seed trace the same requests, and share no trace."""
    one, two = drawn(run="a"), drawn(run="b")
    assert sample(one) == sample(two)
    assert not {t.trace_id for t in one} & {t.trace_id for t in two}
    assert sample(one) != sample(drawn(seed=1))


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.5, 1.0])
def test_the_ratio_is_kept(ratio: float) -> None:
    """None, all, or a share that is right to within four standard deviations."""
    spread = 4 * (N * ratio * (1 - ratio)) ** 0.5
    assert abs(len(sample(drawn(ratio=ratio))) - N * ratio) <= spread


def test_a_larger_ratio_samples_the_same_and_more() -> None:
    """Turning sampling up keeps the requests that were looked at before."""
    assert set(sample(drawn(ratio=0.1))) < set(sample(drawn(ratio=0.3)))


def test_all_traces_of_a_run_begin_alike_and_differ() -> None:
    """The left half is the run's, the right half the request's."""
    traces = drawn()
    assert len({t.trace_hex[:16] for t in traces}) == 1
    assert len({t.trace_id for t in traces}) == len({t.span_id for t in traces}) == N


def test_the_root_span_is_known_from_the_trace() -> None:
    """A row needs no second id."""
    assert all(root_span_id(t.trace_hex) == t.span_id for t in drawn())


def test_the_sdk_samples_the_same_traces() -> None:
    """A gateway with OpenTelemetry's sampler and the same ratio agrees."""
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    sampler = TraceIdRatioBased(0.3)
    for trace in drawn(ratio=0.3):
        decision = sampler.should_sample(None, trace.trace_id, "chat").decision
        assert decision.is_sampled() is trace.sampled


def test_it_says_what_it_does() -> None:
    """The run's half and the ratio are in the repr."""
    assert repr(Traces(0, run="a", ratio=0.25)).endswith("... sampled 0.25>")
