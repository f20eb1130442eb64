"""Totals of pipelines: by stage, mergeable, and absent where there is none."""

import json

from msgspec.structs import replace

from loadgen.pipelines import PipelineStats
from loadgen.stats import ClientStats, total
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.vocabulary import Client

ROW = RequestRecord(
    id="1", scenario="rag", intended_s=0.0, sent_s=0.0, first_s=0.4, last_s=1.0,
    end_s=1.1, outcome=Outcome.OK, hits=4, recall=0.5,
    stages=(("embed", 0.1), ("retrieve", 0.004), ("generate", 0.996)),
)  # fmt: skip


def read(stats: PipelineStats) -> dict[tuple[str, tuple[str, ...]], tuple[int, float]]:
    """Return count and sum of every series."""
    return {
        (spec.name, labels): (array.count, array.total)
        for spec, found in stats.read()
        for labels, array in found
    }


def test_each_stage_has_a_histogram_of_its_own() -> None:
    """Sums are those of the rows, under the labels of the metric."""
    stats = PipelineStats()
    stats.add(ROW)
    stats.add(replace(ROW, tenant="b", hits=None, recall=None))
    stage, whose = Client.STAGE_TIME.name, ("rag", "default")
    found = read(stats)
    assert found[stage, (*whose, "embed")] == (1, 0.1)
    assert found[stage, ("rag", "b", "retrieve")] == (1, 0.004)
    assert found[Client.RETRIEVED.name, whose] == (1, 4)
    assert found[Client.RECALL.name, whose] == (1, 0.5)
    assert (Client.RECALL.name, ("rag", "b")) not in found
    count, ttft = found[Client.GENERATION_TTFT.name, whose]
    assert (count, round(ttft, 9)) == (1, 0.296)
    for spec, series in stats.read():
        assert all(len(labels) == len(spec.labels) for labels, _ in series)


def test_other_rows_make_no_series() -> None:
    """A chat, a failure and the warm-up leave it empty."""
    stats = PipelineStats()
    for row in (
        replace(ROW, stages=()),
        replace(ROW, outcome=Outcome.FAILED),
        replace(ROW, warmup=True),
    ):
        stats.add(row)
    assert read(stats) == {}


def test_processes_add_up() -> None:
    """Through JSON, as workers ship it."""
    one, two = ClientStats(), ClientStats()
    one.add(ROW)
    two.add(ROW)
    two.add(replace(ROW, hits=0))
    whole = total(json.loads(json.dumps(s.snapshot())) for s in (one, two))
    single = PipelineStats()
    for row in (ROW, ROW, replace(ROW, hits=0)):
        single.add(row)
    assert read(whole.pipelines) == read(single)
