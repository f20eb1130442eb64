"""Shares of stages: each band's add up, and the tail may differ from the middle."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.stages import Stages
from loadstone.traffic.summary import summarize

NAMES = ("tokenize", "embed", "retrieve", "assemble", "generate", "postprocess")


def pipeline(*stages: tuple[str, float], **more: object) -> RequestRecord:
    """Return the row of a pipeline of these stages, sent at 1 s."""
    e2e = sum(seconds for _, seconds in stages)
    row = RequestRecord(
        id="1", scenario="rag", intended_s=1.0, sent_s=1.0, end_s=1.0 + e2e,
        outcome=Outcome.OK, stages=stages,
    )  # fmt: skip
    return replace(row, **more)


def told(rows: list[RequestRecord]) -> dict[str, dict[str, float]]:
    """Return the shares of some rows."""
    stages = Stages()
    for row in rows:
        stages.add(row)
    found = stages.summary()
    assert found is not None
    share: dict[str, dict[str, float]] = found["share"]
    return share


def test_shares_of_the_middle_and_of_the_tail_are_told_apart() -> None:
    """99 requests generate for 0.9 of 1 s; in the slow one retrieving takes most."""
    usual = [pipeline(("retrieve", 0.1), ("generate", 0.9))] * 98
    slow = [pipeline(("retrieve", 9.0), ("generate", 1.0))] * 2
    share = told([*usual, *slow])
    assert share["p50"] == pytest.approx({"retrieve": 0.1, "generate": 0.9})
    assert share["p99"] == pytest.approx({"retrieve": 0.9, "generate": 0.1})


def test_the_band_is_of_ranks_around_the_quantile() -> None:
    """Of 100 requests: ranks 46 to 55 for p50, 99 and 100 for p99."""
    stages = Stages()
    for i in range(100):
        stages.add(pipeline(("generate", 1.0 + i)))
    found = stages.summary()
    assert found is not None
    assert found["band"] == {"p50": 10, "p99": 2}
    assert found["e2e_s"] == {"p50": 50.0, "p99": 99.0}
    assert found["seconds"]["generate"] == {"p50": 50.0, "p99": 99.0}


def test_a_stage_that_a_request_lacks_took_no_time() -> None:
    """Stages come in the order in which they were first seen."""
    rows = [pipeline(("generate", 1.0)), pipeline(("embed", 1.0), ("generate", 1.0))]
    assert told(rows[:1])["p50"] == {"generate": 1.0}
    assert list(told(rows)["p99"]) == ["generate", "embed"]
    assert told(rows)["p99"] == {"generate": 0.5, "embed": 0.5}
    assert told(rows[::-1])["p50"]["embed"] in (0.0, 0.5)


@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(NAMES), st.floats(0.001, 10)),
            min_size=1, max_size=8,
        ),
        min_size=1, max_size=150,
    )
)  # fmt: skip
def test_shares_of_a_band_add_up(rows: list[list[tuple[str, float]]]) -> None:
    """Whatever the stages, also where one comes twice; the nearest rank is inside."""
    stages = Stages()
    for row in rows:
        stages.add(pipeline(*row))
    found = stages.summary()
    assert found is not None
    e2e = sorted(sum(s for _, s in row) for row in rows)
    for name, q in (("p50", 0.5), ("p99", 0.99)):
        assert sum(found["share"][name].values()) == pytest.approx(1.0)
        assert 1 <= found["band"][name] <= len(rows)
        nearest = e2e[max(1, ceil(q * len(rows))) - 1]
        assert found["e2e_s"][name] == pytest.approx(nearest)


def test_what_was_retrieved_is_summed_up() -> None:
    """Searches without a hit are counted, recall is over labelled questions only."""
    rows = [
        pipeline(("generate", 1.0), hits=5, recall=1.0),
        pipeline(("generate", 1.0), hits=0, recall=0.5),
        pipeline(("generate", 1.0), hits=1),
    ]
    retrieval = summarize(rows)["stages"]["retrieval"]
    assert retrieval == {
        "searches": 3, "empty": 1, "passages": 2.0, "labelled": 2, "recall": 0.75,
    }  # fmt: skip


def test_only_answers_outside_the_warmup_count() -> None:
    """And a run without a pipeline has no stages at all."""
    one = pipeline(("generate", 1.0))
    rows = [one, replace(one, warmup=True), replace(one, outcome=Outcome.FAILED)]
    assert summarize(rows)["stages"]["n"] == 1
    assert "stages" not in summarize([replace(one, stages=())])


def test_the_first_token_of_the_answer_is_told_beside_the_pipelines() -> None:
    """The answer is asked for after 0.3 s; its truth is about what follows."""
    row = pipeline(
        ("embed", 0.2), ("retrieve", 0.1), ("generate", 1.0), first_s=1.5, last_s=2.3
    )
    assert row.ttft_s == pytest.approx(0.5)
    assert row.asked_s == pytest.approx(1.3)
    assert row.generation_ttft_s == pytest.approx(0.2)
    assert summarize([row])["stages"]["generation_ttft_s"]["p50"] == pytest.approx(0.2)
    plain = replace(row, stages=())
    assert (plain.asked_s, plain.generation_ttft_s) == (plain.sent_s, None)


def test_a_row_keeps_its_stages() -> None:
    """Written and read again, to the microsecond."""
    row = pipeline(
        ("embed", 0.1234567), ("generate", 1.0), hits=3, recall=0.5, end_s=2.123457
    )
    back = RequestRecord.from_json(row.rounded().to_json())
    assert back == replace(row, stages=(("embed", 0.123457), ("generate", 1.0)))
    assert "stages" not in replace(row, stages=()).to_json()
