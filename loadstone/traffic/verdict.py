"""Whether a run's numbers can be believed, and why not.

A verdict is about the instrument, not about the server: a slow server measured well is
`ok`. The first verdict that applies is given, with every reason that was found.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil
from typing import Any, Final

from ..errors import ExitCode
from ..units import Seconds

MAX_TTFT_ERROR_S: Final = 0.005
"""p99 of client TTFT minus the server's truth above which TTFT is not to be
believed."""
MAX_LOOP_LAG_S: Final = 0.005
"""p99 lateness of the client's event loop above which its stamps are not to be
believed."""
MAX_RECV_LAG_S: Final = 0.005
"""p99 of the time that bytes lay in the client's kernel above which its stamps are not
to be believed."""
MAX_SEND_LAG_S: Final = 0.05
"""p99 send lag above which the asked schedule was not the one delivered."""
MIN_DELIVERED: Final = 0.99
"""Least share of the intended requests that must have been sent."""
MAX_SERVER_LAG_S: Final = 0.005
"""p99 lateness of the mock's first tokens, against its own schedule, above which this
machine does not keep the emulated timing."""
MIN_SAMPLES: Final = 100
"""Requests below which a p99 is only the maximum."""
VITALS: Final[Mapping[str, tuple[float, str]]] = {
    "gc_share": (0.01, "garbage collections stood the client still for {}"),
    "disk_share": (0.01, "writes of rows stood the client still for {}"),
    "cpu_share": (0.95, "the client needed a core for {}: give it more workers"),
    "cpu_wait_share": (0.25, "other processes kept the client off the core for {}"),
    "steal_share": (0.1, "the hypervisor gave the machine's cores to others for {}"),
}
"""Of each share of the run's time the most that is let pass, and what more means. A
stop of 1 % of the time is in every p99. A core is never had at once by who shares it,
and a quarter of the time is where the loop's lag follows in trials."""


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
    recv_lag_p99: Seconds | None = None
    """The same of the time between the kernel's receive stamp and the read."""
    vitals: Mapping[str, float] = field(default_factory=dict)
    """Shares of the run's time, by the names in `VITALS`."""
    send_lag_p99: Seconds | None = None
    scheduled: int | None = None
    """Requests the schedule intended so far; None for a closed loop."""
    sent: int = 0
    server_lag_p99: Seconds | None = None
    """The mock's own lateness, where the server tells it."""
    beyond_profile: str | None = None
    """Why the load is beyond what the machine's selfcheck found, if it is."""
    workers_lost: int = 0
    """Processes of the load generator that never handed their totals in."""
    without_socket: int = 0
    """Requests for which this machine had no descriptor or no port left."""


def judge(evidence: Evidence) -> tuple[Verdict, list[str]]:
    """Return the verdict and its reasons, the reasons of weaker verdicts included."""
    findings = [*_client(evidence), *_rate(evidence), *_samples(evidence)]
    verdict = findings[0][0] if findings else Verdict.OK
    return verdict, [reason for _, reason in findings]


def _client(e: Evidence) -> list[tuple[Verdict, str]]:
    found = []
    error = e.ttft_error.get("p99")
    loop_late = e.loop_lag_p99 is not None and e.loop_lag_p99 > MAX_LOOP_LAG_S
    if error is not None and error > MAX_TTFT_ERROR_S:
        found.append(
            f"TTFT was read {_beyond(error)} late at p99 against the server's truth"
            f" (limit {_ms(MAX_TTFT_ERROR_S)})"
            + ("" if loop_late else ": a stall of the server, or of this machine")
        )
    if e.loop_lag_p99 is not None and loop_late:
        found.append(
            f"the client's event loop was {_beyond(e.loop_lag_p99)} late at p99"
            f" (limit {_ms(MAX_LOOP_LAG_S)})"
        )
    if e.recv_lag_p99 is not None and e.recv_lag_p99 > MAX_RECV_LAG_S:
        found.append(
            f"answers lay in the client's kernel for {_beyond(e.recv_lag_p99)} at p99"
            f" (limit {_ms(MAX_RECV_LAG_S)})"
        )
    found += [
        f"{text.format(f'{e.vitals[name]:.1%} of the run')} (limit {limit:.0%})"
        for name, (limit, text) in VITALS.items()
        if e.vitals.get(name, 0.0) > limit
    ]
    if e.server_lag_p99 is not None and e.server_lag_p99 > MAX_SERVER_LAG_S:
        found.append(
            f"the mock wrote first tokens {_beyond(e.server_lag_p99)} late at p99"
            f" (limit {_ms(MAX_SERVER_LAG_S)}): this machine is too slow for the load"
        )
    if e.beyond_profile is not None:
        found.append(e.beyond_profile)
    if e.without_socket:
        found.append(
            f"for {e.without_socket} requests this machine had no descriptor or port"
            " left: raise `ulimit -n`, or spread the load over hosts"
        )
    return [(Verdict.CLIENT_LIMITED, reason) for reason in found]


def _rate(e: Evidence) -> list[tuple[Verdict, str]]:
    found = []
    if e.workers_lost:
        found.append(f"{e.workers_lost} of the load generator's workers were lost")
    if e.scheduled is not None and e.sent < MIN_DELIVERED * e.scheduled:
        found.append(f"{e.sent} of {e.scheduled} intended requests were sent")
    late = e.send_lag_p99 is not None and e.send_lag_p99 > MAX_SEND_LAG_S
    if e.scheduled is not None and e.send_lag_p99 is not None and late:
        found.append(
            f"requests were sent {_beyond(e.send_lag_p99)} late at p99"
            f" (limit {_ms(MAX_SEND_LAG_S)}): the cap on requests in flight, or the"
            " client"
        )
    return [(Verdict.RATE_NOT_DELIVERED, reason) for reason in found]


def _ms(seconds: Seconds) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _beyond(seconds: Seconds) -> str:
    """Write what is above its limit, rounded up, so that it reads so."""
    return _ms(ceil(seconds * 1e4) / 1e4)


def _samples(e: Evidence) -> list[tuple[Verdict, str]]:
    if e.samples >= MIN_SAMPLES:
        return []
    reason = f"{e.samples} answered requests; p99 needs {MIN_SAMPLES}"
    return [(Verdict.TOO_FEW_SAMPLES, reason)]


def exit_code(summary: Mapping[str, Any]) -> ExitCode:
    """Say in a number how a run went: not valid comes before not met."""
    if summary["instrument"]["verdict"] != Verdict.OK or not summary["complete"]:
        return ExitCode.NOT_VALID
    if any(slo["met"] is False for slo in summary["slo"]):
        return ExitCode.NOT_MET
    return ExitCode.DONE
