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
        return self._base(
            request,
            exchange.sent,
            exchange.end,
            outcome_of(exchange),
            host=host,
            recv_lag_s=_rounded(exchange.recv_lag_s),
            worst_recv_lag_s=_rounded(exchange.worst_recv_lag_s),
            reconnects=exchange.reconnects,
            retries=exchange.retries,
            retry_after_s=_rounded(exchange.retry_after_s),
            sent_bytes=exchange.bytes_out,
            received_bytes=exchange.bytes_in,
            status=exchange.status,
            error=exchange.error,
            error_kind=(reply.error.kind or None) if reply and reply.error else None,
            **_connecting(exchange.connect_s),
            # An answer whose tokens are all hidden has a count and no first event.
            **(self._of_reply(request, reply) if reply and reply.answered else {}),
        )

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
        return self._base(
            request, began, end, outcome, error=error or outcome.value, host=host
        )

    def _base(
        self,
        request: Request,
        sent: Seconds,
        end: Seconds,
        outcome: Outcome,
        **more: Any,
    ) -> RequestRecord:
        return RequestRecord(
            id=request.id,
            scenario=request.scenario,
            tenant=request.tenant,
            stage=request.stage,
            intended_s=round(request.intended_s, STAMP_DIGITS),
            sent_s=self._stamp(sent),
            end_s=self._stamp(end),
            outcome=outcome,
            asked_input_tokens=request.input_tokens,
            asked_output_tokens=request.output_tokens,
            warmup=request.intended_s < self.warmup_s,
            worker=self.rank,
            conversation=request.conversation,
            turn=request.turn,
            slice=request.slice,
            beside=request.extra > 0,
            **more,
        )

    def _of_reply(self, request: Request, reply: ChatReply) -> dict[str, Any]:
        usage = reply.usage
        return {
            "first_s": self._since_t0(reply.first),
            "last_s": self._since_t0(reply.last),
            "first_output_s": self._since_t0(reply.first_answer),
            "first_tool_s": self._since_t0(reply.first_tool),
            "input_tokens": usage.input_tokens if usage else request.input_tokens,
            "output_tokens": reply.output_tokens,
            "first_event_tokens": reply.first_event_tokens,
            "events": reply.events,
            "tokens_source": reply.tokens_source,
            "finish_reason": reply.finish_reason,
            "icl": reply.icl,
            "truth": reply.truth,
            "cached_tokens": usage.cached_tokens if usage else 0,
            "reasoning_tokens": usage.reasoning_tokens if usage else 0,
        }

    def _since_t0(self, instant: Seconds | None) -> Seconds | None:
        return None if instant is None else self._stamp(instant)

    def _stamp(self, instant: Seconds) -> Seconds:
        """Return it since t0, as the row's line has it: totals and rows then agree."""
        return round(instant - self.t0, STAMP_DIGITS)


def _connecting(took: Seconds) -> dict[str, Seconds]:
    """Return how long it took to connect, for those that did."""
    return {"connect_s": round(took, STAMP_DIGITS)} if took else {}


def _rounded(seconds: Seconds | None) -> Seconds | None:
    return None if seconds is None else round(seconds, STAMP_DIGITS)


def outcome_of(exchange: Exchange) -> Outcome:
    """Say how an exchange ended: throttled apart from failed."""
    if exchange.status == 429:
        return Outcome.THROTTLED
    return Outcome.OK if exchange.error is None else Outcome.FAILED
