"""Events are found however they were cut, with the stamp of their last byte."""

import re
from itertools import accumulate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadstone.wire.sse import BodyTooLargeError, Events, EventScanner

EOL = st.sampled_from(["\n", "\r\n"])
TEXT = st.text(alphabet='{}":, dat[DONE]é\u2028', max_size=12)
DATA = st.builds(
    lambda text, space, eol: f"data:{space}{text}{eol}",
    TEXT,
    st.sampled_from(["", " "]),
    EOL,
)
NOISE = st.builds(
    lambda line, eol: line + eol,
    st.sampled_from([": ping", ":", "event: x", "id: 7", "retry: 3", "datum", "data"]),
    EOL,
)
BODIES = st.lists(st.one_of(DATA, DATA, NOISE, EOL), max_size=14).map("".join)


def scan(body: bytes, places: set[int]) -> tuple[EventScanner, list[int]]:
    """Feed a body cut at `places`, read i stamped i; return where each read ends."""
    scanner = EventScanner()
    inside = sorted(place for place in places if 0 < place < len(body))
    ends = [*inside, len(body)]
    for number, (start, end) in enumerate(zip([0, *inside], ends, strict=True)):
        scanner.feed(body[start:end], float(number))
    return scanner, ends


def expected(body: bytes) -> list[tuple[bytes, int]]:
    """Return payload and end of payload of each event, as the standard has it."""
    found: list[tuple[bytes, int]] = []
    data: list[bytes] = []
    end = 0
    lines = re.split(rb"(?<=\n)", body)
    for line, stop in zip(lines, accumulate(map(len, lines)), strict=True):
        text = line.rstrip(b"\r\n") if line.endswith(b"\n") else line.rstrip(b"\r")
        if line and not text and data:
            found.append((b"\n".join(data), end))
            data = []
        elif text.startswith(b"data:"):
            data.append(text[5:].removeprefix(b" "))
            end = stop - len(line) + len(text)
    return found + ([(b"\n".join(data), end)] if data else [])


@given(BODIES, st.sets(st.integers(0, 300)))
@example('data: {"a":1}\n\ndata:{"b":2}\r\n\r\ndata: [DONE]\n\n', set(range(100)))
@example("data: a\ndata: b\r\n\ndata:c", {8, 9, 10})
@example('\ndata: {"a":1}', set())
def test_events_do_not_depend_on_the_cuts(text: str, places: set[int]) -> None:
    """Payloads are the standard's; a stamp is the read of a payload's last byte."""
    body = text.encode()
    scanner, ends = scan(body, places)
    events = scanner.events()
    wanted = expected(body)
    assert [events.payload(i) for i in range(len(events))] == [p for p, _ in wanted]
    reads = [next(n for n, stop in enumerate(ends) if stop >= end) for _, end in wanted]
    assert list(events.stamps) == reads


def test_a_byte_order_mark_is_not_text() -> None:
    """A body may begin with one; it hides nothing."""
    events = scan(b"\xef\xbb\xbfdata: x\n\n", set())[0].events()
    assert events.payload(0) == b"x"


def test_the_blank_line_may_be_late() -> None:
    """JSON that is complete counts from its own read, not from that of its line end."""
    scanner = EventScanner()
    scanner.feed(b'data: {"a"', 1.0)
    scanner.feed(b":1}", 2.0)
    scanner.feed(b"\n", 3.0)
    scanner.feed(b"\n", 4.0)
    events = scanner.events()
    assert list(events.stamps) == [2.0]
    assert not events.cut


def test_several_events_of_a_read_share_its_stamp() -> None:
    """They came together: there is no gap to invent between them."""
    events = scan(b"data: a\n\ndata: b\n\ndata: c\n\n", set())[0].events()
    assert list(events.stamps) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_an_event_without_its_blank_line_is_marked(end: str) -> None:
    """It may be whole or half; the reader of the events has to look."""
    events = scan(b"data: a\n\ndata: [DONE]" + end.encode(), set())[0].events()
    assert (len(events), events.cut) == (2, True)
    assert events.payload(1) == b"[DONE]"
    assert repr(events) == f"<Events 2 in {21 + len(end)} bytes, the last one cut>"


def test_an_empty_body_has_no_events() -> None:
    """No reads, no events, no error."""
    assert len(EventScanner().events()) == 0
    assert not EventScanner().events().cut


def test_a_body_is_bounded() -> None:
    """Beyond the limit feeding raises, and what came before stays readable."""
    scanner = EventScanner(limit=20)
    scanner.feed(b"data: x\n\n", 1.0)
    with pytest.raises(BodyTooLargeError) as caught:
        scanner.feed(b"data: " + b"y" * 20, 2.0)
    assert caught.value.code == "too_large"
    assert scanner.events().payload(0) == b"x"
    assert repr(scanner) == "<EventScanner 9 bytes in 1 reads>"


def test_memory_is_per_read() -> None:
    """A stream costs its bytes and two numbers per read, no object per event."""
    scanner = EventScanner()
    for number in range(1000):
        scanner.feed(b'data: {"x":1}\n\n', number / 50)
    assert scanner.stamps.itemsize + scanner.offsets.itemsize == 16
    events: Events = scanner.events()
    assert len(events) == 1000
    assert events.stamps[-1] == 999 / 50
