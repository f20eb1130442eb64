"""Which trace a request belongs to, and whether it is sampled. Pure.

A trace id is two halves. The left one is the run's, the same for all of its requests in
all of its processes: two runs of one seed never share a trace. The right one is drawn
from the seed by the request's index, in whatever order requests are asked for, and it
alone decides about sampling: two runs of one seed sample the same requests. The bound
is that of OpenTelemetry's TraceIdRatioBased, so that whoever samples by the same ratio
on the way agrees.

The span of the request is the root of its trace, and its id is the right half (Zipkin's
custom), so a row's trace id is all that an exporter needs.
"""

from hashlib import blake2b
from typing import Final

from loadstone.wire.traceparent import RUN_BITS, TraceParent

_HALF: Final = 1 << RUN_BITS


class Traces:
    """The traces of one run: `ratio` of them, 0 to 1, are sampled."""

    def __init__(self, seed: int, *, run: str, ratio: float) -> None:
        self.ratio = ratio
        self._seed = seed
        self._run = _draw(f"run/{run}") << RUN_BITS
        self._bound = round(ratio * _HALF)

    def __repr__(self) -> str:
        return f"<Traces {self.run_hex}... sampled {self.ratio:g}>"

    @property
    def run_hex(self) -> str:
        """The run's half, as the mock's `/runs/{run}` takes it."""
        return f"{self._run >> RUN_BITS:016x}"

    def of(self, number: str) -> TraceParent:
        """Return the trace of the request of that number, with its span as parent."""
        half = _draw(f"{self._seed}/traces/{number}")
        return TraceParent(self._run | half, half, half < self._bound)


def root_span_id(trace_hex: str) -> int:
    """Return the id of the request's span, from the trace id in its row."""
    return int(trace_hex, 16) % _HALF


def _draw(name: str) -> int:
    # NOTE: 0.4 us, where seeding a random.Random with the same name takes 5.
    # Zero is no id; it comes up once in 2**64.
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) or 1
