"""A row: its figures by hand, and that a line of JSON gives it back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from loadstone.traffic.record import Outcome, RequestRecord, TokensSource, Truth

ROW = RequestRecord(
    id="000001",
    scenario="chat",
    intended_s=10.0,
    sent_s=10.25,
    first_s=10.75,
    last_s=12.75,
    end_s=13.0,
    outcome=Outcome.OK,
    connect_s=0.125,
    input_tokens=100,
    output_tokens=12,
    first_event_tokens=2,
    truth=Truth(1000.0, 1000.375, 1000.4375, 1002.5, engine=3),
)


def test_figures_by_hand() -> None:
    """From the first byte sent, or from the intended time; TPOT is of the rest."""
    assert ROW.send_lag_s == 0.25
    assert ROW.ttft_s == 0.5
    assert ROW.ttft_intended_s == 0.75
    assert ROW.tpot_s == pytest.approx(2.0 / (12 - 2))
    assert ROW.e2e_s == 2.75
    assert ROW.response_time_s == 3.0


def test_truth_tells_the_client_error_and_the_servers_lag() -> None:
    """The mock wrote the first token 437.5 ms after it was asked, 62.5 ms late."""
    assert ROW.truth is not None
    assert ROW.truth.ttft_s == 0.4375
    assert ROW.truth.lag_s == 0.0625
    assert ROW.ttft_error_s == pytest.approx(0.0625)
    assert ROW.but(truth=None).ttft_error_s is None
    assert ROW.but(first_s=None).ttft_error_s is None


def test_tpot_error_is_a_share_of_the_truth() -> None:
    """Read were 2 s, written 2.0625 s; tokens of events cancel out."""
    assert ROW.tpot_error == pytest.approx(2.0 / 2.0625 - 1.0)
    assert ROW.truth is not None
    at_once = replace(ROW.truth, last_sent_s=ROW.truth.first_sent_s)
    for changes in (
        {"truth": None}, {"first_s": None}, {"last_s": None}, {"output_tokens": 2},
        {"truth": at_once},
    ):  # fmt: skip
        assert ROW.but(**changes).tpot_error is None


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"first_s": None, "last_s": None}, ("ttft_s", "ttft_intended_s", "tpot_s")),
        ({"last_s": None}, ("tpot_s",)),
        ({"output_tokens": 2}, ("tpot_s",)),
        ({"output_tokens": 0}, ("tpot_s",)),
        ({"output_tokens": 3}, ()),
    ],
)
def test_figures_that_do_not_exist_are_none(
    changes: dict[str, object], missing: tuple[str, ...]
) -> None:
    """Not zero: an answer whose tokens all came at once has no TPOT."""
    changed = ROW.but(**changes)
    for name in ("ttft_s", "ttft_intended_s", "tpot_s"):
        assert (getattr(changed, name) is None) == (name in missing)
    assert changed.response_time_s == 3.0


@pytest.mark.parametrize("outcome", Outcome)
def test_only_ok_is_ok(outcome: Outcome) -> None:
    """Throttled, cancelled and incomplete are not."""
    assert ROW.but(outcome=outcome).ok == (outcome.value == "ok")


def test_line_holds_what_is_not_default() -> None:
    """Microseconds are enough for the client's stamps; defaults would be noise."""
    bare = RequestRecord(
        id="7",
        scenario="chat",
        intended_s=1.23456789,
        sent_s=2.0,
        end_s=3.0,
        outcome=Outcome.THROTTLED,
    ).rounded()
    assert bare.to_line().endswith("\n")
    assert json.loads(bare.to_line()) == {
        "id": "7",
        "scenario": "chat",
        "intended_s": 1.234568,
        "sent_s": 2.0,
        "end_s": 3.0,
        "outcome": "throttled",
    }


INSTANT = st.floats(-1e6, 1e7)
COUNT = st.integers(0, 10**9)
RECORDS = st.builds(
    RequestRecord,
    id=st.text(),
    scenario=st.text(),
    intended_s=INSTANT,
    sent_s=INSTANT,
    end_s=INSTANT,
    outcome=st.sampled_from(Outcome),
    connect_s=INSTANT,
    first_s=st.none() | INSTANT,
    last_s=st.none() | INSTANT,
    status=st.none() | st.integers(100, 599),
    error=st.none() | st.text(),
    asked_input_tokens=COUNT,
    asked_output_tokens=COUNT,
    input_tokens=COUNT,
    output_tokens=COUNT,
    first_event_tokens=COUNT,
    events=COUNT,
    tokens_source=st.sampled_from(TokensSource),
    finish_reason=st.none() | st.text(),
    warmup=st.booleans(),
    worker=st.integers(0, 99),
    reconnects=st.integers(0, 9),
    icl=st.lists(st.tuples(st.integers(-1000, 1000), COUNT)).map(tuple),
    truth=st.none() | st.builds(
        Truth, INSTANT, INSTANT, INSTANT, INSTANT, st.integers(0, 71), st.floats(1, 100)
    ),
)  # fmt: skip


@given(RECORDS)
def test_line_gives_the_row_back(record: RequestRecord) -> None:
    """Every field, stamps to half a microsecond, the server's truth exactly."""
    line = record.rounded().to_line()
    assert line.count("\n") == 1
    again = RequestRecord.from_line(line)
    assert again == record.rounded() == again.rounded()
    assert again == RequestRecord.from_line(again.to_line())
    assert again == RequestRecord.from_json(json.loads(line))
    for name in RequestRecord.__struct_fields__:
        before, after = getattr(record, name), getattr(again, name)
        if isinstance(before, float):
            assert after == pytest.approx(before, abs=0.51e-6, rel=0)
        else:
            assert (after, type(after)) == (before, type(before))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        [],
        7,
        {"outcome": "ok"},
        ROW.to_json() | {"outcome": "great"},
        ROW.to_json() | {"tokens_source": "guess"},
        ROW.to_json() | {"icl": [[1, 2, 3]]},
        ROW.to_json() | {"truth": {"received_s": 1.0}},
    ],
)
def test_what_is_no_row_is_an_error(wrong: object) -> None:
    """By its types; as a value and as a line."""
    with pytest.raises(ValueError):  # noqa: PT011 - the library's words
        RequestRecord.from_json(wrong)
    with pytest.raises(ValueError):  # noqa: PT011 - likewise
        RequestRecord.from_line(json.dumps(wrong))


def test_a_newer_row_is_read_by_what_is_known_of_it() -> None:
    """A field of a later version is passed over; those of this one must be right."""
    newer = ROW.to_json() | {"colour": "blue"}
    assert RequestRecord.from_json(newer) == RequestRecord.from_json(ROW.to_json())
    assert RequestRecord.from_line(json.dumps(newer)) == RequestRecord.from_json(newer)
