"""*RAG pipeline*: where a request's time goes that retrieves before it generates.

Needs a run with a pipeline (`loadstone run rag`); others have none of these series.
"""

from typing import Final

from loadstone.vocabulary import Client

from .grafana import Panel, Query, Row, dashboard, stat, timeseries
from .normal import Json
from .queries import bound, mean, quantile, rate, ratio
from .shared import ATTAINMENT, RARE, compared, percentiles, scope

NO_LABELS: Final = "no labels"
"""Nobody said which documents answer the questions."""
NO_PIPELINE: Final = "no pipeline"


def rag() -> Json:
    """Return the dashboard's JSON."""
    return dashboard(
        "loadstone-rag",
        "loadstone / RAG pipeline",
        "Stages of a retrieval-augmented answer: how long, what share, how well found.",
        rows=[
            Row("", [(4, _head())]),
            Row("Stages", [(9, _durations())]),
            Row("Share of the whole", [(9, [_shares()])]),
            Row("Retrieval", [(8, _retrieval())]),
            Row("First token", [(8, _first())]),
        ],
        variables=scope()[:4],
    )


def _pipelines() -> str:
    return rate(Client.STAGE_TIME, 'stage="generate"', part="count")


def _empty() -> str:
    none = f'le="{bound(Client.RETRIEVED, 0.0)}"'
    return rate(Client.RETRIEVED, none, part="bucket")


def _searches() -> str:
    return rate(Client.RETRIEVED, part="count")


def _head() -> list[Panel]:
    return [
        stat(
            "Pipelines",
            "Pipelines answered per second.",
            Query(_pipelines()),
            unit="reqps",
            empty=NO_PIPELINE,
        ),
        stat(
            "TTFT p99",
            "From the pipeline's begin to the first token: what its user waits.",
            Query(quantile(0.99, Client.TTFT)),
            unit="s",
        ),
        stat(
            "Generation TTFT p99",
            "From asking for the answer to its first token: the model server's part.",
            Query(quantile(0.99, Client.GENERATION_TTFT)),
            unit="s",
            empty=NO_PIPELINE,
        ),
        stat(
            "Recall",
            "Share of the labelled documents that searches brought, mean.",
            Query(mean(Client.RECALL)),
            unit="percentunit",
            steps=ATTAINMENT,
            empty=NO_LABELS,
        ),
        stat(
            "Empty searches",
            "Share of the searches that brought no passage.",
            Query(ratio(_empty(), _searches())),
            unit="percentunit",
            steps=RARE,
            empty=NO_PIPELINE,
        ),
    ]


def _durations() -> list[Panel]:
    return [
        timeseries(
            f"Time in each stage, p{q * 100:g}",
            "Interpolated within buckets. Stages follow each other without a gap; their"
            " percentiles do not add up, since no request is at that rank in all.",
            [Query(quantile(q, Client.STAGE_TIME, "stage"), "{{stage}}")],
            unit="s",
            empty=NO_PIPELINE,
        )
        for q in (0.5, 0.99)
    ]


def _shares() -> Panel:
    each = rate(Client.STAGE_TIME, by="stage", part="sum")
    whole = rate(Client.STAGE_TIME, part="sum")
    return timeseries(
        "Share of end to end",
        "Of all time that pipelines took, what each stage had. `summary.json` has the"
        " shares of typical and of slow requests apart, under `stages`.",
        [Query(f"{each} / on () group_left () ({whole} > 0)", "{{stage}}")],
        unit="percentunit",
        stacked=True,
        empty=NO_PIPELINE,
    )


def _retrieval() -> list[Panel]:
    return [
        timeseries(
            "Searches with and without a hit",
            "Searches per second that brought a passage, and that brought none.",
            [
                Query(f"{_searches()} - {_empty()}", "found"),
                Query(_empty(), "empty"),
            ],
            unit="reqps",
            stacked=True,
            empty=NO_PIPELINE,
        ),
        timeseries(
            "Passages per search",
            "Mean number of passages that a search brought.",
            [Query(mean(Client.RETRIEVED), "passages")],
            unit="short",
            empty=NO_PIPELINE,
        ),
        timeseries(
            "Recall",
            "Share of a labelled question's documents that its search brought, mean.",
            [Query(mean(Client.RECALL), "recall")],
            unit="percentunit",
            empty=NO_LABELS,
        ),
    ]


def _first() -> list[Panel]:
    return [
        compared(
            "First token: of the pipeline against of the answer",
            "What lies between is counting, embedding, retrieving and assembling.",
            {"pipeline": Client.TTFT, "answer": Client.GENERATION_TTFT},
        ),
        percentiles(
            "Generation TTFT",
            "From asking for the answer to its first token.",
            Client.GENERATION_TTFT,
        ),
    ]
