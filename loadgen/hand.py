"""A worker's side of a distributed run: takes its order, hands in what came of it.

It sends nothing itself; the session does, which `Control` opens on the order.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import gevent

from loadstone.errors import LoadstoneError
from loadstone.traffic.plan import Plan

from .folder import RunFolder
from .messages import CHUNK, CLOCK, DONE, FETCH, GO, HALT, HERE, LATE, REFUSED
from .options import as_given
from .order import Order
from .session import Session
from .transfer import Written, is_same_folder, read_chunk

_log = logging.getLogger("loadstone")

_MASTER_SILENT_S: Final = 10.0
"""How long a worker goes on without a word of its master. Locust's own patience is a
minute, and until then nobody could stop what it sends."""


class Hand:
    """One of the crew, in its own process."""

    def __init__(self, environment: Any, close: Callable[[], None]) -> None:
        """Attach to Locust's `environment`; `close` closes the share and hands in."""
        self._environment = environment
        self._runner = environment.runner
        # Locust overwrites a worker's own options with its master's at each start.
        self._out = Path(environment.parsed_options.out)
        """Where rows go if the run's own folder is not to be seen from here."""
        self._order: Order | None = None
        self._begun = ""
        """The id of the last run that was begun here."""
        self._shared = True
        self._rows: Path | None = None
        self._heard = time.monotonic()
        environment.events.heartbeat_received.add_listener(self._hear_master)
        for message, listener in (
            (CLOCK, self._tell_clock),
            (GO, self._take_order),
            (LATE, self._stand_by),
            (FETCH, self._send_chunk),
        ):
            self._runner.register_message(message, listener)
        self._runner.register_message(HALT, lambda **_: close(), concurrent=True)
        self._runner.send_message(HERE, None)

    def __repr__(self) -> str:
        rank = self._order.rank if self._order else None
        return f"<Hand rank={rank} rows={self._rows}>"

    def order(self) -> Order:
        """Return the order to begin on, once; raises `LoadstoneError` without one."""
        order, self._order = self._order, None
        if order is None:
            raise LoadstoneError(
                "this worker was started without an order from its master"
            )
        self._begun = order.run_id
        self._shared = is_same_folder(Path(order.folder), order.run_id)
        return order if self._shared else self._at_home(order)

    def refuse(self, wrong: LoadstoneError) -> None:
        """Tell the master that the order cannot be carried out, and why."""
        self._runner.send_message(REFUSED, {"why": wrong.message})

    def hand_in(self, session: Session) -> None:
        """Tell the master that the share has ended, its totals, and of its rows."""
        # Locust's own figures go first, on the same ordered channel: the master ends
        # the run once all have handed in, and would miss what was counted since the
        # last report.
        data: dict[str, Any] = {}
        self._environment.events.report_to_master.fire(
            client_id=self._runner.client_id, data=data
        )
        self._runner.send_message("stats", data)
        self._rows = session.rows.path
        try:
            written = Written.of(self._rows, shared=self._shared)
        except OSError as gone:
            self.refuse(LoadstoneError(f"cannot read {self._rows}: {gone.strerror}"))
            return
        self._runner.send_message(
            DONE, {"stats": session.stats.snapshot(), "rows": written.message()}
        )

    def miss_master(self) -> None:
        """End this process once the master is silent: nobody else would."""
        self._heard = time.monotonic()
        while time.monotonic() - self._heard < _MASTER_SILENT_S:
            gevent.sleep(1.0)
        _log.error("no word of the master for %g s: ending", _MASTER_SILENT_S)
        gevent.spawn(self._runner.quit)

    def _at_home(self, order: Order) -> Order:
        """Return the order with a folder of this host, which is a run's folder too."""
        path = (self._out / Path(order.folder).name).absolute()
        path.mkdir(parents=True, exist_ok=True)
        folder = RunFolder(path)
        plan, given = Plan.from_toml(order.plan), as_given(order.values)
        folder.write_plan(plan, order.plan_hash, options=given)
        folder.write_environment(
            None,
            order.workers,
            run_id=order.run_id,
            t0_epoch=order.t0_epoch + order.clock_offset_s,
            rank=order.rank,
        )
        _log.info("the run's folder is not to be seen from here; rows go to %s", path)
        return replace(order, folder=str(path))

    # ---------------------------------------------------------------- messages

    def _hear_master(self, **_: Any) -> None:
        self._heard = time.monotonic()

    def _tell_clock(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002 - Locust's signature
        self._runner.send_message(CLOCK, {"shown": time.time()})

    def _take_order(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002 - Locust's signature
        order = Order(**msg.data)
        if order.run_id == self._begun:
            _log.warning("an order came twice; its share is sent once")
            return
        self._order = order

    def _stand_by(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002 - Locust's signature
        _log.warning("came late to run %s: no share in it", msg.data["run"])

    def _send_chunk(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002 - Locust's signature
        if self._rows is not None:
            self._runner.send_message(CHUNK, read_chunk(self._rows, msg.data["offset"]))
