"""What several dashboards have: variables, objectives and lines of percentiles."""

from typing import Final

from loadstone.units import MILLION
from loadstone.vocabulary import Client, MetricSpec, Server

from . import grafana
from .grafana import NO_PRICE, Panel, Query, Variable
from .queries import bound, level, mean, quantile, rate, ratio, series

QUANTILES: Final = (0.5, 0.9, 0.95, 0.99)
TOKENS: Final = "count:tok"
TOKENS_PER_S: Final = "count:tok/s"
NO_LOOKUP: Final = "no prefix looked up"
"""There is no traffic, or no prefix cache: a series cannot tell."""
ATTAINMENT: Final = (("red", 0.0), ("orange", 0.95), ("green", 0.99))
"""Steps of a share that should be near 1."""
RARE: Final = (("green", 0.0), ("orange", 0.001), ("red", 0.01))
"""Steps of a share that should be near 0."""
FILLING: Final = (("green", 0.0), ("orange", 0.9), ("red", 0.98))
"""Steps of how full something is."""
NOBODY_WAITS: Final = (("green", 0.0), ("orange", 1.0))
"""Steps of a count that should be 0."""

TTFT_SLO: Final = (0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0)
TPOT_SLO: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2)
RESPONSE_SLO: Final = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0)


def scope() -> list[Variable]:
    """Return the variables of every dashboard, each within the choice before it."""
    requests, running = Client.REQUESTS.wire_name, Server.RUNNING.name
    job, server = 'job=~"$job"', 'job=~"$server"'
    within = f'{job}, scenario=~"$scenario"'
    return [
        grafana.datasource_variable(),
        *(
            grafana.query_variable(name, label, f"label_values({query})")
            for name, label, query in (
                ("job", "Load generator", f"{Client.WORKERS.name}, job"),
                ("scenario", "Scenario", f"{requests}{{{job}}}, scenario"),
                ("tenant", "Tenant", f"{requests}{{{within}}}, tenant"),
                ("server", "Server", f"{running}, job"),
                ("model", "Model", f"{running}{{{server}}}, model_name"),
            )
        ),
    ]


def objectives() -> list[Variable]:
    """Return the variables of the SLOs: bounds of the histograms they are counted in.

    A value between two bounds would need a guess at what lies between.
    """
    return [
        _objective("ttft_slo", "TTFT SLO", Client.TTFT_INTENDED, TTFT_SLO, 0.5),
        _objective("tpot_slo", "TPOT SLO", Client.TPOT, TPOT_SLO, 0.05),
        _objective(
            "response_slo", "Response SLO", Client.RESPONSE_TIME, RESPONSE_SLO, 10.0
        ),
    ]


def _objective(
    name: str,
    label: str,
    spec: MetricSpec,
    limits: tuple[float, ...],
    default: float,
) -> Variable:
    options = {_spoken(limit): bound(spec, limit) for limit in limits}
    return grafana.choice_variable(name, label, options, _spoken(default))


def _spoken(seconds: float) -> str:
    return f"{seconds * 1e3:g} ms" if seconds < 1 else f"{seconds:g} s"


def percentiles(
    title: str, text: str, spec: MetricSpec, *, unit: str = "s", by: str = ""
) -> Panel:
    """Draw a histogram's percentiles and its mean."""
    lines = [Query(quantile(q, spec, by), f"p{q * 100:g}") for q in QUANTILES]
    return grafana.timeseries(
        title, text, [*lines, Query(mean(spec), "mean")], unit=unit
    )


def compared(
    title: str, text: str, sides: dict[str, MetricSpec], *, unit: str = "s"
) -> Panel:
    """Draw the median and the p99 of the same thing seen from two sides."""
    lines = [
        Query(quantile(q, spec), f"{side} p{q * 100:g}")
        for side, spec in sides.items()
        for q in (0.5, 0.99)
    ]
    return grafana.timeseries(title, text, lines, unit=unit)


def parts(
    title: str, text: str, spec: MetricSpec, by: str, *where: str, unit: str = "reqps"
) -> Panel:
    """Draw a counter's rate, stacked by the values of some labels."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    line = Query(rate(spec, *where, by=by), legend)
    return grafana.timeseries(title, text, [line], unit=unit, stacked=True)


def tokens(title: str, text: str, output: MetricSpec, prompt: MetricSpec) -> Panel:
    """Draw tokens per second, out and in."""
    lines = [Query(rate(output), "output"), Query(rate(prompt), "input")]
    return grafana.timeseries(title, text, lines, unit=TOKENS_PER_S)


def in_flight() -> Panel:
    """Count the requests that are on their way."""
    return grafana.stat(
        "In flight",
        "Requests sent and not ended.",
        Query(level(Client.IN_FLIGHT)),
        unit="short",
    )


def cost_per_request() -> str:
    """Return US dollars per answered request: of the whole run, idle time included."""
    answered = rate(Client.REQUESTS, 'outcome="ok"', whole=True)
    return ratio(rate(Client.COST, whole=True), answered)


def cost_per_million() -> str:
    """Return the same per million output tokens."""
    output = rate(Client.OUTPUT_TOKENS, whole=True)
    return f"{ratio(rate(Client.COST, whole=True), output)} * {MILLION:.0f}"


def spent() -> Panel:
    """Draw what the run has cost."""
    return grafana.timeseries(
        "Spent so far",
        "US dollars since the run began, by what they were spent on.",
        [Query(level(Client.COST, by="basis"), "{{basis}}")],
        unit="currencyUSD",
        empty=NO_PRICE,
    )


def waiting() -> Panel:
    """Count the requests that wait."""
    return grafana.stat(
        "Waiting",
        "Requests that wait to be scheduled.",
        Query(level(Server.WAITING)),
        unit="short",
        steps=NOBODY_WAITS,
    )


def verdict() -> Panel:
    """Name the verdict of the run that is on."""
    value = f"max by (verdict) ({series(Client.VERDICT)}) == 1"
    return grafana.stat(
        "Verdict",
        "What the run would be stamped with now: whether its figures can be believed."
        " It is about the client, not about the server.",
        Query(value, "{{verdict}}"),
        unit="none",
        named=True,
        empty="no run",
    )


def not_answered() -> str:
    """Return the share of ended requests that were not answered whole."""
    bad = rate(Client.REQUESTS, 'outcome!="ok"')
    return ratio(bad, rate(Client.REQUESTS))
