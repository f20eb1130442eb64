"""*Overview*: whether the service is good enough, what it gives and what it costs.

The upper rows need the load generator's metrics only, so they work for any endpoint.
"""

from typing import Final

from loadstone.vocabulary import Client, Server

from .grafana import (
    NO_PRICE,
    Panel,
    Query,
    Row,
    dashboard,
    gauge,
    stat,
    text_variable,
    timeseries,
)
from .normal import Json
from .queries import attainment, level, quantile, rate, ratio
from .shared import (
    ATTAINMENT,
    FILLING,
    RARE,
    TOKENS_PER_S,
    cost_per_million,
    cost_per_request,
    in_flight,
    not_answered,
    objectives,
    parts,
    percentiles,
    scope,
    spent,
    tokens,
    verdict,
    waiting,
)

GPUS_OF_A_VM: Final = "4"
"""What the GPUs variable begins with: one ND GB300 v6 VM."""

_WHOLE: Final = (
    " What is paid by the hour is of all machines, idle ones too; the run as a whole,"
    " whatever scenario and tenant are chosen."
)


def overview() -> Json:
    """Return the dashboard's JSON."""
    return dashboard(
        "loadstone-overview",
        "loadstone / Overview",
        "Objectives, throughput and cost of a run, and the state of the server.",
        rows=[
            Row("", [(4, _objectives()), (4, _throughput())]),
            Row("Latency, as clients see it", [(8, _latency())]),
            Row("Throughput and outcomes", [(8, _traffic())]),
            Row("Cost", [(7, _cost())]),
            Row("Server: the mock, or a vLLM", [(7, _server())]),
        ],
        variables=[
            *scope(),
            *objectives(),
            text_variable("gpus", "GPUs", GPUS_OF_A_VM),
        ],
    )


def _objectives() -> list[Panel]:
    p99 = "99th percentile, interpolated within a bucket."
    share = "Share of answers within the SLO chosen above, counted at a bucket's bound."
    return [
        stat(
            "TTFT p99",
            f"Time to first token, from the time the request was due: {p99}",
            Query(quantile(0.99, Client.TTFT_INTENDED)),
            unit="s",
        ),
        stat(
            "TPOT p99",
            f"Time per output token after the first event: {p99}",
            Query(quantile(0.99, Client.TPOT)),
            unit="s",
        ),
        stat(
            "Response time p99",
            f"Whole answer, from the time the request was due: {p99}",
            Query(quantile(0.99, Client.RESPONSE_TIME)),
            unit="s",
        ),
        stat(
            "Success",
            "Share of ended requests that were answered whole.",
            Query(ratio(rate(Client.REQUESTS, 'outcome="ok"'), rate(Client.REQUESTS))),
            unit="percentunit",
            steps=ATTAINMENT,
        ),
        *(
            stat(
                f"{name} within SLO",
                share,
                Query(attainment(spec, variable)),
                unit="percentunit",
                steps=ATTAINMENT,
            )
            for name, spec, variable in (
                ("TTFT", Client.TTFT_INTENDED, "ttft_slo"),
                ("TPOT", Client.TPOT, "tpot_slo"),
                ("Response", Client.RESPONSE_TIME, "response_slo"),
            )
        ),
        verdict(),
    ]


def _throughput() -> list[Panel]:
    output = rate(Client.OUTPUT_TOKENS)
    return [
        stat(
            "Output tokens/s",
            "Output tokens of the requests that ended, per second.",
            Query(output),
            unit=TOKENS_PER_S,
        ),
        stat(
            "Output tokens/s/GPU",
            "The same over the number of GPUs: counted where the server's job tells"
            " them, otherwise as typed above (4 are one ND GB300 v6 VM).",
            Query(
                f"{output} / ({level(Server.GPU_UTIL, how='count')} or vector($gpus))"
            ),
            unit=TOKENS_PER_S,
        ),
        stat(
            "Input tokens/s",
            "Prompt tokens of the requests that ended, per second.",
            Query(rate(Client.INPUT_TOKENS)),
            unit=TOKENS_PER_S,
        ),
        stat(
            "Requests/s",
            "Requests that ended per second, whatever their outcome.",
            Query(rate(Client.REQUESTS)),
            unit="reqps",
        ),
        stat(
            "Not answered",
            "Share of ended requests that failed, were throttled (429), cancelled or"
            " left incomplete.",
            Query(not_answered()),
            unit="percentunit",
            steps=RARE,
        ),
        in_flight(),
        stat(
            "USD per request",
            f"US dollars per answered request.{_WHOLE}",
            Query(cost_per_request()),
            unit="currencyUSD",
            empty=NO_PRICE,
        ),
        stat(
            "USD per 1M output tok",
            f"US dollars per million output tokens.{_WHOLE}",
            Query(cost_per_million()),
            unit="currencyUSD",
            empty=NO_PRICE,
        ),
    ]


def _latency() -> list[Panel]:
    return [
        percentiles(
            "Time to first token",
            "From the first byte sent to the first content event. From due: see the"
            " tile above and *loadstone / Latency*.",
            Client.TTFT,
        ),
        percentiles(
            "Time per output token",
            "Time after the first event over the tokens after it, one value per"
            " request.",
            Client.TPOT,
        ),
        percentiles(
            "End to end",
            "From the first byte sent to the end of the answer. Below 0.3 s it is"
            " interpolated within the first bucket; the mean is exact.",
            Client.E2E,
        ),
    ]


def _traffic() -> list[Panel]:
    return [
        tokens(
            "Tokens/s",
            "Tokens of the requests that ended, per second. A long answer counts when"
            " it ends, so short spans are uneven.",
            Client.OUTPUT_TOKENS,
            Client.INPUT_TOKENS,
        ),
        parts(
            "Requests/s by outcome",
            "How requests ended. Throttled is a 429; incomplete was cut off by the end"
            " of the drain.",
            Client.REQUESTS,
            "outcome",
        ),
        parts(
            "Not answered/s by outcome",
            "The same without the answered ones: errors, throttling and cut-offs.",
            Client.REQUESTS,
            "outcome",
            'outcome!="ok"',
        ),
    ]


def _cost() -> list[Panel]:
    return [
        timeseries(
            "Cost per request",
            f"US dollars per answered request.{_WHOLE}",
            [Query(cost_per_request(), "cost per request")],
            unit="currencyUSD",
            empty=NO_PRICE,
        ),
        timeseries(
            "Cost per million output tokens",
            f"US dollars per million output tokens.{_WHOLE}",
            [Query(cost_per_million(), "cost per million")],
            unit="currencyUSD",
            empty=NO_PRICE,
        ),
        spent(),
    ]


def _server() -> list[Panel]:
    return [
        timeseries(
            "Running and waiting",
            "Requests in the engines' batches, and those that wait to be scheduled. A"
            " queue that grows means more is asked than the server can do.",
            [
                Query(level(Server.RUNNING), "running"),
                Query(level(Server.WAITING), "waiting"),
            ],
            unit="short",
        ),
        waiting(),
        gauge(
            "KV cache",
            "How full the KV cache of the fullest engine is. A full one makes requests"
            " wait, then preempts.",
            Query(level(Server.KV_USAGE, how="max")),
            unit="percentunit",
            steps=FILLING,
        ),
        tokens(
            "Server tokens/s",
            "Tokens that the engines prefilled and generated per second, as they go.",
            Server.GENERATION_TOKENS,
            Server.PROMPT_TOKENS,
        ),
    ]
