"""A claim: a figure that somebody published, and the conditions that he had.

A claim is about a rate of output tokens: of a system of so many GPUs, of one GPU, or as
a multiple of another system's. All are compared per GPU, since few have the rack.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Final

from ..units import Seconds

METRICS: Final[Mapping[str, str]] = {
    "output_tok_s": "token/s",
    "output_tok_s_per_gpu": "token/s/GPU",
    "times_baseline_per_gpu": "1",
}
"""What is claimed, and its unit. The last is how many times what a GPU of the baseline
gives a GPU gives: 1.27 for +27 %."""
SCENARIOS: Final = ("offline", "server", "interactive", "throughput")
LIMITS: Final = ("ttft_p99_s", "tpot_p99_s")
TOLERANCE: Final = 0.05
"""Share below the claim that still reproduces it: what Azure gives its own figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What a comparison is with."""

    title: str
    output_tok_s_per_gpu: float
    source: str
    gpus: float

    def __post_init__(self) -> None:
        """Refuse what nothing can be a multiple of: raises `ValueError`."""
        if not (self.output_tok_s_per_gpu > 0 and self.gpus > 0):
            raise ValueError("a baseline gives tokens, and has GPUs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A published figure; empty or None where the publication does not say."""

    name: str
    title: str
    metric: str
    value: float
    unit: str
    model: str
    precision: str = ""
    scenario: str
    accelerator: str = ""
    gpus: int
    vms: int | None = None
    input_tokens_mean: float | None = None
    output_tokens_mean: float | None = None
    limits: Mapping[str, Seconds] = field(default_factory=dict)
    """Of latency, by the names in `LIMITS`; none: any request may wait for ever."""
    baseline: Baseline | None = None
    tolerance: float = TOLERANCE
    source: str
    date: str
    verified: bool
    """Whether a third party (MLCommons) reviewed it."""
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no claim: raises `ValueError` that begins with the field."""
        if self.metric not in METRICS:
            raise ValueError(f"metric {self.metric!r} is none of {', '.join(METRICS)}")
        if self.unit != METRICS[self.metric]:
            raise ValueError(f"unit {self.unit!r} is not {METRICS[self.metric]}")
        if self.scenario not in SCENARIOS:
            raise ValueError(
                f"scenario {self.scenario!r} is none of {', '.join(SCENARIOS)}"
            )
        if not (isfinite(self.value) and self.value > 0):
            raise ValueError(f"value {self.value:g} is not positive")
        if self.gpus < 1:
            raise ValueError(f"gpus {self.gpus} is less than one")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance {self.tolerance:g} is not within 0 to 1")
        for name, limit in self.limits.items():
            if name not in LIMITS or not limit > 0:
                raise ValueError(f"limits {name!r} is no positive latency limit")
        if (self.baseline is None) is self.compares:
            raise ValueError("metric is a multiple if, and only if, it has a baseline")

    @property
    def compares(self) -> bool:
        """Whether it is a multiple of another system's rate."""
        return self.metric == "times_baseline_per_gpu"

    @property
    def per_gpu(self) -> float:
        """Output tokens/s of a GPU that would make it true."""
        if self.metric == "output_tok_s":
            return self.value / self.gpus
        if self.baseline is None:
            return self.value
        return self.value * self.baseline.output_tok_s_per_gpu

    def text(self) -> str:
        """Say the claimed figure."""
        if self.baseline is None:
            return f"{self.value:,.0f} {self.unit}"
        return f"{self.value:g} times {self.baseline.title}"

    def standing(self) -> str:
        """Say what everybody who reads the figure must know of it."""
        verified = "verified by MLCommons" if self.verified else "unverified"
        if self.limits:
            return f"{verified}, {self.scenario.capitalize()}, under latency limits"
        return f"{verified}, {self.scenario.capitalize()}, no latency limit"
