"""A run with a pipeline and a real Prometheus: the RAG dashboard shows it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from panels import chosen, filled, panel_queries
from processes import latest, mock_server, read_until, start
from prometheus_process import Prometheus, finite, prometheus

BOARD, DURATION_S = "rag.json", 8


@dataclass(frozen=True)
class Watched:
    """A Prometheus that saw a run, and when."""

    prometheus: Prometheus
    began: float
    ended: float
    recall: float

    def ask(self, panel: str, around: str = "{}") -> list[float]:
        """Return the numbers that a panel's first query finds during the run."""
        query = next(
            q for q in panel_queries() if (q.board, q.panel) == (BOARD, panel)
        )  # fmt: skip
        expr = around.format(filled(query.expr, chosen()))
        return finite(self.prometheus.range(expr, self.began, self.ended))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Drive the mock with pipelines for a while, watched."""
    folder = tmp_path_factory.mktemp("watched")
    with prometheus(folder) as server, mock_server() as url:
        process = start(
            "run", "rag", "--rate", "15", "--duration", f"{DURATION_S}s",
            "--metrics-port", "0", "--host", url, "--out", str(folder),
        )  # fmt: skip
        try:
            server.scrape(loadgen=read_until(process, "metrics  ").split()[-1])
            server.wait_for("loadstone_client_stage_duration_seconds_count > 0", 30)
            began = time.time()
            process.communicate(timeout=90)
        finally:
            process.kill()
        recall = latest(folder).summary["stages"]["retrieval"]["recall"]
        yield Watched(server, began, time.time(), recall)


def test_every_panel_shows_something(watched: Watched) -> None:
    """Each query finds numbers."""
    queries = [q for q in panel_queries() if q.board == BOARD]
    assert len(queries) > 15
    empty = {
        str(q): q.expr
        for q in queries
        if not finite(
            watched.prometheus.range(
                filled(q.expr, chosen()), watched.began, watched.ended
            )
        )
    }
    assert empty == {}


def test_shares_add_up_at_every_moment(watched: Watched) -> None:
    """Six stages of one whole."""
    (query,) = (
        q
        for q in panel_queries()
        if (q.board, q.panel) == (BOARD, "Share of end to end")
    )
    found = watched.prometheus.range(
        f"sum({filled(query.expr, chosen())})", watched.began, watched.ended
    )
    values = finite(found)
    assert values
    assert values == pytest.approx([1.0] * len(values))


def test_the_figures_are_those_of_the_run(watched: Watched) -> None:
    """Five passages a search, none empty, and the recall of the summary."""
    assert watched.ask("Passages per search")[-1] == pytest.approx(5.0)
    assert set(watched.ask("Empty searches")) == {0.0}
    assert watched.ask("Recall")[-1] == pytest.approx(watched.recall, abs=0.1)
