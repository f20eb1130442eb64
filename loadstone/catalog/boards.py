"""What an accelerator's sensors would show: power, memory bandwidth. Not its timing."""

from dataclasses import dataclass

from ..physics.power import PowerLaw
from .facts import Fact, read_fields


@dataclass(frozen=True, slots=True)
class Board:
    """One accelerator as its sensors know it, every fact behind."""

    gpu: str
    power: PowerLaw
    hbm_bytes_per_s: float
    facts: dict[str, Fact]

    @property
    def title(self) -> str:
        """Its name as the driver would give it, marked so that nobody mistakes it."""
        return f"NVIDIA {self.gpu.upper()} (emulated)"


def load_board(gpu: str) -> Board:
    """Load an accelerator's board; raises `CatalogError` when there is none."""
    _, facts = read_fields(
        "boards",
        gpu,
        plain=(),
        facts=("power_idle_w", "power_limit_w", "hbm_bytes_per_s"),
    )
    power = PowerLaw(
        idle_w=facts["power_idle_w"].value, limit_w=facts["power_limit_w"].value
    )
    return Board(gpu, power, facts["hbm_bytes_per_s"].value, facts)
