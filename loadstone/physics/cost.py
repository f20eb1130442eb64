"""What serving costs: rent over the time it was rented for."""

from dataclasses import dataclass
from typing import Any

from ..units import HOUR, MILLION, Seconds, Tokens, Usd


@dataclass(frozen=True, slots=True)
class Rent:
    """`vms` machines at `usd_per_vm_hour`; the assumptions to print beside a figure."""

    usd_per_vm_hour: Usd
    vms: float
    assumptions: tuple[str, ...]

    def total(self, window: Seconds) -> Usd:
        """Return what `window` seconds of all machines cost, busy or idle."""
        return self.usd_per_vm_hour * self.vms * window / HOUR

    def summary(
        self, window: Seconds, requests: int, output_tokens: Tokens
    ) -> dict[str, Any]:
        """Spread the bill of `window` over what was answered in it.

        Failed requests and idle time are paid for by the answered ones. A figure with
        nothing to divide by is None.
        """
        total = self.total(window)
        return {
            "currency": "USD",
            "usd_total": total,
            "usd_per_request": total / requests if requests else None,
            "usd_per_million_output_tokens": (
                total / output_tokens * MILLION if output_tokens else None
            ),
            "basis": "rent",
            "assumptions": [
                f"{self.vms:g} VM for {window:.1f} s, idle time included",
                *self.assumptions,
            ],
        }  # fmt: skip


def no_price(reason: str) -> dict[str, Any]:
    """Return the cost block of a run without a price: no figure, and why."""
    return {
        "currency": "USD",
        "usd_total": None,
        "usd_per_request": None,
        "usd_per_million_output_tokens": None,
        "basis": None,
        "assumptions": [reason],
    }
