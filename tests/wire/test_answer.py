"""What an answer says: where a stop string ends it, and what a limit leaves."""

import json
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.wire.answer import (
    Answer,
    Part,
    call,
    cut,
    filler,
    reasoning,
    stopped,
    written,
)
from loadstone.wire.logprobs import Logprobs
from loadstone.wire.script import Run, Script, escaped
from loadstone.wire.tokens import count, ring_text

TEXT = " the old map"


@pytest.mark.parametrize(
    ("stop", "keep", "text", "tokens"),
    [
        ((" old",), False, " the", 2),
        ((" old",), True, " the old", 2),
        (("ld m",), False, " the o", 3),
        ((" the",), False, "", 1),
        (("map", "he"), False, " t", 1),
        (("he old", "old"), False, " t", 2),
    ],
)
def test_a_stop_string_ends_the_text(
    stop: tuple[str, ...],
    keep: bool,
    text: str,
    tokens: int,
) -> None:
    """It is not shown unless asked for, and the token that completes it counts."""
    left = stopped(written(TEXT), stop, keep=keep)
    assert left is not None
    assert (left.text, len(left.pieces)) == (text, tokens)


@pytest.mark.parametrize("stop", [(), ("",), ("old ones",), ("THE",)])
def test_what_does_not_occur_stops_nothing(stop: tuple[str, ...]) -> None:
    """An empty string occurs nowhere."""
    assert stopped(written(TEXT), stop, keep=False) is None


def test_the_first_tokens_may_be_exempt() -> None:
    """`min_tokens` is older than a stop string."""
    again = written(TEXT + TEXT)
    left = stopped(again, (" the",), keep=False, least=1)
    assert left is not None
    assert left.text == TEXT


@given(st.text(max_size=40), st.text(min_size=1, max_size=3))
def test_stopped_text_never_holds_the_string(text: str, stop: str) -> None:
    """As `str.partition` says it."""
    left = stopped(written(text), (stop,), keep=False)
    if stop in text:
        assert left is not None
        assert left.text == text.partition(stop)[0]
        assert len(left.pieces) == count(text.partition(stop)[0] + stop)
    else:
        assert left is None


@given(st.integers(0, 30))
def test_a_limit_cuts_from_the_end(limit: int) -> None:
    """Segment by segment, and none stays without a token."""
    parts = [reasoning(0, 5), call("find", '{"a":1}', "id"), filler(9, 5)]
    whole = [piece for part in parts for piece in part.pieces]
    kept = cut(parts, limit)
    assert [piece for part in kept for piece in part.pieces] == whole[:limit]
    assert all(part.pieces for part in kept)


def test_a_call_counts_its_name() -> None:
    """The model wrote it, token by token; clients see it at once."""
    made = call("get_weather", '{"a":1}', "id")
    assert len(made.pieces) == count("get_weather") + count('{"a":1}')
    assert made.text == '{"a":1}'


def test_filler_is_its_own_segment() -> None:
    """An answer without segments has one, made when it is asked for."""
    answer = Answer(7, 20, "stop")
    (part,) = answer.parts
    assert (part.part, part.text) == (Part.CONTENT, "".join(ring_text(7, 20)))
    assert (answer.reason, answer.reasoning_tokens, answer.calls) == ("stop", 0, ())


@given(
    st.lists(st.text("aé€", min_size=1, max_size=12), min_size=1, max_size=4),
    st.lists(st.integers(1, 5), min_size=40, max_size=40),
)
def test_a_script_tells_everything_once(texts: list[str], sizes: list[int]) -> None:
    """However many tokens an event has; what shows nothing is no event."""
    segments = [written(text) for text in texts]
    shown: list[str] = []
    ranges: list[tuple[int, int]] = []

    def encode(text: str, start: int, stop: int) -> bytes:
        shown.append(text)
        ranges.append((start, stop))
        return text.encode()

    runs = [
        Run(part.pieces, encode, before=lambda: b"<", after=lambda: b">")
        for part in segments
    ]
    script = Script(runs, lambda data: b"!" + data)
    left = sum(len(part.pieces) for part in segments)
    told = b""
    for size in sizes:
        event = script.event(min(size, left))
        assert event == b"" or event.startswith(b"!")
        told += event[1:]
        left -= min(size, left)
    assert left == 0
    assert told.decode() == "".join(f"<{text}>" for text in texts)
    assert "" not in shown
    assert all(a < b for a, b in ranges)
    assert ranges == sorted(ranges)


@pytest.mark.parametrize("text", ["\u2028", "\x85", "\n", '"', "\\", "é", "\x7f"])
def test_no_text_can_end_a_line_of_an_event(text: str) -> None:
    """Readers that split at Unicode's line ends see one line too."""
    data = escaped(f"a{text}b")
    assert json.loads(b'"' + data + b'"') == f"a{text}b"
    assert len(data.decode().splitlines()) == 1


@given(st.integers(), st.integers(0, 20))
def test_log_probabilities_add_up(seed: int, top: int) -> None:
    """The token first, then its alternatives, together no more than certain."""
    pieces = ring_text(seed % 1000, 30)
    for i, entry in enumerate(Logprobs(seed, top).chat(pieces, 0)["content"]):
        ranked = entry["top_logprobs"]
        assert len(ranked) == top
        assert entry["token"] == pieces[i]
        values = [one["logprob"] for one in ranked]
        assert values == sorted(values, reverse=True)
        assert len({one["token"] for one in ranked}) == top
        assert sum(map(exp, values)) <= 1 + 1e-5
        assert not ranked or ranked[0]["token"] == pieces[i]
