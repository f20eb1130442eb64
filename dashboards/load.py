"""*Load generator*: whether the load was delivered as asked, and can be believed.

Needs the load generator's metrics only.
"""

from loadstone.vocabulary import Client, MetricSpec

from .grafana import (
    NO_TRAFFIC,
    Column,
    Panel,
    Query,
    Row,
    bars,
    dashboard,
    stat,
    table,
    timeseries,
)
from .normal import Json
from .queries import RATE, increase, level, quantile, rate, ratio, series
from .shared import (
    NOBODY_WAITS,
    TOKENS_PER_S,
    in_flight,
    parts,
    percentiles,
    scope,
    spent,
    tokens,
    verdict,
)

NOT_MEASURED = "not measured"
"""Stands where the endpoint tells no truth to compare with."""


def load() -> Json:
    """Return the dashboard's JSON."""
    return dashboard(
        "loadstone-load",
        "loadstone / Load generator",
        "Asked against delivered load, outcomes, and the health of the instrument.",
        rows=[
            Row("", [(4, _head())]),
            Row("Schedule", [(8, _schedule())]),
            Row("Outcomes", [(8, _outcomes())]),
            Row("By scenario, tenant and stage", [(8, [_slices()])]),
            Row("Health of the client", [(8, _errors()), (8, _stops())]),
            Row("Tokens and cost", [(8, _tokens())]),
        ],
        variables=scope()[:4],
    )


def _sent() -> str:
    # No counter says "sent": it is what ended and what is on its way. The slope of the
    # latter smooths over the interval as the rate does.
    slope = f"sum(deriv({series(Client.IN_FLIGHT)}[{RATE}]))"
    return f"clamp_min({rate(Client.REQUESTS)} + {slope}, 0)"


def _waiting() -> str:
    parts = (Client.REQUESTS, Client.IN_FLIGHT, Client.DROPPED)
    left = " - ".join([level(Client.SCHEDULED), *(level(part) for part in parts)])
    return f"clamp_min({left}, 0)"


def _head() -> list[Panel]:
    return [
        stat(
            "Asked",
            "Requests per second that the schedule wants. None in a closed loop, where"
            " users ask when they are ready.",
            Query(rate(Client.SCHEDULED)),
            unit="reqps",
        ),
        stat(
            "Sent",
            "Requests sent per second: those that ended, and the growth of those in"
            " flight.",
            Query(_sent()),
            unit="reqps",
        ),
        in_flight(),
        stat(
            "Due and not sent",
            "Requests that are due and wait for a place in flight, or for a client that"
            " is late. Their time counts from when they were due.",
            Query(_waiting()),
            unit="short",
            steps=NOBODY_WAITS,
        ),
        stat(
            "Dropped",
            "Requests that were due and never sent; counted when the run ends.",
            Query(level(Client.DROPPED)),
            unit="short",
            steps=NOBODY_WAITS,
        ),
        stat(
            "Send lag p99",
            "Actual minus intended send time, 99th percentile.",
            Query(quantile(0.99, Client.SEND_LAG)),
            unit="s",
            steps=(("green", 0.0), ("red", 0.05)),
        ),
        stat(
            "Processes",
            "Processes that send requests.",
            Query(level(Client.WORKERS)),
            unit="short",
            empty="no run",
        ),
        verdict(),
    ]


def _schedule() -> list[Panel]:
    return [
        timeseries(
            "Asked against delivered",
            "Requests per second: due under the schedule, sent, and ended. Sent below"
            " asked means that the rate is not delivered; ended below sent means that"
            " requests pile up.",
            [
                Query(rate(Client.SCHEDULED), "asked"),
                Query(_sent(), "sent"),
                Query(rate(Client.REQUESTS), "ended"),
            ],
            unit="reqps",
        ),
        percentiles(
            "Send lag",
            "Actual minus intended send time. A closed loop has none.",
            Client.SEND_LAG,
        ),
        timeseries(
            "In flight, and due but not sent",
            "What is on its way, and what waits for a place.",
            [
                Query(level(Client.IN_FLIGHT, by="scenario"), "{{scenario}} in flight"),
                Query(_waiting(), "waiting"),
            ],
            unit="short",
        ),
    ]


def _outcomes() -> list[Panel]:
    return [
        parts(
            "Requests/s by outcome", "How requests ended.", Client.REQUESTS, "outcome"
        ),
        bars(
            "Outcomes in this time range",
            "Requests that ended in the time range shown. Prometheus extrapolates to"
            " its ends, so a count may not be whole; `summary.json` has the exact one.",
            Query(increase(Client.REQUESTS, by="outcome"), "{{outcome}}"),
            unit="short",
        ),
        timeseries(
            "Dropped",
            "Requests that were due and never sent, so far.",
            [Query(level(Client.DROPPED, by="scenario"), "{{scenario}}")],
            unit="short",
        ),
    ]


def _slices() -> Panel:
    by = "scenario, tenant, stage"
    requests = rate(Client.REQUESTS, by=by)
    return table(
        "Slices of the traffic",
        "The present rates of each scenario, tenant and stage (a step of a scenario,"
        " such as `generate` or `embed`).",
        {"scenario": "Scenario", "tenant": "Tenant", "stage": "Stage"},
        [
            Column(Query(requests, "Ended"), "reqps"),
            Column(
                Query(
                    ratio(rate(Client.REQUESTS, 'outcome="ok"', by=by), requests),
                    "Answered",
                ),
                "percentunit",
            ),
            Column(Query(level(Client.IN_FLIGHT, by=by), "In flight"), "short"),
            Column(Query(rate(Client.OUTPUT_TOKENS, by=by), "Output"), TOKENS_PER_S),
            *(
                Column(Query(quantile(0.99, spec, by), name), "s")
                for name, spec in (
                    ("TTFT p99, due", Client.TTFT_INTENDED),
                    ("TPOT p99", Client.TPOT),
                    ("Response p99, due", Client.RESPONSE_TIME),
                )
            ),
        ],
    )


def _by_quantile(
    title: str, text: str, spec: MetricSpec, *, empty: str = NOT_MEASURED
) -> Panel:
    """Draw an error of the instrument: its quantiles since the run began."""
    line = Query(level(spec, by="quantile", how="max"), "{{quantile}}")
    told = f"{text} By quantile, since the run began."
    return timeseries(title, told, [line], unit="s", empty=empty)


def _errors() -> list[Panel]:
    return [
        _by_quantile(
            "Event loop lag",
            "How late the client's event loop runs. Above 5 ms at the 99th percentile"
            " its stamps are not to be believed.",
            Client.LOOP_LAG,
            empty=NO_TRAFFIC,
        ),
        _by_quantile(
            "TTFT error against the mock's truth",
            "Size of the client's error. Only the mock tells the truth; other endpoints"
            " leave this empty.",
            Client.TTFT_ERROR,
        ),
        _by_quantile(
            "Lag behind the kernel",
            "From the kernel's receipt of bytes to the client's read of them.",
            Client.RECV_LAG,
        ),
        _by_quantile(
            "The mock's own lateness",
            "How late its first tokens were sent, as its answers tell: not the client's"
            " fault, and not the endpoint's.",
            Client.MOCK_LAG,
        ),
    ]


def _stops() -> list[Panel]:
    most = "max"
    return [
        timeseries(
            "Longest stops",
            "The longest garbage collection, and the longest write of rows, since the"
            " run began: the client does nothing else meanwhile.",
            [
                Query(level(Client.GC_PAUSE, how=most), "garbage"),
                Query(level(Client.DISK_STOP, how=most), "disk"),
            ],
            unit="s",
        ),
        timeseries(
            "Where the client's time goes",
            "Shares of the run's time in the worst process: cpu is used; cpu_wait and"
            " steal are a core not got; gc and disk are stops.",
            [Query(level(Client.TIME_SHARE, by="into", how=most), "{{into}}")],
            unit="percentunit",
        ),
        timeseries(
            "Verdict",
            "What the run would have been stamped with at each moment.",
            [Query(level(Client.VERDICT, by="verdict", how=most), "{{verdict}}")],
            unit="short",
            states=True,
        ),
    ]


def _tokens() -> list[Panel]:
    return [
        tokens(
            "Tokens/s in and out",
            "Prompt and output tokens of the requests that ended, per second.",
            Client.OUTPUT_TOKENS,
            Client.INPUT_TOKENS,
        ),
        parts(
            "Output tokens/s by stage",
            "Which step of the scenarios the output comes from.",
            Client.OUTPUT_TOKENS,
            "scenario, stage",
            unit=TOKENS_PER_S,
        ),
        spent(),
    ]
