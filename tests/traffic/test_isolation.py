"""Isolation, fairness and goodput of tenants, by hand and by their invariants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.traffic.isolation import fairness, isolation_of, max_min, ratio
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.slo import Slo

SLO = (Slo("response_time_s", "p95", 1.0),)


def row(i: int, tenant: str, due: float, took: float) -> RequestRecord:
    """Return an answer of 10 tokens to 10, which took so long."""
    return RequestRecord(
        id=str(i), scenario="s", tenant=tenant, intended_s=due, sent_s=due,
        end_s=due + took, outcome=Outcome.OK, asked_input_tokens=10,
        asked_output_tokens=10, input_tokens=10, output_tokens=10,
    )  # fmt: skip


def rows(beside_s: float) -> list[RequestRecord]:
    """Return a victim alone for 10 s, then beside another that asks as often."""
    victim = [row(i, "v", i / 2, 0.2 if i < 20 else beside_s) for i in range(40)]
    return victim + [row(100 + i, "w", 10 + i / 2, 0.2) for i in range(20)]


def test_isolation_by_hand() -> None:
    """All good alone; beside all good, or none."""
    spared = isolation_of(rows(0.9), SLO, 20.0)
    assert spared is not None
    assert (spared["victim"], spared["since_s"], spared["score"]) == ("v", 10.0, 1.0)
    assert spared["alone"] == {
        "requests": 20, "good": 20, "share": 1.0, "goodput_req_s": 2.0,
    }  # fmt: skip
    assert spared["goodput_req_s"] == {"v": 2.0, "w": 2.0}
    low, high = spared["score_interval"]
    assert low < 1.0 <= high
    hurt = isolation_of(rows(1.1), SLO, 20.0)
    assert hurt is not None
    assert hurt["score"] == 0.0
    assert hurt["score_interval"][1] < low
    assert hurt["goodput_req_s"] == {"v": 0.0, "w": 2.0}


def test_what_cannot_be_told_is_not() -> None:
    """Without objectives there is no good; without others nothing to be beside."""
    told = isolation_of(rows(0.9), (), 20.0)
    assert told is not None
    assert told["score"] is None
    assert "objectives" in told["absent"]
    assert isolation_of(rows(0.9)[:40], SLO, 20.0) is None
    assert isolation_of([], SLO, 20.0) is None


@given(st.integers(5, 200), st.integers(5, 200), st.data())
def test_a_ratio_lies_in_its_interval(n: int, m: int, data: st.DataObject) -> None:
    """Whose upper end is open where the base may be as good as none."""
    good, base = data.draw(st.integers(0, n)), data.draw(st.integers(1, m))
    above, below = [1] * good + [0] * (n - good), [1] * base + [0] * (m - base)
    score, (low, high) = ratio(above, below)
    assert low is not None
    assert 0.0 <= low <= score + 1e-9
    assert high is None or score <= high + 1e-9


def test_max_min_shares_by_hand() -> None:
    """Who asks for little has it; the rest is divided among the others."""
    assert max_min({"a": 10, "b": 100, "c": 100}, 70) == {"a": 10, "b": 30, "c": 30}
    assert max_min({"a": 10, "b": 5}, 100) == {"b": 5, "a": 10}


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 10_000), min_size=1),
       st.floats(0.1, 1.0))  # fmt: skip
def test_fairness_is_one_for_max_min_shares_and_never_more(
    asked: dict[str, int], part: float
) -> None:
    """And not less than one over the number of tenants."""
    served = {
        k: round(v) for k, v in max_min(asked, part * sum(asked.values())).items()
    }
    index = fairness(asked, served)
    if index is not None:
        assert 1 / len(asked) - 1e-9 <= index <= 1 + 1e-9
    even = max_min(asked, part * sum(asked.values()))
    assert fairness(asked, even) == pytest.approx(1.0)


def test_an_unfair_server_has_a_lower_index() -> None:
    """First come, first served gives each the same part of what it floods with."""
    asked = {"victim": 10, "aggressor": 100}
    assert fairness(asked, {"victim": 10, "aggressor": 45}) == pytest.approx(1.0)
    assert fairness(asked, {"victim": 5, "aggressor": 50}) == pytest.approx(
        0.874, abs=2e-3
    )
