"""How long a prompt's KV takes from a prefill engine to a decode engine.

    T = setup + prompt tokens x KV bytes per token / bandwidth

A 70B model with FP8 KV has 163,840 bytes per token: 0.18 us per token at the 900 GB/s
of NVLink 5, one way. Transfers out of one prefill engine are serial: each has the whole
bandwidth, the next one waits (`engine.disaggregated`). Contention at the receiver and
in the network between is not modelled.
"""

from dataclasses import dataclass

from ..units import Seconds, Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class KvTransfer:
    """The constants of the law."""

    kv_bytes_per_token: float
    bytes_per_s: float
    """Bandwidth out of one prefill engine."""
    setup_s: Seconds = 0.0
    """Of one transfer: routing, handshake, descriptors."""

    def __post_init__(self) -> None:
        """Refuse what would arrive before it was sent; raises `ValueError`."""
        # Asked in the affirmative: whatever is compared with a NaN is False.
        positive = self.kv_bytes_per_token > 0 and self.bytes_per_s > 0
        if not (positive and self.setup_s >= 0):
            raise ValueError(f"not a transfer law: {self!r}")

    def seconds(self, tokens: Tokens) -> Seconds:
        """Return how long the KV of so many tokens takes."""
        return self.setup_s + tokens * self.kv_bytes_per_token / self.bytes_per_s
