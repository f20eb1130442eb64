"""What a GPU draws, by how much of the time it is busy, and what a rack draws beside.

    P = idle + (limit - idle) u        u = share of time inside an engine step
    E = idle T + (limit - idle) B      B = seconds inside steps, out of T

The second is the first integrated, exactly, whatever the interval: so energy is read
from the engine's own busy seconds and does not depend on who asked for it, or when. A
GPU inside a step is taken to draw its limit, which is an upper bound: a small batch
waits for memory and draws less.

The rest of a rack (CPUs, NVLink switches, network, fans, losses of its power shelves)
is taken to draw the same whatever the GPUs do: no published figure says how it varies.
"""

from dataclasses import dataclass

from ..units import Seconds

Watts = float
Joules = float


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLaw:
    """One GPU's draw when idle and inside a step."""

    idle_w: Watts
    limit_w: Watts

    def __post_init__(self) -> None:
        """Refuse a GPU that draws less when it works."""
        # Asked in the affirmative: whatever is compared with a NaN is False.
        if not 0 <= self.idle_w <= self.limit_w:
            raise ValueError(f"not a power law: {self!r}")

    def watts(self, utilisation: float) -> Watts:
        """Return the mean draw over a time of which `utilisation` (0 to 1) was busy."""
        return self.idle_w + (self.limit_w - self.idle_w) * utilisation

    def joules(self, elapsed: Seconds, busy: Seconds) -> Joules:
        """Return the energy of `elapsed` seconds of which `busy` were inside steps."""
        return self.idle_w * elapsed + (self.limit_w - self.idle_w) * busy


def rest_of_rack(rack_w: Watts, gpus: int, law: PowerLaw) -> Watts:
    """Return what a rack draws beside its GPUs, given its load when all are busy.

    Raises `ValueError` if the GPUs alone would draw more than the rack.
    """
    rest = rack_w - gpus * law.limit_w
    if not rest >= 0:
        raise ValueError(
            f"{gpus} GPUs of {law.limit_w:g} W draw more than a rack of {rack_w:g} W"
        )
    return rest


@dataclass(frozen=True, slots=True)
class Activity:
    """Running totals of one GPU at an instant. All only rise."""

    at_s: Seconds
    busy_s: Seconds = 0.0
    """Inside engine steps."""
    tensor_s: Seconds = 0.0
    """In GEMMs."""
    dram_s: Seconds = 0.0
    """What the bytes read would take at the memory's full bandwidth."""

    def shares_since(self, earlier: "Activity") -> tuple[float, float, float]:
        """Return the busy, tensor and memory shares of the time since `earlier`.

        Totals of steps rise when a step ends, so a short interval may hold more than
        its length; a share is at most 1. Over no time at all every share is 0.
        """
        elapsed = self.at_s - earlier.at_s
        if elapsed <= 0:
            return 0.0, 0.0, 0.0
        busy, tensor, dram = (
            min(1.0, max(0.0, gained / elapsed))
            for gained in (
                self.busy_s - earlier.busy_s,
                self.tensor_s - earlier.tensor_s,
                self.dram_s - earlier.dram_s,
            )
        )
        return busy, tensor, dram
