"""What a run measured, in the words that claims are made in."""

from dataclasses import dataclass

from ..units import Seconds

MIN_BATCHES = 20
"""An offline run of fewer batches than this is mostly ramp and drain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run; None where the run does not say.

    `output_tok_s` is of all `gpus` together, `counted` how it was counted.
    """

    run: str
    output_tok_s: float
    counted: str
    gpus: float
    vms: float | None
    accelerator: str
    model: str
    precision: str
    loop: str
    """How requests arrived: open, closed, trace, or offline (all at once)."""
    input_tokens_mean: float | None
    output_tokens_mean: float | None
    ttft_p99_s: Seconds | None
    """From when a request was due."""
    tpot_p99_s: Seconds | None
    batches: float | None
    """Offline: how many times the engines' batch there were requests."""
    emulated: bool
    virtual: bool
    slowdown: float
    verdict: str
    complete: bool

    @property
    def per_gpu(self) -> float:
        """Output tokens/s of one GPU."""
        return self.output_tok_s / self.gpus

    def not_valid(self) -> list[str]:
        """Say why nothing can be concluded from this run; empty if something can."""
        found = []
        if not self.complete:
            found.append("the run was stopped early")
        if self.verdict != "ok":
            found.append(f"the instrument's verdict is {self.verdict}")
        if self.batches is not None and self.batches < MIN_BATCHES:
            found.append(
                f"{self.batches:.1f} times the engines' batch is mostly ramp and drain:"
                f" an offline run needs {MIN_BATCHES} times"
            )
        if self.output_tok_s <= 0:
            found.append("no output token was counted")
        return found
