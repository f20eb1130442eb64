"""The collector's end: SDK exporters behind one queue, two threads and one log line.

Whatever the collector does, the process that measures goes on: exports happen in
threads of their own, the first trouble is logged and no other, and closing takes two
seconds at most.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

from opentelemetry.exporter.otlp.proto.http import metric_exporter, trace_exporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ... import __version__
from ...genai import FATE, TELEMETRY
from ...units import Seconds
from .metrics import Reading, Span, metrics_data
from .push import BoundedQueue, Pusher
from .settings import Settings
from .spans import SpanMaker
from .trees import Tree

_log = logging.getLogger("loadstone")

SPANS_EVERY_S: Final = 0.2
"""Often, so that each time there is little to do: with everything sampled, the work of
a whole second at 60 requests/s held up the mock's steps by 10-20 ms at p99."""
BATCH: Final = 16
"""Requests in one export. Building and encoding one takes some 150 us, and a greenlet
does not give way meanwhile: 16 hold up stamps by less than 3 ms."""
CLOSE_S: Final = 1.8
"""What is left of two seconds when a thread that hangs is given up."""
_GRACE_S: Final = 0.3
"""Of these, for threads that were told to stop trying again."""

Ended = TypeVar("Ended")


class Telemetry(Generic[Ended]):
    """Exports one process's spans and metrics until it is closed.

    `read` gives the metrics as of now; `tree_of` makes the spans of an ended request
    that was `put`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        service: str,
        read: Callable[[], Iterable[Reading]],
        tree_of: Callable[[Ended], Tree],
    ) -> None:
        self.resource = resource_of(service)
        self.queue: BoundedQueue[Ended] = BoundedQueue()
        self.fates: Counter[str] = Counter()
        """Sampled requests by what became of their spans."""
        self._settings = settings
        self._read = read
        self._tree_of = tree_of
        self._since = time.time_ns()
        self._exporters: list[SpanExporter | MetricExporter] = []
        self._pushers: list[Pusher] = []
        self._complaints = complaints = OneLine()
        if "traces" in settings.signals:
            complaints.take_over(trace_exporter.__name__)
            self._begin("spans", self._span_pusher(), SPANS_EVERY_S)
        if "metrics" in settings.signals:
            complaints.take_over(metric_exporter.__name__)
            self._begin("metrics", self._metric_pusher(), settings.interval_s)

    def __repr__(self) -> str:
        fates = " ".join(f"{fate}={n}" for fate, n in self._counted().items())
        return f"<Telemetry {'+'.join(sorted(self._settings.signals))} {fates}>"

    def put(self, ended: Ended) -> None:
        """Have the spans of a sampled request exported; never waits."""
        if "traces" in self._settings.signals:
            self.queue.put(ended)

    def close(self, within_s: Seconds = CLOSE_S) -> None:
        """Export what is left, for that long at most; harmless the second time."""
        pushers, self._pushers = self._pushers, []
        now = time.monotonic()
        soon, late = now + within_s - min(_GRACE_S, within_s / 2), now + within_s
        for pusher in pushers:
            pusher.finish(soon)
        ended = [pusher.join(soon) for pusher in pushers]
        # Ends the wait before another attempt, not a request that is under way.
        for exporter in self._exporters if pushers else ():
            exporter.shutdown()
        if not all(ended) and not all(pusher.join(late) for pusher in pushers):
            self._complaints.say("no answer in time")

    def _begin(
        self, name: str, push: Callable[[Callable[[], bool]], None], period_s: Seconds
    ) -> None:
        self._pushers.append(Pusher(f"loadstone-{name}", push, period_s=period_s))

    def _span_pusher(self) -> Callable[[Callable[[], bool]], None]:
        maker, exporter = SpanMaker(self.resource), OTLPSpanExporter()
        self._exporters.append(exporter)

        def push(late: Callable[[], bool]) -> None:
            while len(self.queue) and not late():
                batch = self.queue.take(BATCH)
                spans: list[ReadableSpan] = []
                for ended in batch:
                    spans += maker.make(self._tree_of(ended))
                # Gives way once between making and encoding.
                time.sleep(0)
                sent = exporter.export(spans) is SpanExportResult.SUCCESS
                self.fates["exported" if sent else "failed"] += len(batch)

        return push

    def _metric_pusher(self) -> Callable[[Callable[[], bool]], None]:
        exporter = OTLPMetricExporter()
        self._exporters.append(exporter)

        def push(_: Callable[[], bool]) -> None:
            data = metrics_data(
                [*self._read(), *self._own()],
                resource=self.resource,
                convention=self._settings.convention,
                span=Span(self._since, time.time_ns()),
            )
            if data is not None:
                exporter.export(data)

        return push

    def _counted(self) -> Counter[str]:
        return self.fates + Counter(dropped=self.queue.dropped)

    def _own(self) -> Iterable[Reading]:
        yield TELEMETRY, [({FATE: fate}, n) for fate, n in self._counted().items()]


def resource_of(service: str) -> Resource:
    """Say which process this is; the standard variables may name it otherwise.

    The SDK adds a `service.instance.id` that each process has for itself.
    """
    ours = {"service.name": service, "service.version": __version__}
    named = OTELResourceDetector().detect().attributes
    return Resource.create({k: v for k, v in ours.items() if k not in named})


class OneLine(logging.Handler):
    """Logs the first thing that the exporters complain of, and nothing more.

    They write a line for each batch and each attempt, for as long as a collector is
    away.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said = False

    def take_over(self, logger: str) -> None:
        """Hear what this logger has to say, instead of everybody else."""
        theirs = logging.getLogger(logger)
        theirs.handlers = [self]
        theirs.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on the first record."""
        self.say(record.getMessage())

    def say(self, what: str) -> None:
        """Log what is wrong, unless something has been logged already."""
        if not self._said:
            self._said = True
            _log.warning(
                "telemetry does not reach its collector; nothing waits for it, and"
                " this is said once: %s",
                what,
            )
