"""Published operating points: what others measured, one row for each, typed.

The rows are in CSV files of this package, with the columns and units of their header;
README.md beside them says where they are from and under which licence.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Final

from ..errors import CatalogError
from ..fact import CONFIDENCE, Fact
from ..physics.spread import fit_tail
from .gpus import gpu_names
from .rows import read_rows

SCENARIOS: Final = ("offline", "server", "interactive", "throughput")
"""offline: all requests at t = 0; server, interactive: Poisson arrivals under MLPerf's
limits; throughput: all requests queued at once, fixed lengths."""
_POINTS: Final = "published_points.csv"
_SPREAD: Final = "rack_vm_spread.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPoint:
    """One published operating point. Tokens are output tokens; None: not stated.

    `inflight_per_gpu` is Little's law of the whole system, prefill GPUs included.
    """

    id: str
    accelerator: str
    model: str
    """As published: `catalog.models` has the architecture, or does not."""
    precision: str
    """Of the weights; empty where it is not stated."""
    scenario: str
    n_gpus: int
    tokens_per_s_system: float
    tokens_per_s_per_gpu: float
    input_tokens_mean: float
    output_tokens_mean: float | None
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    tpot_p50_ms: float | None
    tpot_p99_ms: float | None
    inflight_per_gpu: float | None
    engine_settings: str
    """Free text: replicas, parallelism, batch, token budget, software."""
    source: str
    source_date: str
    confidence: str
    note: str
    requests_per_s: float | None
    e2e_mean_ms: float | None
    e2e_p99_ms: float | None
    ttft_mean_ms: float | None
    ttft_p90_ms: float | None
    tpot_mean_ms: float | None
    tpot_p90_ms: float | None

    def __post_init__(self) -> None:
        """Refuse what is no point: raises `ValueError` that begins with the column."""
        for column in ("id", "model", "source"):
            if not getattr(self, column):
                raise ValueError(f"{column} is empty")
        for column, known in _KNOWN.items():
            value = getattr(self, column)
            if value not in known():
                raise ValueError(f"{column} {value!r} is none of {', '.join(known())}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and value <= 0:
                raise ValueError(f"{field.name} {value:g} is not positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class RackSpread:
    """Output tokens/s of the VMs of one rack that ran side by side."""

    system: str
    accelerator: str
    model: str
    precision: str
    scenario: str
    n_vms: int
    gpus_per_vm: int
    vm_min_tokens_per_s: float
    vm_mean_tokens_per_s: float
    vm_median_tokens_per_s: float
    vm_max_tokens_per_s: float
    rack_total_tokens_per_s: float
    min_over_mean_pct: float
    median_over_mean_pct: float
    max_over_mean_pct: float
    source: str
    source_date: str
    confidence: str
    note: str

    @property
    def tail(self) -> float:
        """How far the VMs lie apart: see `physics.spread`."""
        return fit_tail(
            self.vm_min_tokens_per_s / self.vm_mean_tokens_per_s,
            self.vm_median_tokens_per_s / self.vm_mean_tokens_per_s,
            self.vm_max_tokens_per_s / self.vm_mean_tokens_per_s,
            self.n_vms,
        )

    def facts(self) -> Iterator[tuple[str, Fact]]:
        """Yield slowest, mean and fastest VM, and the mean GPU, as facts."""
        of = f"of {self.n_vms} ({self.scenario}): {self.source}"
        if self.confidence != "official":
            of += ", not verified by MLCommons"
        gpus = self.n_vms * self.gpus_per_vm
        for name, value, what in (
            ("vm_min", self.vm_min_tokens_per_s, "slowest VM"),
            ("vm_mean", self.vm_mean_tokens_per_s, "mean VM"),
            ("vm_max", self.vm_max_tokens_per_s, "fastest VM"),
            ("tokens_per_gpu", self.rack_total_tokens_per_s / gpus, "mean GPU"),
        ):
            yield (
                f"published_{name}",
                Fact(
                    value=value,
                    unit="output token/s",
                    source=f"{what} {of}",
                    date=self.source_date,
                    confidence=self.confidence,
                ),
            )


_KNOWN: Final[dict[str, Callable[[], Collection[str]]]] = {
    "accelerator": gpu_names,
    "scenario": lambda: SCENARIOS,
    "confidence": lambda: CONFIDENCE,
}


def read_points(lines: Iterable[str], name: str) -> tuple[PublishedPoint, ...]:
    """Read points in the columns of `PublishedPoint`.

    Raises `CatalogError` naming line and column, also for an id that is there twice.
    """
    points = tuple(read_rows(lines, PublishedPoint, name))
    for id_, times in Counter(point.id for point in points).items():
        if times > 1:
            raise CatalogError(f"{name}: {times} points have the id {id_!r}")
    return points


@cache
def load_points() -> tuple[PublishedPoint, ...]:
    """Return the published points that the catalog has, in the order of its file."""
    return read_points(_lines(_POINTS), _POINTS)


@cache
def load_rack_spreads() -> tuple[RackSpread, ...]:
    """Return how far the VMs of published racks lay apart."""
    return tuple(read_rows(_lines(_SPREAD), RackSpread, _SPREAD))


def _lines(name: str) -> list[str]:
    text = files(__package__).joinpath(name).read_text("utf-8")
    return text.splitlines(keepends=True)
