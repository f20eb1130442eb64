"""Turns Locust's events into runs: one on each start, in one process or in many.

The master draws the plan and its `Crew` sends each worker its order, ahead of Locust's
own spawn message on the same ordered channel. A worker reports its totals with every
`report_to_master` and tells when its share has ended and its rows are on disk. However
a run ends, Locust fires `test_stop`: there the shares are closed and the summary is
written.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.event import Event

from loadstone.errors import ExitCode, LoadstoneError
from loadstone.observers import Observers
from loadstone.traffic.record import RequestRecord
from loadstone.traffic.request import Request
from loadstone.traffic.verdict import exit_code
from loadstone.units import Seconds

from .budget import LOOK_S
from .coordinator import Run
from .crew import Crew
from .hand import Hand
from .hooks import Begun, LoadHooks
from .messages import CLOSE, REPORT
from .options import OPTIONS, read_options
from .order import Order, open_session
from .session import Session

_log = logging.getLogger("loadstone")

_GRACE_S: Final = 15.0
"""How long after the end of the drain the master waits for a worker that lives."""


class Control:
    """The run that is on in this process, if any."""

    def __init__(
        self,
        environment: Any,
        *,
        render: Callable[[Run], bytes],
        tell: Callable[[str, dict[str, Any]], None],
        sampled: float = 0.0,
    ) -> None:
        """Attach to Locust's `environment`.

        `render` makes the metrics text of a run; `tell("progress" | "done" | "failed",
        facts)` is called as a run goes. `sampled` is the share of traces, 0 to 1, that
        servers are told to record; `observers` are told what `loadgen.hooks` lists.
        """
        self._environment = environment
        self._render = render
        self._tell = tell
        self._sampled = sampled
        self.observers = Observers(_switched_off)
        self._is_worker = bool(environment.parsed_options.worker)
        self._is_master = bool(environment.parsed_options.master)
        self.run: Run | None = None
        self.session: Session | None = None
        self._begun: Begun | None = None
        self._crew = Crew(environment) if self._is_master else None
        self._hand = Hand(environment, self._hand_in) if self._is_worker else None
        self.places: Any = None
        """How Locust spreads the users of the present run; None between two."""
        self._starting = False
        self._unwanted = False
        self._greenlets: list[gevent.Greenlet[..., Any]] = []
        self._natural_end = False
        self._listen()

    def __repr__(self) -> str:
        role = "worker" if self._is_worker else "master" if self._is_master else "local"
        return f"<Control {role} {self.run!r} {self.session!r}>"

    def observe(self, observer: LoadHooks) -> None:
        """Tell `observer` of the runs to come, and of the one that is on.

        A master may order a run while a worker still sets up its exporter.
        """
        if self.session is not None and self._begun is not None:
            observer.run_began(self._begun)
        self.observers.add(observer)

    def _listen(self) -> None:
        events = self._environment.events
        events.test_start.add_listener(lambda **_: self.start())
        events.test_stop.add_listener(lambda **_: self.stop())
        if self._hand is not None:
            events.report_to_master.add_listener(self._report)
            self._environment.runner.register_message(
                CLOSE, lambda **_: self._close_arrivals()
            )

    def metrics(self) -> bytes:
        """Return the metrics of the present or last run; empty before the first."""
        return self._render(self.run) if self.run else b""

    # ---------------------------------------------------------------- start and stop

    def start(self) -> None:
        """Begin a run; what is wrong is logged and told, and Locust stopped again."""
        self._starting, self._unwanted = True, False
        self._environment.process_exit_code = None
        try:
            if self._hand is not None:
                self._start_session(self._hand.order())
                self._greenlets.append(gevent.spawn(self._hand.miss_master))
            else:
                self._start_run()
        except OSError as failed:
            self._fail(disk_error(failed))
        except LoadstoneError as wrong:
            self._fail(wrong)
        finally:
            self._starting = False

    def abandon_start(self) -> None:
        """Begin no run if one is about to: Locust forgets a stop that early."""
        self._unwanted = self._starting

    def _fail(self, wrong: LoadstoneError) -> None:
        # Without a run nobody would stop what was begun of it.
        session, self.session = self.session, None
        if session is not None:
            session.stop()
        if self.run is not None:
            self.run.end_watch()
        self.run = None
        _log.error("%s%s", wrong.message, f" ({wrong.hint})" if wrong.hint else "")
        self._tell(
            "failed",
            {"code": wrong.code, "message": wrong.message, "hint": wrong.hint},
        )
        self._environment.process_exit_code = int(wrong.exit_code)
        if self._hand is not None:
            self._hand.refuse(wrong)
        else:
            gevent.spawn(self._end_test)

    def _lose_rows(self, failed: OSError) -> None:
        """End the run: a request without a row would be lost from its figures."""
        _log.error("%s", disk_error(failed).message)
        gevent.spawn(self._hand_in if self._is_worker else self._end_test)

    def stop(self) -> None:
        """End the run that is on: close the shares and write the summary."""
        self.places = None
        if self._is_worker:
            self._hand_in()
            return
        run, self._natural_end, ended = self.run, False, self._natural_end
        if run is None:
            return
        stopped_s = math.inf if ended else run.elapsed_s()
        if self._crew is not None:
            self._crew.collect()
        elif self.session is not None:
            self.session.stop()
        gevent.killall(self._greenlets)
        self._greenlets.clear()
        locust = self._environment.stats.total
        self.session = None
        try:
            summary = run.finish(
                locust={
                    "requests": locust.num_requests,
                    "failures": locust.num_failures,
                },
                metrics=self.metrics,
                stopped_s=stopped_s,
            )
        except OSError as failed:
            self._fail(disk_error(failed))
            return
        code = exit_code(summary)
        if self._environment.parsed_options.headless and code != ExitCode.DONE:
            self._environment.process_exit_code = int(code)
        _log.info("summary in %s", run.folder.path / "summary.json")
        self._tell("done", {"folder": str(run.folder.path), "summary": summary})

    def _start_run(self) -> None:
        options, runner = self._environment.parsed_options, self._environment.runner
        workers = self.places.workers if self._is_master else []
        values = read_options({o.name: getattr(options, o.name) for o in OPTIONS})
        run = Run.prepare(
            values,
            host=self._environment.host or "",
            users=runner.target_user_count,
            workers=len(workers) or 1,
            environ=os.environ,
            wanted=lambda: not self._unwanted,
        )
        self.run = run
        _log.info("run folder %s", run.folder.path)
        self._tell("started", {"folder": str(run.folder.path)})
        if self._crew is not None:
            self._crew.begin(run, workers)
            longest = run.t0 - time.monotonic() + run.plan.duration_s
            longest += run.plan.drain_s + _GRACE_S
            ended = self._crew.all_in
            self._greenlets.append(gevent.spawn(self._end_when, ended, longest))
            self._greenlets.append(gevent.spawn(self._crew.watch))
        else:
            run.begin()
            session = self._start_session(run.order(), run.requests)
            run.live = session.stats
            self._greenlets.append(gevent.spawn(self._end_when, session.finished))
        run.watch_server()
        self._greenlets.append(gevent.spawn(self._keep_telling, run))
        if run.budget.limits:
            self._greenlets.append(gevent.spawn(self._keep_to_budget, run))

    def _start_session(
        self, order: Order, requests: list[Request] | None = None
    ) -> Session:
        self.session = open_session(
            order,
            os.environ,
            self._on_row,
            self._lose_rows,
            requests=requests,
            sampled=self._sampled,
        )
        self._begun = Begun(Path(order.folder).name, self.session.plan, order.t0_epoch)
        self.observers.notify("run_began", self._begun)
        self.session.start()
        if self._hand is not None:
            self._greenlets.append(
                gevent.spawn(self._hand_in_when_finished, self.session)
            )
        return self.session

    def _end_when(self, finished: Event, longest: Seconds | None = None) -> None:
        finished.wait(longest)
        self._natural_end = True
        gevent.spawn(self._end_test)

    def _end_test(self) -> None:
        options, runner = self._environment.parsed_options, self._environment.runner
        if options.headless:
            # `quit` alone would stop the workers without waiting for their last
            # reports.
            runner.stop()
            runner.quit()
        else:
            runner.stop()

    def _keep_telling(self, run: Run) -> None:
        while True:
            run.series.add(run.elapsed_s(), run.stats().whole())
            self._tell("progress", run.progress())
            gevent.sleep(0.5)

    def _keep_to_budget(self, run: Run) -> None:
        """Close the arrivals everywhere once a limit is reached."""
        while (reached := run.budget.reached(run.spent())) is None:
            gevent.sleep(LOOK_S)
        _log.info("no more requests: %s is reached", reached)
        self._close_arrivals()
        if self._crew is not None:
            self._crew.close_arrivals()

    def _close_arrivals(self) -> None:
        if self.session is not None:
            self.session.close_arrivals()

    def _on_row(self, row: RequestRecord) -> None:
        self.observers.notify("request_ended", row)
        self._environment.events.request.fire(
            request_type="LLM",
            name=row.scenario,
            response_time=row.e2e_s * 1000,
            response_length=row.output_tokens,
            exception=None if row.ok else RuntimeError(row.error or row.outcome.value),
            context={"id": row.id},
        )

    # ---------------------------------------------------------------- as a worker

    def _report(self, client_id: str, data: dict[str, Any]) -> None:  # noqa: ARG002 - Locust's signature
        if self.session is not None:
            data[REPORT] = self.session.stats.snapshot()

    def _hand_in_when_finished(self, session: Session) -> None:
        session.finished.wait()
        gevent.spawn(self._hand_in)

    def _hand_in(self) -> None:
        """Close this worker's share and hand its totals in, once."""
        session, self.session = self.session, None
        if session is None:
            return
        session.stop()
        gevent.killall(self._greenlets)
        self._greenlets.clear()
        if self._hand is not None:
            self._hand.hand_in(session)


def disk_error(failed: OSError) -> LoadstoneError:
    """Say in words why a run folder could not be written."""
    return LoadstoneError(
        f"cannot write {failed.filename or 'the run folder'}: {failed.strerror}",
        hint="make room, or choose another --out DIR",
        code="disk",
    )


def _switched_off(observer: object, hook: str, failure: Exception) -> None:
    _log.error("%r failed on %s and is switched off", observer, hook, exc_info=failure)
