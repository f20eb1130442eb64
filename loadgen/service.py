"""Serves a due request: follows its flow, sends what it asks, notes the rows.

Whoever ends a run ends what is under way by throwing `Abandon` into its greenlet; a
request that was sent ends in a row all the same.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any, NamedTuple

import gevent

from loadstone.clock import Clock
from loadstone.traffic.flow import Answer, Ask, Course, Flows, Local
from loadstone.traffic.plan import Plan
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.request import Request
from loadstone.units import Seconds
from loadstone.vocabulary import TRACEPARENT_HEADER, TRUTH_HEADER
from loadstone.wire.api import APIS, Dialect

from .asking import Asker, Patience
from .client import StreamingClient
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

    def host_of(self, request: Request) -> int:
        """Return which host gets it: arrivals go to them in turn, by their number."""
        return request.index % len(self.own)

    def of(self, request: Request) -> StreamingClient:
        """Return who sends it."""
        clients = self.by_tenant.get(request.tenant, self.own)
        return clients[self.host_of(request)]

    def all(self) -> list[StreamingClient]:
        """Return all of them."""
        return [*self.own, *(each for some in self.by_tenant.values() for each in some)]


class _Asked(NamedTuple):
    row: RequestRecord
    text: Callable[[], str]
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
        course = Course(request, self._flows)
        asked: _Asked | None = None
        before: tuple[tuple[str, Seconds], ...] = ()
        try:
            step = course.go_on()
            while step is not None:
                if isinstance(step, Ask):
                    if asked is not None:
                        self._settle(asked.row, before)
                    before, asked = course.take_stages(), None
                    asked = self._ask(self._due_now(step.request))
                    came: Any = _answer(asked)
                else:
                    came = self._work(step, course)
                step = course.go_on(came)
        except Exception:  # noqa: BLE001 - the flow's own fault
            # It is logged, and the request still ends in an outcome.
            _log.exception("request %s: its flow failed", request.id)
            asked = asked or self._failed(request)
        finally:
            course.close()
            if asked is not None:
                self._settle(asked.row, before, course.take_stages())

    def _due_now(self, request: Request) -> Request:
        """Give what a flow asks beside the planned request its time: now."""
        if not request.extra:
            return request
        now = replace(request, intended_s=self._clock.now() - self._rows.t0)
        self._slice_of(now).scheduled += 1
        return now

    def _work(self, step: Local, course: Course) -> Any:
        began = self._clock.now()
        if step.blocking:
            came = gevent.get_hub().threadpool.apply(step.work)
        else:
            came = step.work()
        course.stages.append((step.stage, self._clock.now() - began))
        return came

    def _settle(
        self,
        row: RequestRecord,
        before: tuple[tuple[str, Seconds], ...],
        after: tuple[tuple[str, Seconds], ...] = (),
    ) -> None:
        if before or after:
            row = replace(row, stages=(*before, (row.stage, row.e2e_s), *after))
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

    def _failed(self, request: Request) -> _Asked:
        now = self._clock.now()
        row = self._rows.abandoned(request, now, now, Outcome.FAILED, "flow")
        return _Asked(row, str)

    def _ask(self, request: Request) -> _Asked:
        part = self._slice_of(request)
        part.in_flight += 1
        self._stats.reserve(request.input_tokens, request.output_tokens)
        trace = self._traces.of(request.number)
        began = self._clock.now()
        killed: BaseException | None = None
        text: Callable[[], str] = str
        try:
            asker = self._asker_of(request)
            exchange = asker.ask(
                question_of(request, self._plan, asker.api),
                {TRUTH_HEADER: "1", TRACEPARENT_HEADER: str(trace)},
            )
            row = self._rows.of(request, exchange, self._clients.host_of(request))
            if (reply := exchange.reply) is not None:
                text = lambda: reply.text  # noqa: E731 - joined only if it is wanted
        except Abandon as end:
            killed = end
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
            self._stats.reserve(-request.input_tokens, -request.output_tokens)
        if trace.sampled:
            row = replace(row, trace_id=trace.trace_hex)
        return _Asked(row, text, killed)

    def _abandoned(
        self,
        request: Request,
        began: Seconds,
        outcome: Outcome,
        error: str | None = None,
    ) -> RequestRecord:
        return self._rows.abandoned(
            request, began, self._clock.now(), outcome, error,
            self._clients.host_of(request),
        )  # fmt: skip


def _answer(asked: _Asked) -> Answer:
    """Return what a flow is told; raises what the request was ended by."""
    if asked.killed is not None:
        raise asked.killed
    row = asked.row
    return Answer(ok=row.ok, read=asked.text, output_tokens=row.output_tokens)
