"""A request as a tree of spans, made from its row after it ended. No SDK here.

The root lasts from when the request was issued to when its outcome was known, which is
what the duration metric measures. Below it lie the stages, one after the other and
never outside; what is between the last stage and the end is the stream's closing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ...genai import CHAT, Attr, Part
from ...traffic.record import RequestRecord
from ...units import MS, Seconds

Value = str | bool | int | float | tuple[str, ...]
Attributes = Mapping[str, Value]

QUEUED_S: Final = 1 * MS
"""A shorter wait before the send is the dispatcher's own time, not a queue."""


_SECOND: Final = 10**9
"""In nanoseconds."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A span below the root; instants in seconds after the tree's origin."""

    name: str
    begin: Seconds
    end: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The spans of one request on one side.

    `trace_id` and `span_id` 0 are to be drawn; `parent_id` 0 means there is none. All
    instants count from `origin`, in seconds since the epoch.
    """

    name: str
    kind: Literal["client", "server"]
    origin: Seconds
    begin: Seconds
    end: Seconds
    attributes: Attributes
    stages: tuple[Stage, ...] = ()
    error: str | None = None
    trace_id: int = 0
    span_id: int = 0
    parent_id: int = 0

    def nanos(self, instant: Seconds) -> int:
        """Return an instant of the tree in nanoseconds since the epoch.

        The parts are rounded apart: a float of today's seconds is right only to a
        quarter of a microsecond.
        """
        seconds, rest = divmod(self.origin, 1.0)
        return int(seconds) * _SECOND + round(rest * _SECOND) + round(instant * _SECOND)


def client_tree(
    row: RequestRecord, *, origin: Seconds, common: Attributes, root: int
) -> Tree:
    """Return the client's side of a sampled row; `common` is the same for its run."""
    model = common.get(Attr.REQUEST_MODEL, "")
    return Tree(
        name=f"{CHAT} {model}",
        kind="client",
        origin=origin,
        begin=row.intended_s,
        end=row.end_s,
        attributes={**common, **dict(_client_attributes(row))},
        stages=tuple(_client_stages(row)),
        error=error_of(row),
        trace_id=int(row.trace_id or "0", 16),
        span_id=root,
    )


def error_of(row: RequestRecord) -> str | None:
    """Return the row's `error.type`; None if it ended well."""
    return None if row.ok else row.error or row.outcome.value


def _client_stages(row: RequestRecord) -> Iterator[Stage]:
    dialled = max(row.intended_s, row.sent_s - row.connect_s)
    if dialled - row.intended_s >= QUEUED_S:
        yield Stage(Part.QUEUE, row.intended_s, dialled)
    if row.connect_s > 0:
        yield Stage(Part.CONNECT, dialled, row.sent_s)
    if row.first_s is None or row.last_s is None:
        return
    yield Stage(Part.FIRST_TOKEN, row.sent_s, row.first_s)
    yield Stage(Part.DECODE, row.first_s, row.last_s)


def _client_attributes(row: RequestRecord) -> Iterator[tuple[str, Value]]:
    yield Attr.REQUEST, row.id
    yield Attr.SCENARIO, row.scenario
    yield Attr.TENANT, row.tenant
    yield Attr.STAGE, row.stage
    yield Attr.OUTCOME, row.outcome.value
    yield Attr.WARMUP, row.warmup
    yield Attr.STREAM, True
    yield Attr.MAX_TOKENS, row.asked_output_tokens
    # The convention asks for a reason even where none came.
    yield Attr.FINISH_REASONS, (row.finish_reason or "error",)
    if row.status is not None:
        yield Attr.STATUS, row.status
    if row.ttft_intended_s is not None:
        yield Attr.FIRST_CHUNK, row.ttft_intended_s
        yield Attr.INPUT_TOKENS, row.input_tokens
        yield Attr.OUTPUT_TOKENS, row.output_tokens
