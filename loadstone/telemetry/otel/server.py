"""The mock's telemetry: an observer of its hooks, and a reader of its statistics.

The stages of a request are those of the emulated schedule; a process that is late
writes after them, and then the root is longer than its stages.
"""

from collections.abc import Iterator
from random import Random

from mock_server.hooks import Visit
from mock_server.sinks import Ticket
from mock_server.stats import ServerStats

from ...genai import CHAT, SERVER_SERVICE, Attr, OtelServer, Part
from ...units import Seconds
from ...vocabulary import GENAI_OTHER_MODEL, GENAI_PROVIDER
from .export import Telemetry
from .metrics import Reading
from .settings import Settings
from .trees import Attributes, Stage, Tree, Value

_LOW_HALF = 1 << 64
"""The half of a trace id that decides, as in OpenTelemetry's TraceIdRatioBased."""


class ServerTelemetry:
    """Observes a mock server and exports it until it is closed."""

    def __init__(self, settings: Settings, *, model: str, stats: ServerStats) -> None:
        self._settings = settings
        self._model = model
        self._stats = stats
        self._bound = round(settings.ratio * _LOW_HALF)
        # For requests that bring no trace; nothing else depends on it.
        self._random = Random()
        self._telemetry: Telemetry[Visit] = Telemetry(
            settings, service=SERVER_SERVICE, read=self.read, tree_of=self._tree_of
        )

    def __repr__(self) -> str:
        return f"<ServerTelemetry {self._telemetry!r}>"

    def request_served(self, visit: Visit) -> None:
        """Have a request's spans exported if it is sampled."""
        if self._samples(visit):
            self._telemetry.put(visit)

    def close(self) -> None:
        """Export what is left, within two seconds."""
        self._telemetry.close()

    def read(self) -> Iterator[Reading]:
        """Yield the conventions' metrics, from the arrays that `/metrics` shows too."""
        genai = self._stats.genai
        yield (
            OtelServer.DURATION,
            [
                (self._common(operation, error), array)
                for (operation, error), array in list(genai.duration.items())
            ],
        )
        for spec, arrays in (
            (OtelServer.FIRST_TOKEN, genai.ttft),
            (OtelServer.PER_TOKEN, genai.tpot),
        ):
            yield spec, [(self._common(o), a) for o, a in list(arrays.items())]

    def _common(self, operation: str, error: str = "") -> Attributes:
        return {
            Attr.OPERATION: operation,
            Attr.PROVIDER: GENAI_PROVIDER,
            Attr.REQUEST_MODEL: GENAI_OTHER_MODEL if error else self._model,
            **({Attr.ERROR: error} if error else {}),
        }

    def _samples(self, visit: Visit) -> bool:
        parent = visit.parent
        if parent is None:
            return self._random.getrandbits(64) < self._bound
        if self._settings.follows_parent:
            return parent.sampled
        return parent.trace_id % _LOW_HALF < self._bound

    def _tree_of(self, visit: Visit) -> Tree:
        parent, ticket = visit.parent, visit.ticket
        error = str(visit.status) if visit.status >= 400 else ""
        operation = CHAT if ticket is None else ticket.operation
        more = {} if ticket is None else dict(_attributes(ticket, whole=not error))
        return Tree(
            name=f"{operation} {GENAI_OTHER_MODEL if error else self._model}",
            kind="server",
            origin=visit.t0_epoch,
            begin=visit.received_s,
            end=visit.ended_s,
            attributes={
                **self._common(operation, error), Attr.STATUS: visit.status, **more
            },
            stages=tuple(_stages(visit, ticket)) if ticket else (),
            error=error or None,
            trace_id=parent.trace_id if parent else 0,
            parent_id=parent.span_id if parent else 0,
        )  # fmt: skip


def _stages(visit: Visit, ticket: Ticket) -> Iterator[Stage]:
    """Yield the stages that began; the last one of a broken request ends with it."""
    sequence = ticket.sequence
    if ticket.engine < 0:  # refused before an engine saw it
        return
    begin: Seconds | None = visit.received_s
    for name, end in (
        (Part.QUEUE, sequence.scheduled_s),
        (Part.PREFILL, sequence.first_s),
        (Part.DECODE, sequence.last_s),
    ):
        if begin is None:
            return
        until = visit.ended_s if end is None else min(end, visit.ended_s)
        yield Stage(name, begin, until)
        begin = None if end is None else until


def _attributes(ticket: Ticket, *, whole: bool) -> Iterator[tuple[str, Value]]:
    sequence = ticket.sequence
    yield Attr.RESPONSE_ID, sequence.id
    yield Attr.MAX_TOKENS, ticket.max_tokens
    yield Attr.ENGINE, ticket.engine
    yield Attr.PREEMPTIONS, sequence.preemptions
    yield Attr.SLOWDOWN, ticket.slowdown
    yield Attr.FINISH_REASONS, (ticket.answer.finish_reason if whole else "error",)
    if whole:
        usage = ticket.usage()
        yield Attr.INPUT_TOKENS, usage.prompt_tokens
        yield Attr.OUTPUT_TOKENS, usage.completion_tokens
