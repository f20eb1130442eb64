"""Faults of the rack: engines that are lost, come back cold, or run slower.

A lost engine has lost its KV, and the router sends it nothing until it is back. What
becomes of its requests is what routers do:

retry     a request without a token yet goes to another engine; a stream that has begun
          breaks off, for its client has read what cannot be taken back. What a proxy
          does that retries until the first byte of an answer (the default).
fail      all of them break off: a router that never retries.
migrate   all go on elsewhere; prompt and tokens so far are prefilled again, and the
          client sees a gap. What a router does that keeps the tokens it has passed on.

A request that breaks off ends in 503, or in a connection that is cut where its stream
has begun. `cold_start` is an engine that is restarted: away for `load` seconds, then
slower by `slowdown` until its end. Under a `power_cap` steps take so many times as
long. Slowdowns of one engine multiply.
"""

from collections.abc import Callable, Iterable
from functools import partial
from math import inf, prod
from typing import Final

from loadstone.engine.sequence import Sequence

from .driver import Driver, Timer
from .faults import Fault, FaultError, Place, Planned
from .share import Share

_MOVES: Final[dict[str, Callable[[Sequence], bool]]] = {
    "retry": lambda sequence: sequence.first_s is None,
    "fail": lambda _: False,
    "migrate": lambda _: True,
}


class Outages:
    """Does the faults of the rack when they are due, and undoes them."""

    def __init__(self, driver: Driver, share: Share) -> None:
        """Watch over the engines of a process that has that share of its rack.

        Faults name VMs and engines by their number in the rack; what others have is
        left to them.
        """
        self._driver = driver
        self._vms = share.of_vms
        own, first = len(driver.fleet.engines), driver.fleet.first
        self._own = range(first, first + own)
        self._engines = own * share.of_vms // share.vms
        self._timers: dict[int, list[Timer]] = {}
        self._lost: dict[int, set[int]] = {}
        """Engines that each fault keeps down."""
        self._slowed: dict[int, dict[int, float]] = {}
        """And those that it slows, by how much."""

    def __repr__(self) -> str:
        return f"<Outages lost={self._lost} slowed={self._slowed}>"

    def check(self, fault: Fault) -> None:
        """Raise `FaultError` for a fault of a machine that is not there."""
        for name, there in (("vm", self._vms), ("engine", self._engines)):
            named = fault.place is Place.RACK and name in fault.values
            if named and fault.number(name) >= there:
                raise FaultError(
                    name,
                    f"there is no {name} {fault.values[name]}",
                    hint=f"they are 0 to {there - 1}",
                )

    def schedule(self, planned: Planned) -> None:
        """Let a fault begin and end when it is due; those of requests are left."""
        fault = planned.fault
        engines = self._hit(fault) if fault.place is Place.RACK else ()
        if not engines:
            return
        begin: Callable[[], None] = partial(self._lose, planned, engines)
        if fault.kind == "power_cap":
            begin = partial(self._slow, planned, engines)
        due = [(planned.from_s, begin)]
        if fault.kind == "cold_start":
            loaded = planned.from_s + fault.number("load")
            due.append((loaded, partial(self._loaded, planned, engines)))
        if planned.until_s < inf:
            due.append((planned.until_s, partial(self.end, planned)))
        self._timers[planned.number] = [
            self._driver.call_at(at, act) for at, act in due
        ]

    def end(self, planned: Planned) -> None:
        """Undo a fault, whether its time is over or not."""
        for timer in self._timers.pop(planned.number, ()):
            timer.cancel()
        self._restore(planned)
        for engine in self._slowed.pop(planned.number, ()):
            self._set_pace(engine)

    def _hit(self, fault: Fault) -> list[int]:
        """Return this process's engines of a VM, by their place in its fleet.

        Of engines that span several VMs, those with a GPU in it.
        """
        if fault.kind == "gpu_lost":
            engine = int(fault.number("engine"))
            hit = range(engine, engine + 1)
        else:
            vm, n, vms = int(fault.number("vm")), self._engines, self._vms
            hit = range(vm * n // vms, -(-(vm + 1) * n // vms))
        return [engine - self._own.start for engine in hit if engine in self._own]

    def _lose(self, planned: Planned, engines: Iterable[int]) -> None:
        self._count(planned)
        moves = _MOVES[str(planned.fault.values["requests"])]
        gone = [e for e in engines if e in self._driver.fleet.up]
        self._lost[planned.number] = set(engines)
        # All go at one instant: nothing may move to one that is about to go.
        for engine in gone:
            self._driver.fleet.mark(engine, up=False)
        for engine in gone:
            self._driver.lose(engine, moves)

    def _loaded(self, planned: Planned, engines: Iterable[int]) -> None:
        self._restore(planned)
        self._slow_down(planned, engines)

    def _slow(self, planned: Planned, engines: Iterable[int]) -> None:
        self._count(planned)
        self._slow_down(planned, engines)

    def _slow_down(self, planned: Planned, engines: Iterable[int]) -> None:
        factor = planned.fault.number("slowdown")
        self._slowed[planned.number] = dict.fromkeys(engines, factor)
        for engine in engines:
            self._set_pace(engine)

    def _set_pace(self, engine: int) -> None:
        factors = (slowed.get(engine, 1.0) for slowed in self._slowed.values())
        self._driver.pace(engine, prod(factors))

    def _restore(self, planned: Planned) -> None:
        for engine in self._lost.pop(planned.number, set()):
            if not any(engine in lost for lost in self._lost.values()):
                self._driver.restore(engine)

    def _count(self, planned: Planned) -> None:
        self._driver.stats.faults[planned.fault.kind] += 1
