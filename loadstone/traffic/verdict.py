"""Whether a run's numbers can be believed, and why not.

A verdict is about the instrument, not about the server: a slow server measured well is
`ok`. The first verdict that applies is given, with every reason that was found.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ..units import Seconds

MAX_TTFT_ERROR_S: Final = 0.005
"""p99 of client TTFT minus the server's truth above which TTFT is not to be
believed."""
MAX_LOOP_LAG_S: Final = 0.005
"""p99 lateness of the client's event loop above which its stamps are not to be
believed."""
MAX_SEND_LAG_S: Final = 0.05
"""p99 send lag above which the asked schedule was not the one delivered."""
MIN_DELIVERED: Final = 0.99
"""Least share of the intended requests that must have been sent."""
MIN_SAMPLES: Final = 100
"""Requests below which a p99 is only the maximum."""


class Verdict(StrEnum):
    """What a run is stamped with."""

    OK = "ok"
    CLIENT_LIMITED = "client_limited"
    RATE_NOT_DELIVERED = "rate_not_delivered"
    TOO_FEW_SAMPLES = "too_few_samples"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of the instrument. Times in seconds; None where not measured."""

    samples: int
    ttft_error: Mapping[str, Any] = field(default_factory=dict)
    """`describe()` of client TTFT minus truth; `p99` missing where the server tells
    none."""
    loop_lag_p99: Seconds | None = None
    send_lag_p99: Seconds | None = None
    scheduled: int | None = None
    """Requests the schedule intended so far; None for a closed loop."""
    sent: int = 0


def judge(evidence: Evidence) -> tuple[Verdict, list[str]]:
    """Return the verdict and its reasons, the reasons of weaker verdicts included."""
    findings = [*_client(evidence), *_rate(evidence), *_samples(evidence)]
    verdict = findings[0][0] if findings else Verdict.OK
    return verdict, [reason for _, reason in findings]


def _client(e: Evidence) -> list[tuple[Verdict, str]]:
    found = []
    error = e.ttft_error.get("p99")
    if error is not None and error > MAX_TTFT_ERROR_S:
        found.append(
            f"the client read TTFT {error * 1e3:.1f} ms late at p99"
            f" against the server's truth (limit {MAX_TTFT_ERROR_S * 1e3:g} ms)"
        )
    if e.loop_lag_p99 is not None and e.loop_lag_p99 > MAX_LOOP_LAG_S:
        found.append(
            f"the client's event loop was {e.loop_lag_p99 * 1e3:.1f} ms late at p99"
            f" (limit {MAX_LOOP_LAG_S * 1e3:g} ms)"
        )
    return [(Verdict.CLIENT_LIMITED, reason) for reason in found]


def _rate(e: Evidence) -> list[tuple[Verdict, str]]:
    found = []
    if e.scheduled is not None and e.sent < MIN_DELIVERED * e.scheduled:
        found.append(f"{e.sent} of {e.scheduled} intended requests were sent")
    if (
        e.scheduled is not None
        and e.send_lag_p99 is not None
        and e.send_lag_p99 > MAX_SEND_LAG_S
    ):
        found.append(
            f"requests were sent {e.send_lag_p99 * 1e3:.0f} ms late at p99"
            f" (limit {MAX_SEND_LAG_S * 1e3:g} ms):"
            " the cap on requests in flight, or the client"
        )
    return [(Verdict.RATE_NOT_DELIVERED, reason) for reason in found]


def _samples(e: Evidence) -> list[tuple[Verdict, str]]:
    if e.samples >= MIN_SAMPLES:
        return []
    reason = f"{e.samples} answered requests; p99 needs {MIN_SAMPLES}"
    return [(Verdict.TOO_FEW_SAMPLES, reason)]
