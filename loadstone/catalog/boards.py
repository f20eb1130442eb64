"""What an accelerator's sensors would show: power, memory bandwidth. Not its timing."""

from dataclasses import dataclass

from ..fact import Fact
from ..physics.power import PowerLaw
from .gpus import read_gpu


@dataclass(frozen=True, slots=True)
class Board:
    """One accelerator as its sensors know it, every fact behind."""

    title: str
    """Its name as the driver would give it, marked so that nobody mistakes it."""
    power: PowerLaw
    hbm_bytes_per_s: float
    facts: dict[str, Fact]


def load_board(gpu: str) -> Board:
    """Load an accelerator's board; raises `CatalogError` when there is none."""
    plain, facts = read_gpu(gpu)
    power = PowerLaw(
        idle_w=facts["power_idle_w"].value, limit_w=facts["power_limit_w"].value
    )
    title = f"{plain['title']} (emulated)"
    return Board(title, power, facts["hbm_bytes_per_s"].value, facts)
