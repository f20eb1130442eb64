"""*Latency*: where the time goes, and who says so.

Client and server stand on one panel: what lies between them is the network, the queue
in front of the server's clock, and the client's own lag.
"""

from loadstone.vocabulary import Client, Server

from .grafana import Panel, Query, Row, dashboard, heatmap, timeseries
from .normal import Json
from .queries import buckets, mean
from .shared import compared, percentiles, scope


def latency() -> Json:
    """Return the dashboard's JSON."""
    return dashboard(
        "loadstone-latency",
        "loadstone / Latency",
        "Distributions, phases, and the same latency seen from both sides.",
        rows=[
            Row("Distributions, as clients see them", [(9, _distributions())]),
            Row("Client against server", [(8, _sides())]),
            Row("From due against from send", [(8, _due())]),
            Row("Between tokens", [(8, _gaps())]),
            Row("Phases on the server", [(8, _phases())]),
        ],
        variables=scope(),
    )


def _distributions() -> list[Panel]:
    text = "Answers per second in each bucket. Bands are what percentiles hide."
    return [
        heatmap(name, text, Query(buckets(spec), "{{le}}"), unit="s")
        for name, spec in (
            ("Time to first token", Client.TTFT),
            ("Time per output token", Client.TPOT),
        )
    ]


def _sides() -> list[Panel]:
    return [
        compared(
            "TTFT: client against server",
            "The client's clock starts at the first byte sent, the server's at the"
            " request's arrival. A gap beyond the network's round trip is lag of one of"
            " them. Both are interpolated within the same buckets.",
            {"client": Client.TTFT, "server": Server.TTFT},
        ),
        compared(
            "TPOT: client against server",
            "One value per request on both sides. A reader that is held up does not"
            " change it much; a server that writes in bursts does.",
            {"client": Client.TPOT, "server": Server.TPOT},
        ),
        compared(
            "End to end: client against server",
            "From the first byte sent, and from the request's arrival, to the end of"
            " the answer.",
            {"client": Client.E2E, "server": Server.E2E},
        ),
    ]


def _due() -> list[Panel]:
    return [
        compared(
            "TTFT from due against from send",
            "From the time the request was due, as its user would feel it, and from the"
            " first byte sent. They part when requests wait for a place in flight or"
            " the client is late.",
            {"from due": Client.TTFT_INTENDED, "from send": Client.TTFT},
        ),
        compared(
            "Response time from due against end to end from send",
            "The whole answer, likewise. Measuring from send alone hides a server that"
            " makes its clients wait (coordinated omission).",
            {"from due": Client.RESPONSE_TIME, "from send": Client.E2E},
        ),
        percentiles(
            "Send lag",
            "Actual minus intended send time: the client's own lag, and the wait for a"
            " place in flight.",
            Client.SEND_LAG,
        ),
    ]


def _gaps() -> list[Panel]:
    return [
        percentiles(
            "Gaps between chunks, client",
            "Time between content events of an answer, pooled over requests.",
            Client.ICL,
        ),
        heatmap(
            "Gaps between chunks, client",
            "Gaps per second in each bucket.",
            Query(buckets(Client.ICL), "{{le}}"),
            unit="s",
        ),
        percentiles(
            "Time between tokens, server",
            "Time between tokens of an answer, as the server's engine made them.",
            Server.ITL,
        ),
    ]


def _phases() -> list[Panel]:
    return [
        timeseries(
            "Mean time in each phase",
            "Where an average request spends its time on the server: waiting to be"
            " scheduled, prefilling its prompt, decoding its answer.",
            [
                Query(mean(Server.QUEUE_TIME), "queue"),
                Query(mean(Server.PREFILL_TIME), "prefill"),
                Query(mean(Server.DECODE_TIME), "decode"),
            ],
            unit="s",
            stacked=True,
        ),
        percentiles(
            "Queue",
            "From arrival to the first step it was scheduled in. vLLM's first bucket"
            " ends at 0.3 s: below it only the mean is exact.",
            Server.QUEUE_TIME,
        ),
        percentiles(
            "Prefill",
            "From first scheduled to first token. Below 0.3 s only the mean is exact.",
            Server.PREFILL_TIME,
        ),
        percentiles(
            "Decode",
            "From first token to last token.",
            Server.DECODE_TIME,
        ),
    ]
