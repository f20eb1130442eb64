"""An accelerator as its data sheet has it: peaks, memory, links."""

from dataclasses import dataclass
from typing import Final

from ..errors import NotModelledError

PRECISIONS: Final = ("fp4", "fp8", "bf16")
"""Of GEMM operands. `fp4` stands for NVFP4 and MXFP4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One GPU: dense peaks in TFLOPS, memory in bytes and bytes/s, links in bytes/s.

    A peak is None where the tensor cores do not have the precision.
    """

    name: str
    family: str
    """Generation of the chip, which shares kernels: hopper, blackwell, cdna3, cdna4."""
    fp4_dense_tflops: float | None
    fp8_dense_tflops: float | None
    bf16_dense_tflops: float
    hbm_bytes: float
    hbm_bytes_per_s: float
    link_bytes_per_s: float
    """To its peers in the scale-up domain, one way."""
    domain_gpus: int
    """GPUs of a scale-up domain."""
    power_limit_w: float
    """What the board may draw, which is what bounds the clock of its tensor cores."""

    def __post_init__(self) -> None:
        """Refuse what no accelerator could be."""
        rates = (
            self.bf16_dense_tflops, self.hbm_bytes, self.hbm_bytes_per_s,
            self.link_bytes_per_s, self.domain_gpus, self.power_limit_w,
        )  # fmt: skip
        # Asked in the affirmative: whatever is compared with a NaN is False.
        if not all(rate > 0 for rate in rates):
            raise ValueError(f"not an accelerator: {self!r}")

    def flops(self, precision: str) -> float:
        """Return the dense peak in FLOP/s for GEMMs whose weights have `precision`.

        Where the tensor cores lack it the weights are widened: to bf16, as kernels for
        4-bit weights do on Hopper and CDNA3. Raises `NotModelledError` for a precision
        that is none of `PRECISIONS`.
        """
        if precision not in PRECISIONS:
            raise NotModelledError(
                f"precision {precision!r} is none of {', '.join(PRECISIONS)}"
            )
        peak = {"fp4": self.fp4_dense_tflops, "fp8": self.fp8_dense_tflops}.get(
            precision
        )
        return (peak or self.bf16_dense_tflops) * 1e12
