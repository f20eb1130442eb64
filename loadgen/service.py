"""Serves a due request: follows its flow, sends what it asks, notes the rows.

Whoever ends a run ends what is under way by throwing `Abandon` into its greenlet; a
request that was sent ends in a row all the same.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import NamedTuple

import gevent

from loadstone.clock import Clock
from loadstone.errors import LoadstoneError
from loadstone.traffic.flow import Answer, Ask, Course, Flows, Local
from loadstone.traffic.plan import Plan
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.request import Request
from loadstone.units import Seconds
from loadstone.vocabulary import TRACEPARENT_HEADER, TRUTH_HEADER
from loadstone.wire.api import APIS, Dialect

from .asking import Asker, Patience
from .client import Exchange, StreamingClient
from .question import api_of, question_of
from .rows import Rows
from .stats import ClientStats, SliceStats
from .tracing import Traces

_log = logging.getLogger("loadstone")


class Abandon(BaseException):
    """Thrown into a greenlet whose request must end now, as `outcome`."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Clients(NamedTuple):
    """Who sends: a client for each host, and as many for each tenant with a key."""

    own: Sequence[StreamingClient]
    by_tenant: Mapping[str, Sequence[StreamingClient]]
    embeddings: StreamingClient | None = None
    """Who embeds what flows ask for, where that is another endpoint."""

    def host_of(self, request: Request) -> int:
        """Return which host gets it: arrivals go to them in turn, by their number."""
        return request.index % len(self.own)

    def of(self, request: Request) -> StreamingClient:
        """Return who sends it."""
        if self.embeddings is not None and request.kind == "embed":
            return self.embeddings
        clients = self.by_tenant.get(request.tenant, self.own)
        return clients[self.host_of(request)]

    def all(self) -> list[StreamingClient]:
        """Return all of them."""
        embeddings = () if self.embeddings is None else (self.embeddings,)
        tenants = (each for some in self.by_tenant.values() for each in some)
        return [*self.own, *tenants, *embeddings]


class _Asked(NamedTuple):
    row: RequestRecord
    exchange: Exchange | None
    killed: BaseException | None = None


class Service:
    """Serves the due requests of a session and notes their rows."""

    def __init__(
        self,
        plan: Plan,
        *,
        clients: Clients,
        flows: Flows,
        stats: ClientStats,
        traces: Traces,
        rows: Rows,
        note: Callable[[RequestRecord], None],
        clock: Clock,
    ) -> None:
        """`note` is given each row once, when it is final."""
        self._plan = plan
        self._clients = clients
        self._flows = flows
        self._stats = stats
        self._traces = traces
        self._rows = rows
        self._note = note
        self._clock = clock
        self._askers: dict[tuple[int, str], Asker] = {}
        """By client and API."""

    def __repr__(self) -> str:
        return f"<Service {self._clients.own!r}>"

    def serve(self, request: Request) -> None:
        """Do all that a due request is about; raises what its greenlet was ended by."""
        course = Course(request, self._flows, began := self._now())
        part = self._slice_of(request)
        part.in_flight += 1
        step, row = None, None
        try:
            step = course.go_on()
            while step is not None:
                if isinstance(step, Local):
                    came = _work(step)
                    course.passed(step, self._now())
                else:
                    asked = self._ask(self._due_now(step))
                    course.passed(step, asked.row.end_s)
                    if step.beside:
                        self._settle(asked.row)
                    else:
                        row = asked.row
                    came = _answer(asked)
                step = course.go_on(came)
        except BaseException as error:
            if isinstance(step, Local):
                course.passed(step, self._now())
            # One that was asked and has failed knows better why.
            if row is None or row.ok:
                row = self._ended(request, row, began, error)
            if not isinstance(error, Exception):
                raise
        finally:
            course.close()
            part.in_flight -= 1
            if row is not None:
                whole = course.whole(row)
                self._settle(row if whole is row else whole.rounded())

    def _now(self) -> Seconds:
        return self._clock.now() - self._rows.t0

    def _due_now(self, step: Ask) -> Request:
        """Give what a flow asks beside the request that is due its time: now."""
        if not step.beside:
            return step.request
        now = step.request.but(intended_s=self._now())
        self._slice_of(now).scheduled += 1
        return now

    def _settle(self, row: RequestRecord) -> None:
        self._stats.add(row)
        self._note(row)

    def _slice_of(self, request: Request) -> SliceStats:
        return self._stats.slice_of(request.scenario, request.tenant, request.stage)

    def _asker_of(self, request: Request) -> Asker:
        plan, client = self._plan, self._clients.of(request)
        key = id(client), api_of(request, plan)
        asker = self._askers.get(key)
        if asker is None:
            asker = self._askers[key] = Asker(
                client,
                APIS[key[1]],
                patience=Patience(plan.on_429, plan.max_retries),
                dialect=Dialect(plan.refused),
                rng=Random(f"{plan.seed}/retries/{self._rows.rank}"),
            )
        return asker

    def _ask(self, request: Request) -> _Asked:
        beside = self._slice_of(request) if request.extra else None
        if beside is not None:
            beside.in_flight += 1
        self._stats.reserve(request.input_tokens, request.output_tokens)
        trace = self._traces.of(request.number)
        began = self._now()
        asked: _Asked
        try:
            asker = self._asker_of(request)
            exchange = asker.ask(
                question_of(request, self._plan, asker.api),
                {TRUTH_HEADER: "1", TRACEPARENT_HEADER: str(trace)},
            )
            row = self._rows.of(request, exchange, self._clients.host_of(request))
            asked = _Asked(row, exchange)
        except BaseException as error:  # noqa: BLE001 - whoever served it hears of it
            killed = None if isinstance(error, Exception) else error
            asked = _Asked(self._ended(request, None, began, error), None, killed)
        finally:
            if beside is not None:
                beside.in_flight -= 1
            self._stats.reserve(-request.input_tokens, -request.output_tokens)
        if trace.sampled:
            row = asked.row.but(trace_id=trace.trace_hex)
            asked = asked._replace(row=row)
        return asked

    def _ended(
        self,
        request: Request,
        row: RequestRecord | None,
        began: Seconds,
        error: BaseException,
    ) -> RequestRecord:
        """Return the row of a request that ended by an error on this side."""
        match error:
            case Abandon():
                outcome, code = error.outcome, error.outcome.value
            case gevent.GreenletExit():
                outcome, code = Outcome.CANCELLED, Outcome.CANCELLED.value
            case LoadstoneError():
                outcome, code = Outcome.FAILED, error.code
            case _:
                # Ours, not the server's: it is logged, and the request still ends.
                _log.error(
                    "request %s ended by an error of the load generator", request.id,
                    exc_info=error,
                )  # fmt: skip
                outcome, code = Outcome.FAILED, "internal"
        if row is not None:
            return row.but(outcome=outcome, error=code)
        return self._rows.abandoned(
            request, began + self._rows.t0, self._clock.now(), outcome, code,
            self._clients.host_of(request),
        )  # fmt: skip


def _work(step: Local) -> object:
    if step.blocking:
        return gevent.get_hub().threadpool.apply(step.work)
    return step.work()


def _answer(asked: _Asked) -> Answer:
    """Return what a flow is told; raises what the request was ended by."""
    if asked.killed is not None:
        raise asked.killed
    row, exchange = asked.row, asked.exchange
    if exchange is None:
        return Answer(ok=False)
    reply = exchange.reply
    return Answer(
        ok=row.ok,
        # Joined only if it is wanted.
        read=str if reply is None else lambda: reply.text,
        output_tokens=row.output_tokens,
        body=exchange.body,
    )
