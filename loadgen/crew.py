"""The master's side of a distributed run: orders out, totals in, and who is missing.

What is known of the workers of a run is in its `Ledger`; this carries the messages.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.event import Event
from gevent.queue import SimpleQueue

from loadstone.errors import LoadstoneError
from loadstone.units import Seconds

from .clocks import Offset, RoundTrip, offset_of
from .coordinator import Run, order_message
from .ledger import Ledger, Rows, Worker
from .messages import CHUNK, CLOCK, DONE, FETCH, GO, HALT, LATE, REFUSED, REPORT
from .results import rows_name
from .transfer import Receiver, Written

_log = logging.getLogger("loadstone")

_ROUND_TRIPS: Final = 8
"""How often each worker is asked for its clock; the quickest answer counts."""
_CLOCK_PATIENCE_S: Final = 2.0
"""How long the start waits for all of that."""
_PATIENCE_S: Final = 10.0
"""How long the end waits for workers to hand in their totals."""
_COLLECT_PATIENCE_S: Final = 60.0
"""How long the end waits for rows that are on other disks."""
_LOOK_EVERY_S: Final = 1.0


class Crew:
    """Locust's workers, and the run that they are on."""

    def __init__(self, environment: Any) -> None:
        self._runner = environment.runner
        self._run: Run | None = None
        self._echoes: dict[str, SimpleQueue[tuple[Seconds, Seconds]]] = {}
        self._chunks: dict[str, SimpleQueue[Mapping[str, Any]]] = {}
        self.all_in = Event()
        """Set when nobody is waited for: all have handed in, or are lost."""
        events = environment.events
        events.worker_report.add_listener(self._note_report)
        events.heartbeat_sent.add_listener(self._note_heartbeat)
        events.worker_connect.add_listener(self._note_connect)
        for message, listener in (
            (CLOCK, self._note_clock),
            (DONE, self._note_done),
            (REFUSED, self._note_refusal),
            (CHUNK, self._note_chunk),
        ):
            self._runner.register_message(message, listener)

    def __repr__(self) -> str:
        return f"<Crew {self._ledger!r}>"

    @property
    def _ledger(self) -> Ledger:
        """The present run's; an empty one where there is none."""
        return (self._run and self._run.ledger) or Ledger()

    def begin(self, run: Run, workers: Iterable[str]) -> None:
        """Give each worker its order; they hear t0 on their own clocks."""
        self.all_in.clear()
        run.begin(self._clocks(list(workers)))
        self._run = run
        for client in self._runner.clients.ready:
            self._note_connect(client.id)  # came while the run was prepared
        for name, worker in self._ledger.workers.items():
            order = order_message(run.order(worker.rank, worker.clock))
            self._runner.send_message(GO, order, name)

    def watch(self) -> None:
        """Look every second for workers that Locust lost; the run ends without them."""
        while True:
            gevent.sleep(_LOOK_EVERY_S)
            clients = self._runner.clients.all
            there = (client.id for client in clients if client.state != "missing")
            gone, back = self._ledger.look(there)
            for worker in gone:
                _log.error("lost worker %d (%s)", worker.rank, worker.host)
            for worker in back:
                _log.warning("worker %d (%s) is back", worker.rank, worker.host)
            self._look_if_all_in()

    def collect(self) -> None:
        """Have every worker hand in what it has; who does not answer is lost.

        Rows that are on other disks are carried over, up to the limit of the run.
        """
        for name in self._ledger.waited_for:
            self._runner.send_message(HALT, None, name)
        self._look_if_all_in()
        if not self.all_in.wait(_PATIENCE_S):
            silent, _ = self._ledger.look(())
            for worker in silent:
                _log.error("worker %d (%s) did not hand in", worker.rank, worker.host)
        if self._run is not None:
            self._gather_rows(self._run)
        self._run = None

    def _look_if_all_in(self) -> None:
        if not self._ledger.waited_for:
            self.all_in.set()

    # ---------------------------------------------------------------- clocks

    def _clocks(self, workers: list[str]) -> dict[str, Offset | None]:
        """Measure by how much each worker's clock is ahead of ours."""
        trips: dict[str, list[RoundTrip]] = {name: [] for name in workers}
        self._echoes = {name: SimpleQueue() for name in workers}
        asking = [gevent.spawn(self._ask_clock, n, found) for n, found in trips.items()]
        gevent.joinall(asking, timeout=_CLOCK_PATIENCE_S)
        gevent.killall(asking)
        self._echoes = {}
        clocks = {name: offset_of(found) for name, found in trips.items()}
        for name in (name for name, clock in clocks.items() if clock is None):
            _log.warning("%s did not tell its clock; it is taken to be ours", name)
        return clocks

    def _ask_clock(self, name: str, found: list[RoundTrip]) -> None:
        for _ in range(_ROUND_TRIPS):
            asked = time.time()
            self._runner.send_message(CLOCK, None, name)
            found.append(RoundTrip(asked, *self._echoes[name].get()))

    def _note_clock(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002 - Locust's signature
        answered = time.time()
        if (echo := self._echoes.get(msg.node_id)) is not None:
            echo.put((msg.data["shown"], answered))

    # ---------------------------------------------------------------- rows

    def _gather_rows(self, run: Run) -> None:
        """Settle where each worker's rows are, and carry over what is elsewhere."""
        apart: list[tuple[Worker, Path, Written]] = []
        for worker in self._ledger.workers.values():
            path = run.folder.path / rows_name(worker.rank, run.workers)
            written = worker.written
            shared = path.exists() if written is None else written.shared
            worker.rows = Rows.SHARED if shared else Rows.ELSEWHERE
            if written is not None and not shared and written.size <= run.most_rows:
                apart.append((worker, path, written))
        self._chunks = {worker.client_id: SimpleQueue() for worker, _, _ in apart}
        fetching = [gevent.spawn(self._fetch, *each) for each in apart]
        gevent.joinall(fetching, timeout=_COLLECT_PATIENCE_S)
        gevent.killall(fetching)
        self._chunks = {}

    def _fetch(self, worker: Worker, path: Path, written: Written) -> None:
        receiver = Receiver(path, written)
        try:
            while not receiver.complete:
                offset = {"offset": receiver.offset}
                self._runner.send_message(FETCH, offset, worker.client_id)
                receiver.take(self._chunks[worker.client_id].get())
            receiver.close()
            worker.rows = Rows.COLLECTED
        except LoadstoneError as wrong:
            _log.error("rows of worker %d: %s", worker.rank, wrong.message)
        finally:
            receiver.abandon()

    def _note_chunk(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002 - Locust's signature
        if (chunks := self._chunks.get(msg.node_id)) is not None:
            chunks.put(msg.data)

    # ---------------------------------------------------------------- what they say

    def _now(self) -> Seconds:
        return self._run.elapsed_s() if self._run else 0.0

    def _note_heartbeat(self, client_id: str, **_: Any) -> None:
        self._ledger.heard(client_id, self._now())

    def _note_report(self, client_id: str, data: Mapping[str, Any]) -> None:
        if self._run is not None and client_id in self._ledger.workers:
            self._ledger.heard(client_id, self._now())
            if REPORT in data:
                self._run.snapshots[client_id] = data[REPORT]

    def _note_done(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002 - Locust's signature
        written = Written(**msg.data["rows"])
        if self._run is not None and self._ledger.hand_in(msg.node_id, written):
            self._run.snapshots[msg.node_id] = msg.data["stats"]
            self._ledger.heard(msg.node_id, self._now())
            self._look_if_all_in()

    def _note_refusal(self, environment: Any, msg: Any, **_: Any) -> None:  # noqa: ARG002 - Locust's signature
        worker = self._ledger.refuse(msg.node_id, msg.data["why"])
        if worker is not None:
            _log.error("worker %d (%s): %s", worker.rank, worker.host, worker.why)
            self._look_if_all_in()

    def _note_connect(self, client_id: str, **_: Any) -> None:
        if self._run is None:
            return
        late = self._ledger.connect(client_id, self._now())
        if late is not None:
            _log.warning("a worker on %s came late and has no share", late.host)
            run = self._run.folder.path.name
            self._runner.send_message(LATE, {"run": run}, client_id)
