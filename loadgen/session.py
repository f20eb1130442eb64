"""One process's part of a run: takes requests when due, sends them, keeps the rows.

A session knows nothing of Locust. Whoever drives it calls `serve` from as many
greenlets as there may be requests in flight (open loop) or users (closed loop), and
`stop` at the end.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from random import Random
from types import MappingProxyType
from typing import Final

import gevent
from gevent.event import Event
from greenlet import greenlet

from loadstone.clock import Clock
from loadstone.traffic.flow import Flows
from loadstone.traffic.journey import Journey, Journeys, journeys_of
from loadstone.traffic.plan import Plan
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.request import Request
from loadstone.traffic.share import Share
from loadstone.units import Seconds

from .client import StreamingClient
from .results import RowWriter
from .rows import Rows
from .scheduler import Dispatcher
from .service import Abandon, Clients, Service
from .stats import ClientStats
from .tracing import Traces
from .watch import Watch

WARM_CONNECTIONS: Final = 64
"""Most connections opened before the start; the rest open when they are needed."""


class MonotonicClock:
    """The process's one clock for stamps and deadlines: CLOCK_MONOTONIC."""

    def now(self) -> Seconds:
        """Seconds since some instant; the client stamps its reads on the same clock."""
        return time.monotonic()


_NONE: Final[Mapping[str, Sequence[StreamingClient]]] = MappingProxyType({})
_NO_FLOWS: Final[Flows] = MappingProxyType({})


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
        drawn: Iterator[Journey],
        clients: Sequence[StreamingClient],
        rows: RowWriter,
        stats: ClientStats,
        traces: Traces,
        t0: Seconds,
        on_row: Callable[[RequestRecord], None],
        most: int | None = None,
        clock: Clock | None = None,
        by_tenant: Mapping[str, Sequence[StreamingClient]] = _NONE,
        embeddings: StreamingClient | None = None,
        flows: Flows = _NO_FLOWS,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        """`drawn` gives a closed loop its journeys; `by_tenant` sends for tenants.

        `embeddings` sends what is to be embedded, where that goes to another endpoint.
        """
        self.plan = plan
        self.share = share
        self.stats = stats
        self.t0 = t0
        self.rows = rows
        self.finished = Event()
        """Set when every request of this share has ended, by itself or by the drain."""
        self._drawn = drawn
        self._clients = Clients(clients, by_tenant, embeddings)
        self._on_stop = on_stop
        self._on_row = on_row
        self._think = Random(f"{plan.seed}/think/{share.rank}")
        self._clock = clock or MonotonicClock()
        self._watch = Watch(stats, rows.stops, since=t0, places=plan.users)
        stats.recv_lags = clients[0].lags
        self._open = plan.loop != "closed"
        self._journeys = Journeys(plan.duration_s)
        arrivals = (
            request
            for journey in journeys_of(share.of(requests))
            for request in self._journeys.begin(journey)
        )
        self._dispatcher = Dispatcher(
            arrivals, clock=self._clock, t0=t0, on_due=self._count_due
        )
        self._service = Service(
            plan, clients=self._clients, flows=flows, stats=stats, traces=traces,
            rows=Rows(t0=t0, warmup_s=plan.warmup_s, rank=share.rank),
            note=self._note, clock=self._clock,
        )  # fmt: skip
        self._active: dict[greenlet, None] = {}
        self._over = False
        self._left = most
        """Requests that may still be sent; None for no limit."""
        self._arrivals_over = Event()
        self._closing: gevent.Greenlet[..., None] | None = None

    def __repr__(self) -> str:
        return f"<Session {self.share.rank}/{self.share.workers} {self.stats!r}>"

    def start(self) -> None:
        """Open connections, begin the schedule and arrange for the end."""
        most, clients = min(WARM_CONNECTIONS, self.plan.users), self._clients.all()
        for client in clients:
            client.warm(ceil(most / len(clients)))
            if (credential := client.endpoint.credential) is not None:
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
        for client in self._clients.all():
            client.close()
        self._on_stop()
        self.rows.close()

    def serve(self, stopping: Callable[[], bool]) -> None:
        """Serve one request after another until `stopping()` or the run's end."""
        one = self._serve_due if self._open else self._serve_user
        try:
            while not (self._closed() or stopping()) and one():
                pass
        except Abandon:
            # What it was thrown for ended: in its row, or by itself in the meantime.
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
        dispatcher = self._dispatcher
        waiting = (
            self._open
            and not self._closed()
            and (
                dispatcher.queued
                or dispatcher.awaited
                or not dispatcher.exhausted.is_set()
            )
        )
        return bool(self._active or waiting)

    def _end(self, outcome: Outcome) -> None:
        self._over = True
        self._dispatcher.stop()
        for serving in list(self._active):
            gevent.kill(serving, Abandon(outcome))
        while self._active:
            gevent.sleep(0.001)
        if self._open:
            for part in self.stats.slices.values():
                part.dropped = part.scheduled - part.sent

    # ---------------------------------------------------------------- requests

    def _count_due(self, request: Request) -> None:
        part = self.stats.slice_of(request.scenario, request.tenant, request.stage)
        part.scheduled += 1

    def _note(self, row: RequestRecord) -> None:
        self.rows.write(row)
        self._on_row(row)

    def _serve_due(self) -> bool:
        """Serve the next due request of an open loop; False once there is an end."""
        request = self._dispatcher.take()
        # The end may have come while it was waited for: then it was never sent.
        if self._closed() or not self._may_send():
            return False
        for following in self._serve_one(request):
            if not self._closed():
                self._dispatcher.add(following)
        return True

    def _serve_user(self) -> bool:
        """Let a user of a closed loop go through one journey, and think."""
        now = self._clock.now()
        if now < self.t0:
            gevent.sleep(self.t0 - now)
            now = self._clock.now()
        due = now - self.t0
        if due >= self.plan.duration_s:
            return False
        journey = tuple(r.but(intended_s=due) for r in next(self._drawn))
        together = self._journeys.begin(journey)
        while together:
            # For no time, too: one whose requests fail at once would keep others out.
            gevent.sleep(max(0.0, self.t0 + together[0].intended_s - self._clock.now()))
            if self._closed():
                return False
            # What a budget leaves may be a part of what is asked together.
            together = tuple(each for each in together if self._may_send())
            if not together:
                return False
            beside = [gevent.spawn(self._beside, each) for each in together[1:]]
            together = self._serve_one(together[0])
            for each in beside:
                together = each.get() or together
        if self.plan.think_s > 0:
            gevent.sleep(self._think.expovariate(1 / self.plan.think_s))
        return True

    def _beside(self, request: Request) -> Journey:
        try:
            return self._serve_one(request)
        except Abandon:
            return ()

    def _serve_one(self, request: Request) -> Journey:
        """Carry a request out, and return what it brings about."""
        me = gevent.getcurrent()
        self._active[me] = None
        try:
            self._service.serve(request)
            return self._journeys.ended(request, self._clock.now() - self.t0)
        finally:
            self._active.pop(me, None)
