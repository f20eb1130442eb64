"""PromQL, made from the metrics of `loadstone.vocabulary`.

House rules: a rate before any sum; `sum by (le, ...)` inside a quantile; whatever
divides drops denominators of zero, so that idle time is a gap and not NaN; an
attainment is counted at a bound that the histogram has. Every selector carries the
dashboard's variables that its labels allow, and nothing else.
"""

import re
from collections.abc import Iterator
from typing import Final

from loadstone.errors import UsageError
from loadstone.vocabulary import Client, MetricSpec, Server, Supervisor

RATE: Final = "$__rate_interval"
RANGE: Final = "$__range"


def specs_of(side: type) -> dict[str, MetricSpec]:
    """Return the metrics that one side exports, by name."""
    found = (spec for spec in vars(side).values() if isinstance(spec, MetricSpec))
    return {spec.name: spec for spec in found}


CLIENT: Final = specs_of(Client)
SERVER: Final = specs_of(Server) | specs_of(Supervisor)

_VARIABLES: Final = {
    "scenario": "scenario", "tenant": "tenant", "model_name": "model", "rack": "rack",
    "vm": "vm",
}  # fmt: skip
"""Which variable of the dashboards filters which label."""
_PLACE: Final = "on (job, instance, engine) group_left (rack, vm, gpus)"
_PARTS: Final = ("bucket", "sum", "count")
_SPECS: Final = {
    name: spec
    for spec in (*CLIENT.values(), *SERVER.values())
    for name in (
        [f"{spec.name}_{part}" for part in _PARTS]
        if spec.kind == "histogram"
        else [spec.wire_name]
    )
}
"""Every series that is exported, by the name it has in Prometheus."""
_SELECTED: Final = re.compile(r"([a-zA-Z_:][\w:]*)(?=[{\[])")


def metrics_in(expr: str) -> Iterator[MetricSpec | str]:
    """Yield the metric of each selector in `expr`: its spec, or a name nobody exports.

    A selector is a name before `{` or `[`: all selectors made here have braces.
    """
    for name in _SELECTED.findall(expr):
        yield _SPECS.get(name, name)


def bound(spec: MetricSpec, seconds: float) -> str:
    """Return the `le` of one of a histogram's bounds, as it is exported."""
    if seconds not in spec.bounds:
        raise UsageError(f"{seconds:g} is no bound of {spec.name}")
    return repr(float(seconds))


def series(spec: MetricSpec, *where: str, part: str = "", whole: bool = False) -> str:
    """Return the selector of a metric's series that the dashboard's variables allow.

    `part` is a histogram's `bucket`, `sum` or `count`; `where` are more matchers;
    `whole` leaves out all variables but the job's.
    """
    job = "job" if spec.name in CLIENT else "server"
    name = f"{spec.name}_{part}" if part else spec.wire_name
    matchers = [f'job=~"${job}"']
    if not whole:
        matchers += [
            f'{label}=~"${variable}"'
            for label, variable in _VARIABLES.items()
            if label in spec.labels
        ]
    return f"{name}{{{', '.join([*matchers, *where])}}}"


def rate(
    spec: MetricSpec, *where: str, by: str = "", part: str = "", whole: bool = False
) -> str:
    """Return a counter's increase per second, summed (`by` some labels)."""
    inner = series(spec, *where, part=part, whole=whole)
    return f"sum{_by(by)}(rate({inner}[{RATE}]))"


def level(spec: MetricSpec, *where: str, by: str = "", how: str = "sum") -> str:
    """Return a gauge's or counter's value, put together by `how` (sum, max, avg)."""
    return f"{how}{_by(by)}({series(spec, *where)})"


def placed(
    spec: MetricSpec, *where: str, by: str = "", how: str = "sum", per_gpu: bool = False
) -> str:
    """Return a metric of engines, put together by where they are (rack, vm, gpus).

    Counters as rates, gauges as levels; `per_gpu` divides by an engine's GPUs. Which
    engines are meant is said by their place alone: a mock serves one model.
    """
    found = series(spec, *where, whole=True)
    if spec.kind == "counter":
        found = f"rate({found}[{RATE}])"
    gpus = series(Server.ENGINE_GPUS)
    join = f"/ {_PLACE} {gpus}" if per_gpu else f"* {_PLACE} ({gpus} > bool 0)"
    return f"{how}{_by(by)}({found} {join})"


def increase(spec: MetricSpec, by: str = "") -> str:
    """Return what a counter grew by over the dashboard's time range."""
    return f"sum{_by(by)}(increase({series(spec)}[{RANGE}]))"


def ratio(numerator: str, denominator: str) -> str:
    """Divide, where there is something to divide by."""
    return f"{numerator} / ({denominator} > 0)"


def mean(spec: MetricSpec) -> str:
    """Return a histogram's mean."""
    return ratio(rate(spec, part="sum"), rate(spec, part="count"))


def quantile(q: float, spec: MetricSpec, by: str = "") -> str:
    """Return a histogram's quantile, interpolated within a bucket."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q:g}, {rate(spec, by=labels, part='bucket')})"


def attainment(spec: MetricSpec, variable: str) -> str:
    """Return the share of a histogram's values within the bound in `variable`."""
    within = rate(spec, f'le="${variable}"', part="bucket")
    return ratio(within, rate(spec, part="count"))


def buckets(spec: MetricSpec) -> str:
    """Return what falls into each bucket per second, for a heatmap."""
    return rate(spec, by="le", part="bucket")


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""
