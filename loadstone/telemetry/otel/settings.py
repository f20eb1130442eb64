"""What the standard environment variables ask for; imports no OpenTelemetry.

Endpoints, headers, certificates, compression and timeouts are the exporter's own
business: it reads the same environment. Here is decided whether there is an exporter at
all, and refused what it could not do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal

from ...errors import UsageError
from ...genai import CONVENTION_VARIABLE, CONVENTIONS, Convention
from ...units import MS, Seconds

Signal = Literal["traces", "metrics"]

DEFAULT_RATIO: Final = 0.01
DEFAULT_SAMPLER: Final = "parentbased_traceidratio"
DEFAULT_INTERVAL_S: Final = 10.0
"""Between two exports of metrics. The standard says 60 s, which many runs do not
last."""
LEAST_INTERVAL_S: Final = 0.1
PROTOCOL: Final = "http/protobuf"
TEMPORALITY: Final = "cumulative"

_SAMPLERS: Final[dict[str, float | None]] = {
    "always_on": 1.0,
    "always_off": 0.0,
    "traceidratio": None,
}
"""The ratio of each sampler, None where the argument says it. Each may have
`parentbased_` before it: then the caller's decision, where there is one, goes first."""
_PARENT_BASED: Final = "parentbased_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which signals go out, and how. `ratio` of the traces that begin here, 0 to 1."""

    signals: frozenset[Signal]
    ratio: float = DEFAULT_RATIO
    follows_parent: bool = True
    convention: Convention = "0.1.0"
    interval_s: Seconds = DEFAULT_INTERVAL_S

    @property
    def sampled(self) -> float:
        """The share of a load generator's traces that is recorded."""
        return self.ratio if "traces" in self.signals else 0.0


def read_settings(environ: Mapping[str, str]) -> Settings | None:
    """Return what the environment asks for, None if that is nothing.

    Raises `UsageError` for what is asked for and cannot be done.
    """
    signals = frozenset(s for s in _SIGNALS if _is_on(environ, s))
    if not signals or _text(environ, "OTEL_SDK_DISABLED").lower() == "true":
        return None
    for signal in sorted(signals):
        _check_protocol(environ, signal)
    _check_temporality(environ)
    ratio, follows_parent = _sampler(environ)
    return Settings(
        signals=signals,
        ratio=ratio,
        follows_parent=follows_parent,
        convention=_convention(environ),
        interval_s=_interval(environ),
    )


_SIGNALS: Final[tuple[Signal, ...]] = ("traces", "metrics")


def _text(environ: Mapping[str, str], name: str) -> str:
    """Return a variable; the standard treats an empty one like one that is not set."""
    return environ.get(name, "").strip()


def _for_signal(environ: Mapping[str, str], signal: Signal, what: str) -> str:
    own = _text(environ, f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}")
    return own or _text(environ, f"OTEL_EXPORTER_OTLP_{what}")


def _is_on(environ: Mapping[str, str], signal: Signal) -> bool:
    exporters = _text(environ, f"OTEL_{signal.upper()}_EXPORTER").lower() or "otlp"
    chosen = "otlp" in (name.strip() for name in exporters.split(","))
    return chosen and bool(_for_signal(environ, signal, "ENDPOINT"))


def _check_protocol(environ: Mapping[str, str], signal: Signal) -> None:
    protocol = _for_signal(environ, signal, "PROTOCOL").lower() or PROTOCOL
    if protocol != PROTOCOL:
        raise UsageError(
            f"OTLP over {protocol} is not spoken here, only over {PROTOCOL}",
            hint=f"set OTEL_EXPORTER_OTLP_PROTOCOL={PROTOCOL} and name the collector's"
            " HTTP port (4318); gRPC would stall every stamp of a load generator",
        )


def _check_temporality(environ: Mapping[str, str]) -> None:
    name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    asked = _text(environ, name).lower() or TEMPORALITY
    if asked != TEMPORALITY:
        raise UsageError(
            f"{name}={asked}: metrics are exported as {TEMPORALITY} sums only",
            hint="let the collector convert them (cumulativetodelta)",
        )


def _sampler(environ: Mapping[str, str]) -> tuple[float, bool]:
    """Return the ratio, and whether the caller's decision goes first."""
    asked = _text(environ, "OTEL_TRACES_SAMPLER").lower()
    name = (asked or DEFAULT_SAMPLER).removeprefix(_PARENT_BASED)
    if name not in _SAMPLERS:
        known = ", ".join((*_SAMPLERS, *(_PARENT_BASED + s for s in _SAMPLERS)))
        raise UsageError(f"no sampler OTEL_TRACES_SAMPLER={asked}", hint=known)
    ratio = _SAMPLERS[name]
    if ratio is None:
        # The standard's default is 1, which suits a service; a load generator that
        # traced every request would be measured with its tracing.
        unset = 1.0 if asked else DEFAULT_RATIO
        ratio = _number(environ, "OTEL_TRACES_SAMPLER_ARG", unset, most=1.0)
    return ratio, not asked or asked.startswith(_PARENT_BASED)


def _convention(environ: Mapping[str, str]) -> Convention:
    asked = _text(environ, CONVENTION_VARIABLE) or CONVENTIONS[0]
    for convention in CONVENTIONS:
        if convention == asked:
            return convention
    raise UsageError(
        f"no GenAI convention {CONVENTION_VARIABLE}={asked}",
        hint=f"one of {', '.join(CONVENTIONS)}",
    )


def _interval(environ: Mapping[str, str]) -> Seconds:
    name, usual = "OTEL_METRIC_EXPORT_INTERVAL", DEFAULT_INTERVAL_S / MS
    return max(LEAST_INTERVAL_S, _number(environ, name, usual) * MS)


def _number(
    environ: Mapping[str, str], name: str, default: float, most: float = float("inf")
) -> float:
    text = _text(environ, name)
    try:
        value = float(text or default)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or not 0 <= value <= most:
        upto = f" to {most:g}" if isfinite(most) else " or more"
        raise UsageError(f"{name}={text} must be a number, 0{upto}")
    return value
