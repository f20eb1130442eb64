"""Streams cut anywhere are the same, and hostile ones end: in an outcome, in bounds."""

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import (
    CHUNKED,
    END,
    PATIENCE_S,
    SSE,
    Peer,
    answer,
    ask,
    chunk,
    client,
    event,
    once,
    serving,
)

from loadgen.client import Exchange
from loadgen.connection import Connection, Timeouts
from loadgen.dial import Address
from loadgen.exchange import judge
from loadgen.rows import outcome_of
from loadstone.traffic.record import Outcome
from loadstone.wire.http1 import MAX_HEAD, MAX_SIZE_LINE, ResponseParser
from loadstone.wire.reply import ChatReply, read_stream
from loadstone.wire.sse import EventScanner

LIMIT = 4096


def line(chunk: dict[str, Any], end: str = "\n\n") -> str:
    """Return an event as servers write it: JSON with text left as it is."""
    return f"data: {json.dumps(chunk, ensure_ascii=False)}{end}"


def delta(
    said: dict[str, Any], reason: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return a chat chunk."""
    choice = {"index": 0, "delta": said, "finish_reason": reason}
    return {"id": "c-1", "object": "chat.completion.chunk", "choices": [choice], **more}


CALL = {"index": 0, "id": "t", "function": {"name": "f", "arguments": ""}}
USAGE = {"prompt_tokens": 7, "completion_tokens": 5}
TEXTS = ("H\u00e9", "\u4f60\u597d", "\U0001f600", '"}\\')
DEAD = {"message": "engine died", "type": "InternalServerError", "code": 500}
OLD = {"object": "error", "message": "no", "type": "Bad", "code": 4}
STREAMS = {
    "vllm": "".join((
        line(delta({"role": "assistant", "content": ""})),
        *(line(delta({"content": text})) for text in TEXTS),
        line(delta({}, "stop")),
        line({"choices": [], "usage": USAGE}),
        "data: [DONE]\n\n",
    )),
    "reasoning, then a tool": "".join((
        line(delta({"role": "assistant", "content": None})),
        line(delta({"reasoning_content": "hm \u2026"})),
        line(delta({"reasoning": "so"})),
        line(delta({"content": "Well"})),
        line(delta({"tool_calls": [CALL]})),
        line(delta({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})),
        line(delta({}, "tool_calls", usage=USAGE)),
        "data: [DONE]\n\n",
    )),
    "CRLF, comments, two lines": "".join((
        ": ping\r\n\r\nevent: x\r\nid: 1\r\n",
        line(delta({"content": "a"}), "\r\n\r\n"),
        'data: {"choices":\r\ndata: [{"delta":{"content":"\u00fc"}}]}\r\n\r\n',
        "retry: 5\n\n",
        line(delta({"content": "c"}, "length"), "\n\n"),
    )),
    "an error of vLLM's": "".join((
        line(delta({"content": "a"})),
        line({"error": DEAD}),
        "data: [DONE]\n\n",
    )),
    "an error of OpenAI's": line(
        {"error": {"message": "overloaded", "type": None, "code": "server_error"}}
    ),
    "an error of old": line(OLD),
}  # fmt: skip
ERRORS = {
    "an error of vLLM's": "InternalServerError",
    "an error of OpenAI's": "server_error",
    "an error of old": "Bad",
}


def whole(body: bytes) -> bytes:
    """Frame a body by its length."""
    return SSE + b"Content-Length: %d\r\n\r\n" % len(body) + body


def by_seven(body: bytes) -> bytes:
    """Frame a body in chunks that know nothing of events or characters."""
    pieces = (body[at : at + 7] for at in range(0, len(body), 7))
    return CHUNKED + b"".join(map(chunk, pieces)) + b"0\r\nX-T: 1\r\n\r\n"


def until_close(body: bytes) -> bytes:
    """Do not frame a body at all."""
    return SSE + b"\r\n" + body


FRAMINGS = (whole, by_seven, until_close)


def play(
    response: bytes, cuts: Callable[[], int], *, hang: bool = False, limit: int = LIMIT
) -> Exchange:
    """Have a connection read a response in pieces, and say what became of it.

    The peer closes at the end, unless it is to `hang`.
    """
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    connection = Connection(Address(socket.AF_UNIX, "pair"), ours)
    connection._recv = lambda _: ours.recv(cuts())
    connection._recvmsg = lambda _, room: ours.recvmsg(cuts(), room)
    theirs.sendall(response)
    if not hang:
        theirs.shutdown(socket.SHUT_WR)
    waits = Timeouts(first_byte=0.02, idle=0.02, total=0.5) if hang else Timeouts()
    try:
        with gevent.Timeout(PATIENCE_S):
            got = connection.exchange(b"GET / HTTP/1.1\r\n\r\n", waits, limit)
    finally:
        connection.close()
        theirs.close()
    assert len(got.scanner.body) <= limit
    assert len(got.parser._rest) <= max(MAX_HEAD, MAX_SIZE_LINE)
    return judge(got, stream=True, connect_s=0.0, reconnects=0, wall=0.0, secrets=())


def decoded(reads: list[bytes]) -> tuple[list[bytes], ChatReply]:
    """Return the events of reads that all came at once, and what they say."""
    parser, scanner = ResponseParser(), EventScanner()
    for data in reads:
        for piece in parser.feed(data):
            scanner.feed(piece, 0.0)
    events = scanner.events()
    payloads = [events.payload(index) for index in range(len(events))]
    return payloads, read_stream(events)


def facts(exchange: Exchange) -> tuple[Any, ...]:
    """Return what must not depend on how the network cut the bytes."""
    reply = exchange.reply
    assert reply is not None
    return (
        exchange.error, exchange.error_text, reply.text, reply.events, reply.usage,
        reply.output_tokens, reply.first_event_tokens, reply.finish_reason, reply.done,
        reply.error, reply.unreadable, (reply.first is None, reply.first_answer is None,
        reply.first_tool is None),
    )  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_stream_cut_at_any_byte_is_the_same(
    name: str, framing: Callable[[bytes], bytes]
) -> None:
    """Inside a character, a line end, a size: in two parts, then each byte alone."""
    response = framing(STREAMS[name].encode())
    in_one = decoded([response])
    for place in range(1, len(response)):
        assert decoded([response[:place], response[place:]]) == in_one
    expected = facts(play(response, lambda: 1 << 16))
    assert expected[0] == ("stream_error" if name in ERRORS else None)
    assert facts(play(response, lambda: 1)) == expected


@given(
    st.sampled_from(sorted(STREAMS)),
    st.sampled_from(FRAMINGS),
    st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
@settings(max_examples=60, deadline=None)
def test_a_stream_cut_anyhow_is_the_same(
    name: str, framing: Callable[[bytes], bytes], sizes: list[int]
) -> None:
    """In reads of any sizes."""
    response = framing(STREAMS[name].encode())
    turns = iter(range(len(response) + 9))
    cut = play(response, lambda: sizes[next(turns) % len(sizes)])
    assert facts(cut) == facts(play(response, lambda: 1 << 16))


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_inside_a_stream_has_its_servers_name(name: str) -> None:
    """Of any of the shapes; the outcome is a failure."""
    failed = play(whole(STREAMS[name].encode()), lambda: 1 << 16)
    assert failed.reply is not None
    assert failed.reply.error is not None
    assert failed.reply.error.kind == ERRORS[name]
    assert outcome_of(failed) is Outcome.FAILED


# ---------------------------------------------------------------- hostile


NASTY = st.sampled_from([
    b"\x00" * 9, b"\xff\xfe", b"\xf0\x9f\x98", b"\r", b"\n", b"\r\n\r\n", b"data:",
    b"data: {\n\n", b"data: []\n\n", b'data: {"choices": 7}\n\n', b"[" * 3000,
    b'{"a":' * 500, b"data: [DONE]\n\n", b'data: {"usage":{"completion_tokens":1e9}}\n',
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"ffffffff\r\n",
    b"0\r\n", b"0\r\n\r\n", b"-1\r\n", b'5;x="\r\n', b"Content-Length: 5\r\n",
    b"\x1f\x8b\x08\x00",
    b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"x" * 5000,
])  # fmt: skip
WELL = st.builds(
    lambda framing, name: framing(STREAMS[name].encode()),
    st.sampled_from(FRAMINGS),
    st.sampled_from(sorted(STREAMS)),
)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """Take a good response and cut, double, overwrite or add to it in places."""
    data = draw(WELL)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        upto = min(len(data), at + draw(st.integers(0, 30)))
        new = draw(st.one_of(NASTY, st.binary(max_size=8), st.just(data[at:upto] * 2)))
        data = data[:at] + new + data[upto:]
    return data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data


@given(spoilt(), st.sampled_from([1 << 16, 97, 13]))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_comes_ends_in_an_outcome(data: bytes, size: int) -> None:
    """No exception but for a bug, no hang, no growth; a code says what was wrong."""
    ended = play(data, lambda: size)
    assert outcome_of(ended) in Outcome
    assert (ended.error is None) == (outcome_of(ended) is Outcome.OK)
    assert ended.end >= ended.sent
    if ended.error is None:
        assert ended.reply is not None
        assert ended.reply.answered


@given(spoilt())
@settings(max_examples=25, deadline=None)
def test_whatever_hangs_ends_in_an_outcome(data: bytes) -> None:
    """A peer that neither goes on nor closes is given up by a timeout."""
    ended = play(data, lambda: 1 << 16, hang=True)
    assert outcome_of(ended) in Outcome
    assert ended.end - ended.sent < PATIENCE_S


def endless(start: bytes, more: bytes) -> Callable[[Peer], None]:
    """Make a script that sends `more` until the client has had enough."""

    def script(peer: Peer) -> None:
        assert peer.request()
        try:
            peer.send(start)
            while True:
                peer.send(more)
        except ConnectionError:
            return

    return script


@pytest.mark.parametrize(
    ("start", "more", "error"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"A: " + b"b" * 99 + b"\r\n", "bad_response"),
        (b"HTTP/1.1 200 OK\r\nA: ", b"b" * 999, "bad_response"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", "bad_response"),
        (CHUNKED, b"1" * 999, "bad_response"),
        (CHUNKED + b"0\r\n", b"A: b\r\n", "bad_response"),
        (CHUNKED + b"fffffff\r\n", b"x" * 999, "too_large"),
        (SSE + b"\r\ndata: ", b"x" * 999, "too_large"),
        (SSE + b"Content-Length: 99999999999\r\n\r\n", b"\x00" * 999, "too_large"),
        (CHUNKED, chunk(b": ping\n\n"), "too_large"),
        (CHUNKED, chunk(event("a")), "too_large"),
    ],
    ids=["headers", "header", "interim", "size line", "trailers", "chunk", "line",
         "length", "comments", "tokens"],
)  # fmt: skip
def test_what_never_ends_is_ended(start: bytes, more: bytes, error: str) -> None:
    """At a bound of ours, not of the machine's memory."""
    with serving(endless(start, more)) as server, \
            client(server.url, limit=LIMIT) as made:  # fmt: skip
        failed = ask(made)
        assert "0 idle" in repr(made)
    assert failed.error == error
    assert failed.bytes_in <= MAX_HEAD + MAX_SIZE_LINE + (256 << 10)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (whole(STREAMS["vllm"].encode())[:-9], "closed_early"),
        (whole(STREAMS["vllm"].encode()) + b"data: more\n\n", None),
        (answer("200 OK", b"\x1f\x8b", "Content-Encoding: gzip"), "bad_response"),
        (CHUNKED + chunk(event("\x00")) + END, "bad_response"),
        (CHUNKED + chunk(event("?").replace(b"?", b"\xff")) + END, "bad_response"),
        (CHUNKED + chunk(b"data: \xff\n\n") + END, "bad_response"),
    ],
    ids=["short", "long", "gzip", "NUL", "not UTF-8", "not JSON"],
)  # fmt: skip
def test_lengths_codings_and_bytes_that_lie(response: bytes, error: str | None) -> None:
    """The half-closed connection is not used again, whatever came of the answer."""

    def script(peer: Peer) -> None:
        once(response)(peer)
        peer.socket.shutdown(socket.SHUT_WR)

    with serving(script) as server, client(server.url) as made:
        ended = ask(made)
        # The script is over: whoever looks before it has closed its half sees it open.
        server.join(PATIENCE_S)
        assert made._reuse() is None
    assert ended.error == error


def test_a_trickle_is_not_patience_for_ever() -> None:
    """Each byte comes in time for `idle`, and `total` ends it all the same."""

    def script(peer: Peer) -> None:
        assert peer.request()
        peer.send(CHUNKED + chunk(event("a")))
        peer.socket.settimeout(0.01)
        try:
            while True:
                peer.send(b"0")
                with suppress(TimeoutError):
                    assert peer.read() == b""
                    return
        except ConnectionError:
            return

    with serving(script) as server, \
            client(server.url, idle=5.0, total=0.1) as made:  # fmt: skip
        failed = ask(made)
    assert failed.error == "timeout_total"


def test_what_a_server_says_moves_no_cursor() -> None:
    """Control codes in an error are blanks: it is printed, and a terminal obeys."""
    said = "no\x1b]0;owned\x07 \x1b[2Jway\r\nhome"
    body = json.dumps({"error": {"message": said, "type": "x\x1b[31m"}}).encode()
    head = b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: "
    script = once(head + b"%d\r\n\r\n%s" % (len(body), body))
    with serving(script) as server, client(server.url) as made:
        exchange = ask(made)
    assert exchange.error == "http_400"
    assert exchange.error_text == "no ]0;owned   [2Jway home"
