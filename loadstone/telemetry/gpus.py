"""The emulated machines: their GPUs as dcgm-exporter would show them, and their power.

All of it follows from what the engines did. Memory is constant, as under vLLM, which
takes its whole KV pool at the start. A VM's power is that of its GPUs and its share of
what else is in the rack.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ..catalog.boards import Board
from ..catalog.presets import Preset
from ..engine.core import Engine
from ..physics.power import Activity, PowerLaw, Watts, rest_of_rack
from ..units import MILLIJOULES, US, Seconds
from ..vocabulary import Server
from .places import Place, Topology
from .prometheus import Reading, Sample

MIN_WINDOW_S: Final[Seconds] = 1.0
"""Shares are over the time since the scrape before, but no less than this: a second
scraper would else see the noise of a few steps."""
_MIB: Final = 1 << 20
_PERCENT: Final = 100.0

_Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """What the sensors need to know of a machine. Bytes are those of one GPU."""

    title: str
    power: PowerLaw
    rest_w_per_vm: Watts | None
    """A VM's share of what a rack draws beside its GPUs; None where nobody says."""
    topology: Topology
    memory_bytes: float
    memory_bytes_per_s: float
    weight_bytes: float
    reserved_bytes: float
    kv_bytes_per_token: float

    @classmethod
    def of(cls, machine: Preset, board: Board) -> "GpuFacts":
        """Take the facts from the catalog's."""
        gpus, memory = machine.tensor_parallel, machine.memory
        vms, rack = machine.vms_per_rack, machine.facts.get("rack_it_w")
        rest = None
        if rack is not None:
            of_rack = machine.gpus_per_vm * vms
            rest = rest_of_rack(rack.value, of_rack, board.power) / vms
        return cls(
            title=board.title,
            power=board.power,
            rest_w_per_vm=rest,
            topology=Topology.of(machine),
            memory_bytes=memory.hbm_bytes / gpus,
            memory_bytes_per_s=board.hbm_bytes_per_s,
            weight_bytes=memory.weight_bytes / gpus,
            reserved_bytes=memory.activation_bytes / gpus,
            kv_bytes_per_token=memory.kv_bytes_per_token / gpus,
        )


class Gpus:
    """The sensors of every GPU under a fleet's engines, and of the VMs they are in.

    Readings are taken with `read`, in order of time. `first` is the number of the first
    engine, where these are a part of a rack.
    """

    def __init__(
        self, facts: GpuFacts, engines: Sequence[Engine], first: int = 0
    ) -> None:
        self._facts = facts
        self._engines = engines
        # An engine over several VMs stands where its first GPU is.
        numbers = range(first, first + len(engines))
        places = [list(facts.topology.places(number)) for number in numbers]
        self._labels = [
            (engine, _labels(facts, place))
            for engine, gpus in zip(engines, places, strict=True)
            for place in gpus
        ]
        self._vms: dict[_Labels, list[Engine]] = {}
        """The engine of each GPU of a VM, by the names of rack and VM."""
        for engine, gpus in zip(engines, places, strict=True):
            for place in gpus:
                self._vms.setdefault((place.rack, place.vm), []).append(engine)
        self._where: list[Sample] = [
            ((gpus[0].rack, gpus[0].vm, str(number), _numbers(gpus)), len(gpus))
            for number, gpus in zip(numbers, places, strict=True)
        ]
        self._earlier = {engine: Activity(0.0) for engine in engines}
        self._shares = dict.fromkeys(engines, (0.0, 0.0, 0.0))
        self._window_from: Seconds = 0.0
        self._fresh = False

    def __repr__(self) -> str:
        return f"<Gpus {len(self._labels)} x {self._facts.title}>"

    def read(self, now: Seconds) -> Iterator[Reading]:
        """Read every sensor at `now`, in seconds since the server's start."""
        self._look(now)
        power = self._facts.power
        pool = self._pool_bytes()
        used = self._facts.weight_bytes + self._facts.reserved_bytes + pool
        free = self._facts.memory_bytes - used
        joules = {e: power.joules(now, e.busy_s(now)) for e in self._engines}
        shares = self._shares
        rows = self._labels
        yield Server.GPU_UTIL, [(at, _PERCENT * shares[e][0]) for e, at in rows]
        yield Server.GPU_POWER, [(at, power.watts(shares[e][0])) for e, at in rows]
        yield Server.GPU_ENERGY, [(at, MILLIJOULES * joules[e]) for e, at in rows]
        yield Server.GPU_MEMORY_USED, [(at, used / _MIB) for _, at in rows]
        yield Server.GPU_MEMORY_FREE, [(at, free / _MIB) for _, at in rows]
        yield Server.GPU_ENGINE_ACTIVE, [(at, shares[e][0]) for e, at in rows]
        yield Server.GPU_TENSOR_ACTIVE, [(at, shares[e][1]) for e, at in rows]
        yield Server.GPU_DRAM_ACTIVE, [(at, shares[e][2]) for e, at in rows]
        yield Server.ENGINE_GPUS, self._where
        watts = {e: power.watts(shares[e][0]) for e in self._engines}
        yield Server.POWER, self._by_part(watts, 1.0)
        yield Server.ENERGY, self._by_part(joules, now)

    def _by_part(self, of_gpu: dict[Engine, float], times: float) -> Iterator[Sample]:
        """Add up each VM's GPUs; its rest is constant, and taken so many times."""
        rest = self._facts.rest_w_per_vm
        for vm, gpus in self._vms.items():
            yield (*vm, "gpus"), sum(of_gpu[engine] for engine in gpus)
            if rest is not None:
                yield (*vm, "rest"), rest * times

    def _look(self, now: Seconds) -> None:
        """Take the shares anew, if the window since last time is long enough."""
        whole = now - self._window_from >= MIN_WINDOW_S
        if self._fresh and not whole:
            return
        present = {engine: self._activity(engine, now) for engine in self._engines}
        self._shares = {e: present[e].shares_since(self._earlier[e]) for e in present}
        if whole:
            self._earlier, self._window_from, self._fresh = present, now, True

    def _activity(self, engine: Engine, now: Seconds) -> Activity:
        facts = self._facts
        read = (
            facts.weight_bytes * engine.steps
            + facts.kv_bytes_per_token * engine.context_read
        )
        return Activity(
            at_s=now,
            busy_s=engine.busy_s(now),
            tensor_s=engine.law.gemm_us_per_token * US * engine.computed_tokens,
            dram_s=read / facts.memory_bytes_per_s,
        )

    def _pool_bytes(self) -> float:
        limits = self._engines[0].limits
        tokens = limits.kv_blocks * limits.block_size
        return tokens * self._facts.kv_bytes_per_token


def _numbers(gpus: Sequence[Place]) -> str:
    return ",".join(str(place.gpu) for place in gpus)


def _labels(facts: GpuFacts, place: Place) -> _Labels:
    gpu = place.gpu
    uuid = f"GPU-00000000-0000-0000-{place.vm_number:04x}-{gpu:012x}"
    return str(gpu), uuid, f"nvidia{gpu}", facts.title, place.vm
