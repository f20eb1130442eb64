"""One process's part of a run: takes requests when due, sends them, keeps the rows.

A session knows nothing of Locust. Whoever drives it calls `serve` from as many
greenlets as there may be requests in flight (open loop) or users (closed loop), and
`stop` at the end.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from random import Random
from typing import Any, Final

import gevent
from gevent.event import Event
from greenlet import greenlet

from loadstone.clock import Clock
from loadstone.traffic.plan import Plan
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.request import Request
from loadstone.units import Seconds, Tokens
from loadstone.vocabulary import TRACEPARENT_HEADER, TRUTH_HEADER
from loadstone.wire.api import APIS, Dialect, Question
from loadstone.wire.reply import ChatReply
from loadstone.wire.tokens import PER_MESSAGE, prompt_of

from .asking import Asker, Patience
from .client import Exchange, StreamingClient
from .results import RowWriter
from .scheduler import Dispatcher
from .stats import ClientStats, SliceStats
from .tracing import Traces
from .watch import Watch

_log = logging.getLogger("loadstone")

WARM_CONNECTIONS: Final = 64
"""Most connections opened before the start; the rest open when they are needed."""


class MonotonicClock:
    """The process's one clock for stamps and deadlines: CLOCK_MONOTONIC."""

    def now(self) -> Seconds:
        """Seconds since some instant; the client stamps its reads on the same clock."""
        return time.monotonic()


class _Abandon(BaseException):
    """Thrown into a greenlet whose request must end now, as `outcome`."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Share:
    """One process's part of the plan: requests of index `rank` modulo `workers`."""

    rank: int = 0
    workers: int = 1

    def of(self, requests: list[Request]) -> list[Request]:
        """Return this share; over all ranks they are the whole, without overlap."""
        return requests[self.rank :: self.workers]


class Session:
    """A run's share in this process, from t0 to the last answer or the drain's end.

    There is a client for each of the plan's hosts, which get the requests in turn, by
    their index; all clients share their lags.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        share: Share,
        requests: list[Request],
        lengths: Iterator[tuple[Tokens, Tokens]],
        clients: Sequence[StreamingClient],
        rows: RowWriter,
        stats: ClientStats,
        traces: Traces,
        t0: Seconds,
        on_row: Callable[[RequestRecord], None],
        most: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.plan = plan
        self.share = share
        self.stats = stats
        self.t0 = t0
        self.rows = rows
        self.finished = Event()
        """Set when every request of this share has ended, by itself or by the drain."""
        self._lengths = lengths
        self._clients = clients
        self._api = APIS[plan.api]
        self._askers = [
            Asker(
                client,
                self._api,
                patience=Patience(plan.on_429, plan.max_retries),
                dialect=Dialect(plan.refused),
                rng=Random(f"{plan.seed}/retries/{share.rank}"),
            )
            for client in clients
        ]
        self._fit = plan.fit
        self._on_row = on_row
        self._traces = traces
        self._think = Random(f"{plan.seed}/think/{share.rank}")
        self._clock = clock or MonotonicClock()
        self._watch = Watch(stats, rows.stops)
        stats.recv_lags = clients[0].lags
        self._open = plan.loop != "closed"
        self._dispatcher = Dispatcher(
            share.of(requests), clock=self._clock, t0=t0, on_due=self._count_due
        )
        self._active: dict[greenlet, None] = {}
        self._asked = 0
        self._over = False
        self._left = most
        """Requests that may still be sent; None for no limit."""
        self._arrivals_over = Event()
        self._closing: gevent.Greenlet[..., None] | None = None

    def __repr__(self) -> str:
        return f"<Session {self.share.rank}/{self.share.workers} {self.stats!r}>"

    def start(self) -> None:
        """Open connections, begin the schedule and arrange for the end."""
        most = min(WARM_CONNECTIONS, self.plan.users)
        for client in self._clients:
            client.warm(ceil(most / len(self._clients)))
        # Several hosts are shown one key.
        if (credential := self._clients[0].endpoint.credential) is not None:
            credential.keep_fresh()
        self._watch.start()
        if self._open:
            self._dispatcher.start()
        self._closing = gevent.spawn(self._close)

    def stop(self) -> None:
        """End now: what is in flight is cancelled, what is due and unsent dropped."""
        self._end(Outcome.CANCELLED)
        if self._closing is not None:
            self._closing.kill()
        self._watch.stop()
        for client in self._clients:
            client.close()
        self.rows.close()

    def serve(self, stopping: Callable[[], bool]) -> None:
        """Serve one request after another until `stopping()` or the run's end."""
        try:
            while not (self._closed() or stopping()):
                request = self._dispatcher.take() if self._open else self._ask()
                # The end may have come while it was waited for: then it was never sent.
                if request is None or self._closed() or not self._may_send():
                    return
                self._run(request)
                if not self._open and self.plan.think_s > 0:
                    gevent.sleep(self._think.expovariate(1 / self.plan.think_s))
        except _Abandon:
            # The request it was thrown for ended by itself in the meantime.
            return

    # ---------------------------------------------------------------- the end

    def close_arrivals(self) -> None:
        """Begin no request more: what is in flight has the drain to end in."""
        self._dispatcher.stop()
        self._arrivals_over.set()

    def _closed(self) -> bool:
        return self._over or self._arrivals_over.is_set()

    def _may_send(self) -> bool:
        """Take one of the requests that a budget allows; False if none is left."""
        if self._left is None:
            return True
        if self._left == 0:
            self.close_arrivals()
            return False
        self._left -= 1
        if self._left == 0:
            self.close_arrivals()
        return True

    def _close(self) -> None:
        """Wait for the arrivals' end, then for the answers, for the drain at most."""
        end = self.t0 + self.plan.duration_s
        if self._arrivals_over.wait(max(0.0, end - self._clock.now())):
            end = self._clock.now()
        deadline = end + self.plan.drain_s
        while self._unfinished() and self._clock.now() < deadline:
            gevent.sleep(min(0.05, max(0.0, deadline - self._clock.now())))
        self._end(Outcome.INCOMPLETE)
        self.finished.set()

    def _unfinished(self) -> bool:
        waiting = (
            self._open
            and not self._closed()
            and (self._dispatcher.queued or not self._dispatcher.exhausted.is_set())
        )
        return bool(self._active or waiting)

    def _end(self, outcome: Outcome) -> None:
        self._over = True
        self._dispatcher.stop()
        for serving in list(self._active):
            gevent.kill(serving, _Abandon(outcome))
        while self._active:
            gevent.sleep(0.001)
        if self._open:
            for part in self.stats.slices.values():
                part.dropped = part.scheduled - part.sent

    # ---------------------------------------------------------------- one request

    def _slice_of(self, request: Request) -> SliceStats:
        return self.stats.slice_of(request.scenario, request.tenant, request.stage)

    def _host_of(self, request: Request) -> int:
        return request.index % len(self._clients)

    def _count_due(self, request: Request) -> None:
        self._slice_of(request).scheduled += 1

    def _ask(self) -> Request | None:
        """Return a closed loop's next request, due now; None once arrivals are over."""
        now = self._clock.now()
        if now < self.t0:
            gevent.sleep(self.t0 - now)
            now = self._clock.now()
        due = now - self.t0
        if due >= self.plan.duration_s:
            return None
        index = self.share.rank + self.share.workers * self._asked
        self._asked += 1
        n_in, n_out = next(self._lengths)
        return Request(index, due, n_in, n_out, self.plan.scenario)

    def _run(self, request: Request) -> None:
        me = gevent.getcurrent()
        self._active[me] = None
        part = self._slice_of(request)
        part.in_flight += 1
        self.stats.reserve(request.input_tokens, request.output_tokens)
        trace = self._traces.of(request.index)
        began = self._clock.now()
        killed: gevent.GreenletExit | None = None
        try:
            exchange = self._askers[self._host_of(request)].ask(
                self._question(request),
                {TRUTH_HEADER: "1", TRACEPARENT_HEADER: str(trace)},
            )
            row = self._row(request, exchange)
        except _Abandon as end:
            row = self._abandoned(request, began, end.outcome)
        except gevent.GreenletExit as end:
            killed = end
            row = self._abandoned(request, began, Outcome.CANCELLED)
        except Exception:  # noqa: BLE001 - ours, not the server's
            # It is logged, and the request still ends in an outcome.
            _log.exception(
                "request %s ended by an error of the load generator", request.id
            )
            row = self._abandoned(request, began, Outcome.FAILED, "internal")
        finally:
            part.in_flight -= 1
            self.stats.reserve(-request.input_tokens, -request.output_tokens)
            self._active.pop(me, None)
        if trace.sampled:
            row = replace(row, trace_id=trace.trace_hex)
        self.stats.add(row)
        self.rows.write(row)
        self._on_row(row)
        if killed is not None:
            raise killed

    def _question(self, request: Request) -> Question:
        tokens = self._fit.filler(request.input_tokens, self._api.template)
        content = prompt_of(tokens + PER_MESSAGE, request.index)
        return Question(
            model=self.plan.model,
            messages=({"role": "user", "content": content},),
            max_tokens=request.output_tokens,
            ignore_eos=self.plan.ignore_eos,
            continuous_usage=self.plan.continuous_usage,
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
            intended_s=request.intended_s,
            sent_s=sent - self.t0,
            end_s=end - self.t0,
            outcome=outcome,
            asked_input_tokens=request.input_tokens,
            asked_output_tokens=request.output_tokens,
            warmup=request.intended_s < self.plan.warmup_s,
            worker=self.share.rank,
            host=self._host_of(request),
            **more,
        )

    def _abandoned(
        self,
        request: Request,
        began: Seconds,
        outcome: Outcome,
        error: str | None = None,
    ) -> RequestRecord:
        said = error or outcome.value
        return self._base(request, began, self._clock.now(), outcome, error=said)

    def _row(self, request: Request, exchange: Exchange) -> RequestRecord:
        reply = exchange.reply
        return self._base(
            request,
            exchange.sent,
            exchange.end,
            outcome_of(exchange),
            connect_s=exchange.connect_s,
            recv_lag_s=exchange.recv_lag_s,
            worst_recv_lag_s=exchange.worst_recv_lag_s,
            reconnects=exchange.reconnects,
            retries=exchange.retries,
            retry_after_s=exchange.retry_after_s,
            sent_bytes=exchange.bytes_out,
            received_bytes=exchange.bytes_in,
            status=exchange.status,
            error=exchange.error,
            error_kind=(reply.error.kind or None) if reply and reply.error else None,
            # An answer whose tokens are all hidden has a count and no first event.
            **(self._of_reply(request, reply) if reply and reply.answered else {}),
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
        }

    def _since_t0(self, instant: Seconds | None) -> Seconds | None:
        return None if instant is None else instant - self.t0


def outcome_of(exchange: Exchange) -> Outcome:
    """Say how an exchange ended: throttled apart from failed."""
    if exchange.status == 429:
        return Outcome.THROTTLED
    return Outcome.OK if exchange.error is None else Outcome.FAILED
