"""Trees to the SDK's spans, through its public doors only.

A `TracerProvider` with a generator that gives the ids a tree asks for, a sampler that
keeps everything (the decision was made long before) and a processor that collects what
ended. A `ReadableSpan` could be had cheaper (4 instead of 14 us), but the SDK says not
to make one.
"""

from random import Random

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from ... import __version__
from ...genai import SCOPE, Attr
from .trees import Tree

_KINDS = {"client": SpanKind.CLIENT, "server": SpanKind.SERVER}


class _Ids(IdGenerator):
    """Gives the ids that were asked for, else draws them."""

    def __init__(self) -> None:
        # Made after a fork, so that two workers never draw alike.
        self._random = Random()
        self.trace_id = 0
        self.span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id or self._random.getrandbits(128) or 1

    def generate_span_id(self) -> int:
        wanted, self.span_id = self.span_id, 0
        return wanted or self._random.getrandbits(64) or 1


class _Collected(SpanProcessor):
    """Keeps the spans that ended until they are taken."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class SpanMaker:
    """Makes the spans of trees; for one thread at a time."""

    def __init__(self, resource: Resource) -> None:
        self._ids = _Ids()
        self._collected = _Collected()
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=resource,
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        provider.add_span_processor(self._collected)
        self._tracer = provider.get_tracer(SCOPE, __version__)

    def make(self, tree: Tree) -> list[ReadableSpan]:
        """Return the tree's spans, the stages before the root."""
        self._ids.trace_id, self._ids.span_id = tree.trace_id, tree.span_id
        root = self._tracer.start_span(
            tree.name,
            context=_remote(tree),
            kind=_KINDS[tree.kind],
            attributes=dict(tree.attributes),
            start_time=tree.nanos(tree.begin),
        )
        if tree.error is not None:
            root.set_attribute(Attr.ERROR, tree.error)
            root.set_status(Status(StatusCode.ERROR))
        inside = set_span_in_context(root, Context())
        for stage in tree.stages:
            span = self._tracer.start_span(
                stage.name, context=inside, start_time=tree.nanos(stage.begin)
            )
            span.end(tree.nanos(stage.end))
        root.end(tree.nanos(tree.end))
        made, self._collected.spans = self._collected.spans, []
        return made


def _remote(tree: Tree) -> Context:
    """Return the context of the caller's span; an empty one if there is no caller."""
    if not tree.parent_id:
        return Context()
    parent = SpanContext(
        tree.trace_id, tree.parent_id, is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )  # fmt: skip
    return set_span_in_context(NonRecordingSpan(parent), Context())
