"""What the server counts: numbers and bucket arrays, read when scraped.

Nothing is pushed anywhere and nothing is counted per token: the gaps between tokens of
a step are one addition weighted by the batch, and the rest is counted once a step or
once a request.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from loadstone.buckets import BucketArray, Exemplar, TracedArray
from loadstone.engine.sequence import Sequence, Step
from loadstone.units import MS, Seconds, Tokens
from loadstone.vocabulary import (
    FAULT_KINDS,
    FINISHED_REASONS,
    REJECTION_REASONS,
    MetricSpec,
    Server,
)
from loadstone.wire.openapi import AZURE, DEPLOYMENT, V1

FinishedReason = Literal["stop", "length", "abort"]
LATE_S: Final[Seconds] = 5 * MS
"""A step may be written this late: half of what a browser or a human could notice, and
several times what a timer and a batch of writes need."""
LATE_SHARE: Final = 0.05
"""Or late by this share of its duration, if that is more."""
Operation = Literal["chat", "text_completion", "embeddings"]
"""What a request asks for, by OpenTelemetry's names."""

_ENDPOINTS: Final[dict[str, Operation]] = {
    "/chat/completions": "chat",
    "/responses": "chat",
    "/completions": "text_completion",
    "/embeddings": "embeddings",
}
_OPERATIONS: Final[dict[str, Operation]] = {
    prefix + path: operation
    for prefix in (V1, AZURE, DEPLOYMENT)
    for path, operation in _ENDPOINTS.items()
}
_NOT_COUNTED: Final = frozenset(
    ("/health", "/load", "/metrics", "/ping", "/ready", "/server_info", "/version")
)
"""Probes that vLLM leaves out of its HTTP metrics."""


def _array(spec: MetricSpec, most: Tokens | None = None) -> BucketArray:
    return BucketArray([b for b in spec.bounds if most is None or b <= most])


class GenAiStats:
    """What OpenTelemetry's GenAI conventions ask of a server, by operation."""

    def __init__(self) -> None:
        self.ttft: dict[Operation, BucketArray] = {"chat": _array(Server.GENAI_TTFT)}
        self.tpot: dict[Operation, BucketArray] = {"chat": _array(Server.GENAI_TPOT)}
        self.duration: dict[tuple[Operation, str], BucketArray] = {
            ("chat", ""): _array(Server.GENAI_DURATION)
        }
        """By operation and error type; that of a success is empty."""

    def __repr__(self) -> str:
        return f"<GenAiStats {', '.join(self.ttft)}>"

    def first_token(self, operation: Operation, waited_s: Seconds) -> None:
        """Count a time to first token."""
        if operation not in self.ttft:
            self.ttft[operation] = _array(Server.GENAI_TTFT)
        self.ttft[operation].add(waited_s)

    def pace(self, operation: Operation, tpot_s: Seconds) -> None:
        """Count a request's time per output token after the first."""
        if operation not in self.tpot:
            self.tpot[operation] = _array(Server.GENAI_TPOT)
        self.tpot[operation].add(tpot_s)

    def request(self, operation: Operation, status: int, took_s: Seconds) -> None:
        """Count a request by how it ended: an error's type is its HTTP status."""
        key = operation, "" if status < 400 else str(status)
        if key not in self.duration:
            self.duration[key] = _array(Server.GENAI_DURATION)
        self.duration[key].add(took_s)


class EngineStats:
    """What happened on one engine, seen from the server's edge, in seconds.

    `ttft` and `e2e` run from the request's receipt to the write of its first and last
    token, so they hold what clients were made to wait, lateness of this process
    included. All other times are those of the emulated schedule. `itl` is the step
    time, once for each sequence that decoded in it; the gap that a preemption makes is
    only in `tpot`. `lag` is one value per step: the end of its writes against the
    schedule. Requests that were cancelled are in `finished` and `ttft` alone.
    """

    __slots__ = (
        "_genai", "cached_tokens", "decode", "e2e", "finished", "generation_lengths",
        "inference", "itl", "lag", "late_steps", "longest", "max_tokens", "n",
        "preemptions", "prefill", "prefill_computed", "prompt_lengths", "prompt_tokens",
        "queue", "step_tokens", "tpot", "ttft", "wakings",
    )  # fmt: skip

    def __init__(
        self, genai: GenAiStats | None = None, max_model_len: Tokens | None = None
    ) -> None:
        self._genai = genai or GenAiStats()
        self.ttft = TracedArray(Server.TTFT.bounds)
        self.e2e = TracedArray(Server.E2E.bounds)
        self.itl = _array(Server.ITL)
        self.lag = _array(Server.CLOCK_LAG)
        self.late_steps = 0
        """Steps of `lag` that were late by more than `LATE_S` and `LATE_SHARE`."""
        self.wakings = 0
        """Times it was written for: fewer than the steps where some were late."""
        self.step_tokens = _array(Server.STEP_TOKENS)
        self.tpot = _array(Server.TPOT)
        self.queue = _array(Server.QUEUE_TIME)
        self.prefill = _array(Server.PREFILL_TIME)
        self.decode = _array(Server.DECODE_TIME)
        self.inference = _array(Server.INFERENCE_TIME)
        self.prompt_lengths = _array(Server.REQUEST_PROMPT, max_model_len)
        self.prefill_computed = _array(Server.PREFILL_COMPUTED, max_model_len)
        self.generation_lengths = _array(Server.REQUEST_GENERATION, max_model_len)
        self.longest = _array(Server.REQUEST_MAX_GENERATION, max_model_len)
        self.max_tokens = _array(Server.REQUEST_MAX_TOKENS, max_model_len)
        self.n = _array(Server.REQUEST_N)
        self.preemptions = _array(Server.REQUEST_PREEMPTIONS)
        self.prompt_tokens: Tokens = 0
        """Of requests that got their first token, as vLLM counts them: once each."""
        self.cached_tokens: Tokens = 0
        """Those of them that the prefix cache had when the request was admitted."""
        self.finished: dict[str, int] = dict.fromkeys(FINISHED_REASONS, 0)

    def __repr__(self) -> str:
        ends = " ".join(f"{reason}={n}" for reason, n in self.finished.items() if n)
        return f"<EngineStats {ends or 'idle'} steps={self.lag.count}>"

    def step(self, step: Step) -> None:
        """Count a completed step."""
        if step.decoding:
            self.itl.add(step.end_s - step.start_s, step.decoding)
        self.step_tokens.add(step.prefill_tokens + step.tokens)

    def written(self, step: Step, lag_s: Seconds) -> None:
        """Count that a step's tokens are written, and how late that was."""
        self.lag.add(lag_s)
        if lag_s > LATE_S and lag_s > LATE_SHARE * (step.end_s - step.start_s):
            self.late_steps += 1

    def first_token(
        self,
        sequence: Sequence,
        waited_s: Seconds,
        *,
        operation: Operation = "chat",
        at: Seconds = 0.0,
        trace_id: str | None = None,
    ) -> None:
        """Count a request's first token; `at`, since the epoch, dates its trace."""
        self.prompt_tokens += sequence.prompt_tokens
        self.cached_tokens += sequence.cached_tokens or 0
        self.ttft.add(waited_s)
        self._genai.first_token(operation, waited_s)
        if trace_id is not None:
            self.ttft.trace(Exemplar(trace_id, waited_s, at))

    def finish(
        self,
        sequence: Sequence,
        reason: FinishedReason,
        took_s: Seconds,
        *,
        max_tokens: Tokens = 0,
        n: int = 1,
        operation: Operation = "chat",
        at: Seconds = 0.0,
        trace_id: str | None = None,
    ) -> None:
        """Count a request that was answered to the end.

        `max_tokens` is what its answer might have had, 0 where that is not known. `n`
        is how many answers its request has; it is given with the longest of them, and
        0 with the others.
        """
        scheduled, first, last = sequence.scheduled_s, sequence.first_s, sequence.last_s
        assert scheduled is not None
        assert first is not None
        assert last is not None
        tokens = sequence.output_tokens
        tpot = (last - first) / (tokens - 1) if tokens > 1 else 0.0
        self.finished[reason] += 1
        self.e2e.add(took_s)
        if trace_id is not None:
            self.e2e.trace(Exemplar(trace_id, took_s, at))
        self.tpot.add(tpot)
        if tokens > 1:
            self._genai.pace(operation, tpot)
        self.queue.add(scheduled - sequence.arrived_s)
        self.prefill.add(first - scheduled)
        self.decode.add(last - first)
        self.inference.add(last - scheduled)
        self.prompt_lengths.add(sequence.prompt_tokens)
        cached = sequence.cached_tokens or 0
        self.prefill_computed.add(sequence.prompt_tokens - cached)
        self.generation_lengths.add(tokens)
        if max_tokens:
            self.max_tokens.add(max_tokens)
        if n:
            self.n.add(n)
            self.longest.add(tokens)
        self.preemptions.add(sequence.preemptions)


@dataclass(slots=True)
class LagAlarm:
    """Whether the server keeps the emulated schedule."""

    on: bool = False
    windows: int = 0
    """How many windows were late so far."""


class ServerStats:
    """What happened on the whole server: its engines and its HTTP requests.

    Histograms of token counts end at `max_model_len`, where that is given.
    """

    def __init__(self, engines: int, *, max_model_len: Tokens | None = None) -> None:
        self.genai = GenAiStats()
        self.engines = [EngineStats(self.genai, max_model_len) for _ in range(engines)]
        self.lag_alarm = LagAlarm()
        self.slow_readers = 0
        """Streams cut off because their client did not read."""
        self.rejected: dict[str, int] = dict.fromkeys(REJECTION_REASONS, 0)
        """Requests refused before an engine saw them, by what there was too much of."""
        self.faults: dict[str, int] = dict.fromkeys(FAULT_KINDS, 0)
        """Faults that were done on purpose, by kind."""
        self.tenants: Counter[tuple[str, str]] = Counter()
        """Requests by tenant and what the door said."""
        self.loop_lag = _array(Server.LOOP_LAG)
        self._http: Counter[tuple[str, str, str]] = Counter()
        self._http_duration: defaultdict[tuple[str, str], BucketArray] = defaultdict(
            lambda: _array(Server.HTTP_DURATION)
        )

    def __repr__(self) -> str:
        return (
            f"<ServerStats of {len(self.engines)} engines,"
            f" {self._http.total()} HTTP requests, {self.slow_readers} slow readers>"
        )

    def steps_written(self) -> tuple[int, int]:
        """Return how many steps were written on all engines, and how many late."""
        return (
            sum(engine.lag.count for engine in self.engines),
            sum(engine.late_steps for engine in self.engines),
        )

    def count_http(
        self, handler: str, method: str, status: int, took_s: Seconds
    ) -> None:
        """Count one HTTP request by its route, method and class of status."""
        if handler in _NOT_COUNTED:
            return
        self._http[handler, method, f"{status // 100}xx"] += 1
        self._http_duration[handler, method].add(took_s)
        operation = _OPERATIONS.get(handler)
        if operation is not None and method == "POST":
            self.genai.request(operation, status, took_s)

    def http_requests(self) -> Iterator[tuple[tuple[str, str, str], int]]:
        """Yield `((handler, method, status class), n)`; a class is such as `2xx`."""
        yield from self._http.items()

    def http_durations(self) -> Iterator[tuple[tuple[str, str], BucketArray]]:
        """Yield `((handler, method), durations)`."""
        yield from self._http_duration.items()
