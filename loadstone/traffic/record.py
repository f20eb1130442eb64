"""One immutable row per request; everything else in a run is a fold over these rows.

Instants are seconds since the run's t0 on the client's clock. A row says what was
asked, what came back and when; figures such as TTFT are derived, so they have one
definition.

Rows are `msgspec` structs: making, writing and reading one is a microsecond or two in
C, where a frozen dataclass and the standard library's JSON take forty. Nothing in a row
refers back to it, so the garbage collector need not walk them (`gc=False`).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Self

import msgspec

from ..units import Seconds, Tokens

STAMP_DIGITS: Final = 6
"""Instants are written to the microsecond."""
GENERATE: Final = "generate"
"""The stage of a pipeline that asks for the answer."""


class Outcome(StrEnum):
    """How a request that was sent ended; each ends in exactly one of these."""

    OK = "ok"
    FAILED = "failed"
    THROTTLED = "throttled"
    """Refused with 429: a limit, not a fault."""
    CANCELLED = "cancelled"
    """Ended by us: the run was stopped while it was in flight."""
    INCOMPLETE = "incomplete"
    """Still running when the drain ended."""


class TokensSource(StrEnum):
    """Who counted the output tokens of a row."""

    USAGE = "usage"
    CHUNKS = "chunks"
    NONE = "none"


class Truth(msgspec.Struct, frozen=True, gc=False):
    """What the mock says of its own answer, in seconds since the epoch on its clock."""

    received_s: Seconds
    scheduled_first_s: Seconds
    first_sent_s: Seconds
    last_sent_s: Seconds
    engine: int
    slowdown: float = 1.0
    scheduled_last_s: Seconds | None = None
    lag_alarm: bool = False
    """Whether its tokens were written late when this answer ended."""

    @property
    def ttft_s(self) -> Seconds:
        """The time to first token that a perfect client would read."""
        return self.first_sent_s - self.received_s

    @property
    def lag_s(self) -> Seconds:
        """How late the mock wrote the first token, against its own schedule."""
        return self.first_sent_s - self.scheduled_first_s


class RequestRecord(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False
):
    """A request with all its stamps and counts.

    `sent_s` is the instant just before the first byte was handed to the kernel;
    `first_s` and `last_s` are when the first and last content events were read; `end_s`
    is when the outcome was known. `icl` holds the gaps between content events as
    `LogHistogram` pairs.
    """

    id: str
    scenario: str
    intended_s: Seconds
    sent_s: Seconds
    end_s: Seconds
    outcome: Outcome
    connect_s: Seconds = 0.0
    reconnects: int = 0
    """How often it was sent again because a kept connection turned out to be dead."""
    first_s: Seconds | None = None
    last_s: Seconds | None = None
    first_output_s: Seconds | None = None
    """The first content event that was not reasoning: text, or a tool call."""
    first_tool_s: Seconds | None = None
    """The first content event that was of a tool call."""
    recv_lag_s: Seconds | None = None
    """How long the first token lay in the client's kernel before it was read: the part
    of TTFT that is the client's own. None where the kernel does not say."""
    worst_recv_lag_s: Seconds | None = None
    """The longest of any read of the answer that the kernel told of."""
    status: int | None = None
    error: str | None = None
    error_kind: str | None = None
    """What the server calls an error that it told of inside a stream."""
    asked_input_tokens: Tokens = 0
    asked_output_tokens: Tokens = 0
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    first_event_tokens: Tokens = 0
    events: int = 0
    tokens_source: TokensSource = TokensSource.NONE
    finish_reason: str | None = None
    warmup: bool = False
    tenant: str = "default"
    stage: str = "generate"
    """The step of the scenario this request is: a plain chat has only this one."""
    worker: int = 0
    host: int = 0
    """Whom it was sent to: an index into the plan's hosts."""
    icl: tuple[tuple[int, int], ...] = ()
    truth: Truth | None = None
    trace_id: str | None = None
    """Of the distributed trace, in hex, if it was sampled."""
    conversation: str = ""
    """What it was a part of; empty for a request that stood alone."""
    turn: int = 0
    slice: str = ""
    """What its prompt was told apart by in the file that it came from."""
    cached_tokens: Tokens = 0
    """Prompt tokens that the server had in its prefix cache, as it says."""
    reasoning_tokens: Tokens = 0
    """Output tokens that were reasoning, as the server says."""
    beside: bool = False
    """Whether a pipeline asked it beside the request that was due, which its time is a
    stage of; latencies and rates of answers leave it out."""
    stages: tuple[tuple[str, Seconds], ...] = ()
    """What its time went into, in order, where a flow did more than to send it."""
    retries: int = 0
    """How often it was sent again because of what the server answered: 429, an expired
    key, a field it does not know. Its stamps begin with the first attempt."""
    retry_after_s: Seconds | None = None
    """How long the server last asked to be left alone."""
    sent_bytes: int = 0
    """On the wire, over all attempts: heads, framing and TLS's records included; its
    handshakes and the network's own headers are not."""
    received_bytes: int = 0
    """A pipeline's stages in order, each beginning where the one before ended; they add
    up to `e2e_s`. `sent_s` is then when the first one began."""
    hits: int | None = None
    """Passages that its search brought, if it searched."""
    recall: float | None = None
    """Share of a labelled question's documents among them."""

    @property
    def ok(self) -> bool:
        """Whether the answer came back whole."""
        return self.outcome is Outcome.OK

    @property
    def send_lag_s(self) -> Seconds:
        """How late it was sent: the client's own fault, or the in-flight cap's."""
        return self.sent_s - self.intended_s

    @property
    def ttft_s(self) -> Seconds | None:
        """First content event, from the first byte sent."""
        return None if self.first_s is None else self.first_s - self.sent_s

    @property
    def asked_s(self) -> Seconds:
        """When the answer was asked for: a pipeline has stages before that."""
        before = 0.0
        for stage, seconds in self.stages:
            if stage == GENERATE:
                return self.sent_s + before
            before += seconds
        return self.sent_s

    @property
    def generation_ttft_s(self) -> Seconds | None:
        """First content event of a pipeline, from when its answer was asked for."""
        if self.first_s is None or not self.stages:
            return None
        return self.first_s - self.asked_s

    @property
    def ttft_intended_s(self) -> Seconds | None:
        """First content event, from the intended time."""
        return None if self.first_s is None else self.first_s - self.intended_s

    @property
    def ttfo_s(self) -> Seconds | None:
        """First output event, reasoning skipped, from the first byte sent."""
        return (
            None if self.first_output_s is None else self.first_output_s - self.sent_s
        )

    @property
    def reasoned(self) -> bool:
        """Whether reasoning was streamed before the output."""
        first, output = self.first_s, self.first_output_s
        return first is not None and output is not None and output > first

    @property
    def usage_differs(self) -> bool:
        """Whether the server counted another number of tokens than events came.

        So it is where several tokens share an event, or some are not shown at all.
        """
        counted = self.tokens_source is TokensSource.USAGE and self.events > 0
        return counted and self.events != self.output_tokens

    @property
    def tpot_s(self) -> Seconds | None:
        """`(t_last - t_first) / (n_out - first_event_tokens)`; None for one event."""
        rest = self.output_tokens - self.first_event_tokens
        if self.first_s is None or self.last_s is None or rest <= 0:
            return None
        return (self.last_s - self.first_s) / rest

    @property
    def e2e_s(self) -> Seconds:
        """End of the answer, from the first byte sent."""
        return self.end_s - self.sent_s

    @property
    def response_time_s(self) -> Seconds:
        """End of the answer, from the intended time: the wait a user would have had."""
        return self.end_s - self.intended_s

    @property
    def ttft_error_s(self) -> Seconds | None:
        """The client's TTFT minus the server's truth, where the server tells it.

        The truth is of one attempt; after a retry there is nothing to compare.
        """
        if self.truth is None or self.ttft_s is None or self.retries:
            return None
        assert self.first_s is not None
        return self.first_s - self.asked_s - self.truth.ttft_s

    @property
    def tpot_error(self) -> float | None:
        """The client's TPOT against the server's truth, as a share of it."""
        first, last = self.first_s, self.last_s
        if self.truth is None or first is None or last is None or not self.tpot_s:
            return None
        given = self.truth.last_sent_s - self.truth.first_sent_s
        return (last - first) / given - 1.0 if given > 0 else None

    def but(self, **changes: Any) -> Self:
        """Return it with other values of these fields."""
        return msgspec.structs.replace(self, **changes)

    def rounded(self) -> Self:
        """Return it with its times to the microsecond, as rows are kept on disk."""
        changed = {
            name: kept
            for name in self.__struct_fields__
            if isinstance(value := getattr(self, name), float)
            and (kept := round(value, STAMP_DIGITS)) != value
        }
        stages = tuple((name, round(took, STAMP_DIGITS)) for name, took in self.stages)
        return self.but(**changed, stages=stages)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values as they are; what was not set is left out."""
        row: dict[str, Any] = msgspec.to_builtins(self)
        return row

    def to_line(self) -> str:
        """Return the row, as it is, as a line of `requests.jsonl`."""
        return _encode(self).decode() + "\n"

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises `ValueError` naming what is wrong."""
        return msgspec.convert(row, cls)

    @staticmethod
    def from_line(line: bytes | str) -> "RequestRecord":
        """Read what `to_line` wrote; raises `ValueError` naming what is wrong."""
        return _decode(line)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(RequestRecord).decode
