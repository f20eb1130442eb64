"""From what became of a request to its row."""

from dataclasses import dataclass
from typing import Any

from loadstone.traffic.record import STAMP_DIGITS, Outcome, RequestRecord
from loadstone.traffic.request import Request
from loadstone.units import Seconds
from loadstone.wire.reply import ChatReply

from .client import Exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Makes the rows of one process; instants count from `t0` on the client's clock."""

    t0: Seconds
    warmup_s: Seconds = 0.0
    rank: int = 0

    def of(self, request: Request, exchange: Exchange, host: int = 0) -> RequestRecord:
        """Return the row of a request that came to an end by itself."""
        reply = exchange.reply
        row = self._asked(request, exchange.sent, exchange.end)
        row["outcome"] = outcome_of(exchange)
        row["host"] = host
        row["recv_lag_s"] = _rounded(exchange.recv_lag_s)
        row["worst_recv_lag_s"] = _rounded(exchange.worst_recv_lag_s)
        row["reconnects"] = exchange.reconnects
        row["retries"] = exchange.retries
        row["retry_after_s"] = _rounded(exchange.retry_after_s)
        row["sent_bytes"] = exchange.bytes_out
        row["received_bytes"] = exchange.bytes_in
        row["status"] = exchange.status
        row["error"] = exchange.error
        if reply is not None and reply.error is not None:
            row["error_kind"] = reply.error.kind or None
        if exchange.connect_s:
            row["connect_s"] = round(exchange.connect_s, STAMP_DIGITS)
        # An answer whose tokens are all hidden has a count and no first event.
        if reply is not None and reply.answered:
            self._add_reply(row, request, reply)
        return RequestRecord(**row)

    def abandoned(  # noqa: PLR0917 - the row's own, in their order
        self,
        request: Request,
        began: Seconds,
        end: Seconds,
        outcome: Outcome,
        error: str | None = None,
        host: int = 0,
    ) -> RequestRecord:
        """Return the row of a request that we ended, or failed to send."""
        return RequestRecord(
            **self._asked(request, began, end),
            outcome=outcome,
            error=error or outcome.value,
            host=host,
        )

    def _asked(self, request: Request, sent: Seconds, end: Seconds) -> dict[str, Any]:
        """Return what a row has of its request, however it ended."""
        return {
            "id": request.id,
            "scenario": request.scenario,
            "tenant": request.tenant,
            "stage": request.stage,
            "intended_s": round(request.intended_s, STAMP_DIGITS),
            "sent_s": self._stamp(sent),
            "end_s": self._stamp(end),
            "asked_input_tokens": request.input_tokens,
            "asked_output_tokens": request.output_tokens,
            "warmup": request.intended_s < self.warmup_s,
            "worker": self.rank,
            "conversation": request.conversation,
            "turn": request.turn,
            "slice": request.slice,
            "beside": request.extra > 0,
        }

    def _add_reply(
        self, row: dict[str, Any], request: Request, reply: ChatReply
    ) -> None:
        usage = reply.usage
        row["first_s"] = self._since_t0(reply.first)
        row["last_s"] = self._since_t0(reply.last)
        row["first_output_s"] = self._since_t0(reply.first_answer)
        row["first_tool_s"] = self._since_t0(reply.first_tool)
        row["input_tokens"] = usage.input_tokens if usage else request.input_tokens
        row["output_tokens"] = reply.output_tokens
        row["first_event_tokens"] = reply.first_event_tokens
        row["events"] = reply.events
        row["tokens_source"] = reply.tokens_source
        row["finish_reason"] = reply.finish_reason
        row["icl"] = reply.icl
        row["truth"] = reply.truth
        if usage:
            row["cached_tokens"] = usage.cached_tokens
            row["reasoning_tokens"] = usage.reasoning_tokens

    def _since_t0(self, instant: Seconds | None) -> Seconds | None:
        return None if instant is None else self._stamp(instant)

    def _stamp(self, instant: Seconds) -> Seconds:
        """Return it since t0, as the row's line has it: totals and rows then agree."""
        return round(instant - self.t0, STAMP_DIGITS)


def _rounded(seconds: Seconds | None) -> Seconds | None:
    return None if seconds is None else round(seconds, STAMP_DIGITS)


def outcome_of(exchange: Exchange) -> Outcome:
    """Say how an exchange ended: throttled apart from failed."""
    if exchange.status == 429:
        return Outcome.THROTTLED
    return Outcome.OK if exchange.error is None else Outcome.FAILED
