"""The trace reader: exact to the microsecond, and every wrong line is named."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import UsageError
from loadstone.traffic.request import Prefix
from loadstone.traffic.trace import (
    TraceRow,
    cut,
    read_trace,
    sample,
)

CALIBRATION = Path(__file__).parents[3] / "shared" / "calibration"
MOONCAKE = CALIBRATION / "traces" / "mooncake_conversation_trace.jsonl"

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
ROW = "2023-11-16 18:15:46.6805900,374,44"


def read(*rows: str, header: str = HEADER) -> list[TraceRow]:
    """Read a trace of the given lines."""
    return read_trace([header, *rows], name="t.csv").rows


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the machine stand where an hour is lost on 31 March 2024."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def seconds_between(first: str, second: str) -> float:
    """Return the time from one stamp to a later one, as read."""
    return read(f"{first},1,1", f"{second},2,2")[1].at_s


def test_first_rows_of_the_azure_trace() -> None:
    """By hand: 50.9951690 - 46.6805900 = 4.314579."""
    rows = read(ROW, "2023-11-16 18:15:50.9951690,396,109")
    assert rows[0] == TraceRow(0.0, 374, 44)
    assert (rows[1].input_tokens, rows[1].output_tokens) == (396, 109)
    assert rows[1].at_s == pytest.approx(4.314579, abs=1e-6)


@given(st.integers(0, 86_400 * 10**7), st.integers(0, 86_400 * 10**7))
def test_seven_decimals_are_exact_to_a_microsecond(a: int, b: int) -> None:
    """Ticks of 100 ns, as Azure writes them: Python's own reader keeps a digit less."""
    t0 = datetime(2023, 11, 16, tzinfo=UTC)

    def stamp(ticks: int) -> str:
        seconds, rest = divmod(ticks, 10**7)
        return f"{t0 + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S}.{rest:07d}"

    low, high = sorted((a, b))
    assert seconds_between(stamp(low), stamp(high)) == pytest.approx(
        (high - low) / 1e7, abs=1e-6
    )


@pytest.mark.parametrize(
    ("first", "second", "seconds"),
    [
        ("2023-11-16 18:00:00", "2023-11-16 18:00:01", 1.0),
        ("2023-11-16 18:00:00.5", "2023-11-16 18:00:00.75", 0.25),
        ("2023-11-16T18:00:00Z", "2023-11-16T18:00:02.5Z", 2.5),
        ("2023-11-16 18:00:00", "2023-11-16 18:00:00.1234567891", 0.1234567891),
        ("2023-11-16 18:00:00.25+00:00", "2023-11-16 18:00:01.5", 1.25),
        ("2023-11-16 20:00:00.25+02:00", "2023-11-16 18:00:01.5+00:00", 1.25),
        ("2023-11-16 13:00:00.25-05:00", "2023-11-16 18:00:01.5Z", 1.25),
        ("2023-11-16 20:00:00+02:00", "2023-11-16 13:00:01-05:00", 1.0),
        ("2023-12-31 23:59:59.9", "2024-01-01 00:00:00.1", 0.2),
        ("2024-03-31 01:59:59", "2024-03-31 03:00:00", 3601.0),
    ],
)
def test_zones_and_fractions(
    in_berlin: None, first: str, second: str, seconds: float
) -> None:
    """Without a zone it is UTC, whatever the reader's own zone and its summer time."""
    assert seconds_between(first, second) == pytest.approx(seconds, abs=1e-6)


def test_rows_are_put_in_order_of_time() -> None:
    """Time starts at the earliest; equal stamps stay in the order of the file."""
    rows = read(
        "2023-11-16 18:00:02,5,5",
        "2023-11-16 18:00:01,9,9",
        "2023-11-16 18:00:02,3,3",
        "2023-11-16 18:00:02,4,1",
    )
    assert [(r.at_s, r.input_tokens) for r in rows] == [(0, 9), (1, 5), (1, 3), (1, 4)]


def test_bom_blank_lines_and_spaces_do_no_harm() -> None:
    """As Excel and editors leave them."""
    rows = read(
        "", ROW, "", " 2023-11-16 18:15:47.68059 , 5 , 6 ", "", header="\ufeff" + HEADER
    )
    assert [(r.input_tokens, r.output_tokens) for r in rows] == [(374, 44), (5, 6)]
    assert rows[1].at_s == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("time,prompt,answer", "time,prompt,answer"),
        ("TIMESTAMP,ContextTokens", "TIMESTAMP,ContextTokens"),
        (ROW, "2023-11-16"),
    ],
)
def test_another_header_is_another_format(header: str, found: str) -> None:
    """The error is on line 1 and says what stands there."""
    with pytest.raises(
        UsageError, match=r"^t\.csv: line 1: expected the columns "
    ) as no:
        read(ROW, header=header)
    assert found in no.value.message


@pytest.mark.parametrize("lines", [[], [HEADER], [HEADER, "", ""]])
def test_trace_without_rows_is_refused(lines: list[str]) -> None:
    """An empty file, or a header alone."""
    with pytest.raises(UsageError, match=r"^t\.csv: "):
        read_trace(lines, name="t.csv")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("yesterday,1,1", "'yesterday' is not a timestamp"),
        ("2023-11-16 18:61:00,1,1", "not a timestamp"),
        ("2023-11-16 18:00:00.1e5,1,1", "not a timestamp"),
        ("2023-11-16 18:00:00.1_0,1,1", "not a timestamp"),
        ("2023-11-16 18:00:00.,1,1", "not a timestamp"),
        ("2023-11-16 18:00:00.5+25:00,1,1", "not a timestamp"),
        (",1,1", "not a timestamp"),
        ("2023-11-16 18:00:00,x,1", "'x' is not a count of tokens"),
        ("2023-11-16 18:00:00,1,", "'' is not a count of tokens"),
        ("2023-11-16 18:00:00,1.5,1", "'1.5' is not a count of tokens"),
        ("2023-11-16 18:00:00,0,1", "at least one token, not 0"),
        ("2023-11-16 18:00:00,1,0", "at least one token, not 0"),
        ("2023-11-16 18:00:00,1,-3", "at least one token, not -3"),
        ("2023-11-16 18:00:00,1,x", "GeneratedTokens 'x' is not a count"),
        ("2023-11-16 18:00:00,0,1", "ContextTokens: a request needs"),
        (f"2023-11-16 18:00:00,1,{1 << 53}", "more than any request has"),
        (f"2023-11-16 18:00:00,1,{'9' * 5000}", "GeneratedTokens '999"),
        ("2023-11-16 18:00:00,1.,1.0.0", "'1.0.0' is not a count"),
        ("2023-11-16 18:00:00,1", "2 columns, not 3"),
        ("2023-11-16 18:00:00,1,1,1", "4 columns, not 3"),
        ("   ", "1 columns, not 3"),
    ],
)
def test_wrong_row_is_named_by_its_line(row: str, why: str) -> None:
    """Blank lines count; nothing is skipped, and the hint shows a row."""
    with pytest.raises(UsageError) as caught:
        read(ROW, "", row, ROW)
    assert caught.value.message.startswith("t.csv: line 4: ")
    assert why in caught.value.message
    assert ROW in caught.value.hint


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_decimals_of_spreadsheets_do_no_harm(separator: str) -> None:
    """A data frame writes 5 as 5.0; half of Europe's spreadsheets write semicolons."""
    lines = [HEADER, ROW, "2023-11-16 18:15:47.68059,5.0,6.00"]
    lines = ["", *(line.replace(",", separator) for line in lines)]
    rows = read_trace(lines, name="t.csv").rows
    assert [(r.input_tokens, r.output_tokens) for r in rows] == [(374, 44), (5, 6)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('[{"id": "a", "conversations": []}]', "one JSON array"),
        ('{"prompt": "hi", "output_tokens": 3}', "'prompt': prompts without arrivals"),
        ('{"custom_id": "1", "body": {}}', "'body': prompts without arrivals"),
        ('{"conversations": []}', "'conversations': prompts without arrivals"),
        ("Type,Name,Request Count", "line 1: expected the columns"),
    ],
)
def test_files_of_prompts_are_told_from_traces(line: str, why: str) -> None:
    """ShareGPT, vLLM's custom sets, OpenAI's batches, Locust's own tables."""
    with pytest.raises(UsageError) as caught:
        read_trace([line], name="t")
    assert why in caught.value.message
    assert "prompts" in caught.value.message + caught.value.hint


def test_least_lengths_are_one_token() -> None:
    """A request has at least one on both sides, and that is enough."""
    assert read("2023-11-16 18:00:00,1,1") == [TraceRow(0.0, 1, 1)]


@pytest.mark.parametrize("line", [1, 3])
def test_file_that_is_no_csv_is_named_too(line: int) -> None:
    """A line longer than a CSV's may be: a JSON dump, say."""
    lines = [HEADER, ROW, ROW]
    lines[line - 1] = "x" * 200_000
    with pytest.raises(UsageError, match=rf"^t\.csv: line {line}: field larger"):
        read_trace(lines, name="t.csv")


# ------------------------------------------------------------- Mooncake's JSON lines


LINE = (
    '{"timestamp": 500, "input_length": 600, "output_length": 44, "hash_ids": [4, 9]}'
)


def test_mooncake_lines_by_hand() -> None:
    """Milliseconds, in order of time from the first; ids are of 512 tokens."""
    later = LINE.replace("500", "2500.5").replace("[4, 9]", "[4, 7]")
    bare = '{"timestamp": 3500, "input_length": 5, "output_length": 1, "priority": -2}'
    rows = read_trace([later, "", LINE, bare], name="t.jsonl").rows
    assert rows == [
        TraceRow(0.0, 600, 44, 0, Prefix(512, (4, 9))),
        TraceRow(pytest.approx(2.0005), 600, 44, 0, Prefix(512, (4, 7))),
        TraceRow(3.0, 5, 1, -2),
    ]


def test_formats_are_told_apart() -> None:
    """By the first character that is not blank, a byte order mark or not."""
    assert read_trace(["", "\ufeff" + LINE], name="t").rows[0].prefix == Prefix(
        512, (4, 9)
    )
    plain = read_trace(["\ufeff" + HEADER, ROW], name="t").rows
    assert plain == [TraceRow(0.0, 374, 44)]
    with pytest.raises(UsageError, match="line 1: expected the columns"):
        read_trace([], name="t")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"timestamp": 0,', "is not JSON"),
        ("[1]", "not a JSON object"),
        (ROW, "is not JSON"),
        (LINE.replace('"timestamp": 500, ', ""), "no field 'timestamp'"),
        (LINE.replace("500", '"500"'), "timestamp '500' is not a time in milli"),
        (LINE.replace("500", "NaN"), "timestamp nan is not a time"),
        (LINE.replace("500", "1e400"), "timestamp inf is not a time"),
        (LINE.replace("500", "1" + "0" * 400), "is not a time"),
        (LINE.replace("600", "0"), "input_length 0 is not a count of tokens"),
        (LINE.replace("600", "600.0"), "input_length 600.0 is not a count"),
        (LINE.replace("44", "true"), "output_length True is not a count"),
        (LINE.replace("[4, 9]", "[4, -9]"), "hash_ids [4, -9] is not a list of block"),
        (LINE.replace("[4, 9]", '"4, 9"'), "is not a list of block ids"),
        (LINE.replace("[4, 9]", "[4]"), "1 hash_ids for 600 prompt tokens"),
        (LINE.replace("[4, 9]", "[]"), "0 hash_ids for 600 prompt tokens"),
        (LINE.replace("[4, 9]", "[4, 4]"), "hash_ids repeat"),
        (LINE.replace("}", ', "priority": 0.5}'), "priority 0.5 is not an integer"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_wrong_line_is_named(line: str, why: str) -> None:
    """With its number, blank lines counted, and what a line should be."""
    with pytest.raises(UsageError) as caught:
        read_trace([LINE, "", line, LINE], name="t.jsonl")
    assert caught.value.message.startswith("t.jsonl: line 3: ")
    assert why in caught.value.message
    assert '"hash_ids": [0, 1]' in caught.value.hint


@pytest.mark.parametrize("length", [512, 513, 1024])
def test_there_is_an_id_for_each_begun_block(length: int) -> None:
    """At the border and one beyond."""
    ids = list(range(-(-length // 512)))
    line = json.dumps(
        {"timestamp": 0, "input_length": length, "output_length": 1, "hash_ids": ids}
    )
    assert read_trace([line], name="t").rows[0].prefix == Prefix(512, tuple(ids))
    more = line.replace("]", ", 99]")
    with pytest.raises(UsageError, match="hash_ids for"):
        read_trace([more], name="t")


@pytest.mark.skipif(not MOONCAKE.exists(), reason="the published trace is not here")
def test_published_trace_has_the_reuse_it_is_known_for() -> None:
    """12,031 requests; an unlimited cache would hold 36.6 % of their blocks."""
    rows = read_trace(MOONCAKE.read_text().splitlines(), name="m").rows
    assert len(rows) == 12_031
    assert rows[-1].at_s == pytest.approx(3537, abs=1)
    seen: set[int] = set()
    hits = total = 0
    for row in rows:
        assert row.prefix is not None
        hits += sum(block in seen for block in row.prefix.blocks)
        total += len(row.prefix.blocks)
        seen.update(row.prefix.blocks)
    assert hits / total == pytest.approx(0.366, abs=0.001)


# ------------------------------------------------------------- unseen files


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (HEADER, ["2023-11-16 18:00:00.0000000,5,6", "2023-11-16 18:00:01.5,7,8"]),
        ("GeneratedTokens,TIMESTAMP,ContextTokens", ["6,0.0,5", "8,1.5,7"]),
        ("timestamp,contexttokens,generatedtokens,More",
         ["1700158546.25,5,6,x", "1700158547.75,7,8,"]),
        ('"TIMESTAMP","ContextTokens","GeneratedTokens"',
         ["1700158546250,5,6", "1700158547750,7,8"]),
        ("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
         ["5,ChatGPT,5,6,11,API log", "6.5,GPT-4,7,8,15,API log"]),
        ("arrival_time,input_tokens,output_tokens", ["100,5,6", "101.5,7,8"]),
    ],
)  # fmt: skip
def test_columns_are_found_by_name_and_times_read_as_they_are(
    header: str, rows: list[str]
) -> None:
    """Any order, more columns, others' names; dates, epochs, seconds since a start."""
    found = read_trace(["\ufeff" + header, *rows], name="t").rows
    assert [(r.input_tokens, r.output_tokens) for r in found] == [(5, 6), (7, 8)]
    assert found[1].at_s == pytest.approx(1.5, abs=1e-6)


def test_mooncake_lines_may_say_more() -> None:
    """Fields of others are passed over."""
    line = LINE.replace("}", ', "session": "x", "turn": 3}')
    assert read_trace([line], name="t").rows == [
        TraceRow(0.0, 600, 44, 0, Prefix(512, (4, 9)))
    ]


def test_bad_rows_may_be_left_out_and_are_counted() -> None:
    """All of them, and the first few word by word."""
    lines = [HEADER, ROW, *["x,1,1"] * 7, ROW.replace("46.68", "47.68")]
    found = read_trace(lines, name="t", skip_bad=True)
    assert (len(found.rows), found.skipped, len(found.shown)) == (2, 7, 5)
    assert found.shown[0] == "line 3: 'x' is not a timestamp"
    with pytest.raises(UsageError, match="has no rows"):
        read_trace([HEADER, "x,1,1"], name="t", skip_bad=True)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0, 50),
       st.floats(1, 60))  # fmt: skip
def test_a_part_of_a_trace_begins_at_zero(
    times: list[float], since: float, length: float
) -> None:
    """From `since` on, and before its end."""
    rows = [TraceRow(at, 1, 1) for at in sorted(times)]
    part = cut(rows, since, since + length)
    kept = [at for at in sorted(times) if since <= at < since + length]
    assert [row.at_s for row in part] == [at - since for at in kept]


def test_a_sample_is_chosen_by_the_seed() -> None:
    """About the share that was asked for; all of them for 1."""
    rows = [TraceRow(float(i), 1, 1) for i in range(5000)]
    some = sample(rows, 0.2, seed=1)
    assert some == sample(rows, 0.2, seed=1) != sample(rows, 0.2, seed=2)
    assert len(some) == pytest.approx(1000, rel=0.1)
    assert sample(rows, 1.0, seed=1) == rows
