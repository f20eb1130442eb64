"""The HTTP/1.1 parser against every way a network can cut a response, and bad peers."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadstone.errors import UsageError
from loadstone.wire.http1 import (
    MAX_HEAD,
    MAX_SIZE_LINE,
    ResponseParser,
    WireError,
    request_bytes,
)

HEAD = b"HTTP/1.1 200 OK\r\nServer: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


def chunks(pieces: list[bytes], trailer: bytes = b"") -> bytes:
    """Frame pieces as chunks, with a size line in each of the forms allowed."""
    forms = (b"%x\r\n", b"%X;name=value\r\n", b"000%x \r\n")
    framed = (
        forms[number % 3] % len(piece) + piece + b"\r\n"
        for number, piece in enumerate(pieces)
    )
    return b"".join(framed) + b"0\r\n" + trailer + b"\r\n"


def cut(data: bytes, places: set[int]) -> list[bytes]:
    """Cut bytes at the places that lie inside."""
    inside = [0, *sorted(place for place in places if 0 < place < len(data)), len(data)]
    return [data[a:b] for a, b in pairwise(inside)]


def read(reads: list[bytes]) -> tuple[ResponseParser, bytes]:
    """Feed a parser and return it with the body."""
    parser = ResponseParser()
    body = b"".join(piece for data in reads for piece in parser.feed(data))
    return parser, body


@given(BODIES, st.sets(st.integers(0, 400)), st.sampled_from([b"", b"X-T: 1\r\n"]))
@example([b"a" * 20], set(range(400)), b"X-T: 1\r\n")
def test_chunked_body_does_not_depend_on_the_cuts(
    pieces: list[bytes], places: set[int], trailer: bytes
) -> None:
    """However the bytes arrive, the same body comes out and the end is seen."""
    parser, body = read(cut(CHUNKED + chunks(pieces, trailer), places))
    assert body == b"".join(pieces)
    assert parser.done
    assert parser.keep_alive
    assert (parser.status, parser.headers["server"]) == (200, "x")


@given(st.binary(max_size=60), st.sets(st.integers(0, 120)))
def test_counted_body_ends_by_its_length(body: bytes, places: set[int]) -> None:
    """A body with a length ends there, not before."""
    data = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    parser, read_body = read(cut(data, places))
    assert (read_body, parser.done, parser.keep_alive) == (body, True, True)
    short, _ = read([data[:-1]])
    assert not short.done


def test_body_without_framing_lasts_until_the_close() -> None:
    """Neither length nor chunks: the close ends it, and the connection with it."""
    parser, body = read([HEAD + b"\r\nsome", b" text"])
    assert body == b"some text"
    assert not parser.done
    parser.eof()
    assert parser.done
    assert not parser.keep_alive


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_some_responses_have_no_body(status: bytes) -> None:
    """204 and 304 end with their head whatever it says."""
    parser, _ = read([b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\n"])
    assert parser.done
    assert parser.keep_alive


def test_interim_heads_are_skipped() -> None:
    """100 and 103 come before the response and are not it."""
    interim = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    )
    for places in ({1}, set(range(300))):
        parser, body = read(cut(interim + CHUNKED + chunks([b"x"]), places))
        assert (parser.status, body, parser.done) == (200, b"x", True)
        assert "link" not in parser.headers


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n", False),
    ],
)
def test_who_keeps_the_connection(head: bytes, kept: bool) -> None:
    """The version's default, what `Connection` says, and no doubt about the framing."""
    body = chunks([b"ok"]) if b"chunked" in head else b"ok"
    parser, _ = read([head + b"Content-Length: 2\r\n\r\n" + body])
    assert parser.done
    assert parser.keep_alive is kept


def test_bytes_after_the_end_cost_the_connection() -> None:
    """What nobody asked for cannot be told from an answer to the next request."""
    for end in (chunks([b"x"]) + b"?", chunks([b"x"])):
        parser, _ = read([CHUNKED + end])
        assert parser.keep_alive is not end.endswith(b"?")
    parser.feed(b"HTTP/1.1 408 Request Timeout\r\n")
    assert parser.done
    assert not parser.keep_alive


@pytest.mark.parametrize(
    "sent",
    [CHUNKED, CHUNKED + b"5\r\nab", CHUNKED + b"2\r\nab\r\n0\r\n", HEAD, b"",
     HEAD + b"Content-Length: 9\r\n\r\nabc"],
)  # fmt: skip
def test_an_early_close_is_told_from_an_end(sent: bytes) -> None:
    """A close before the end is `closed_early`."""
    parser, _ = read([sent])
    with pytest.raises(WireError) as caught:
        parser.eof()
    assert caught.value.code == "closed_early"


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x02\x00",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\nB: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1_0\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Content-Length: 9999999999999999\r\n\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"0x5\r\nabcde\r\n",
        CHUNKED + b"1_0\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"ffffffffffffffff\r\n",
        CHUNKED + b"11111111111111111\r\n",
        CHUNKED + b"2\r\nabc\r\n",
        CHUNKED + b"2\r\nab\rx",
        CHUNKED + b"2\nab\r\n",
    ],
)
def test_what_is_not_http_is_refused(sent: bytes) -> None:
    """A malformed response raises, in one read or byte by byte."""
    for reads in ([sent], cut(sent, set(range(len(sent))))):
        with pytest.raises(WireError) as caught:
            read([*reads, b"\r\n"])
        assert caught.value.code == "bad_response"


@pytest.mark.parametrize(
    ("start", "more", "bound"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"A: bbbbbbbb\r\n" * 80, MAX_HEAD),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 40, MAX_HEAD),
        (CHUNKED, b"0" * 1000, MAX_SIZE_LINE),
        (CHUNKED + b"0\r\n", b"A: bbbbbbbb\r\n" * 80, MAX_HEAD),
    ],
)
def test_nothing_grows_without_a_bound(start: bytes, more: bytes, bound: int) -> None:
    """An endless head, size line or trailer ends in an error near the bound."""
    parser = ResponseParser()
    parser.feed(start)
    reads = [more] * (2 * bound // len(more) + 2)
    with pytest.raises(WireError):
        list(map(parser.feed, reads))


def test_the_parser_shows_where_it_is() -> None:
    """Its repr says what came and what is missing."""
    parser = ResponseParser()
    assert repr(parser) == "<ResponseParser no status: head, 0 bytes left, 0 held>"
    parser.feed(CHUNKED + b"5\r\nab")
    assert repr(parser) == "<ResponseParser 200: chunked, 5 bytes left, 0 held>"


def test_a_request_is_written_whole() -> None:
    """Host, given headers, length, body; no length for a GET."""
    post = request_bytes("POST", "/v1/x?y=1", "h:80", [("A", "b")], b"{}")
    assert post == (
        b"POST /v1/x?y=1 HTTP/1.1\r\nHost: h:80\r\nA: b\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert request_bytes("GET", "/", "h", []) == b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    assert b"Content-Length: 0\r\n" in request_bytes("POST", "/", "h", [])


@pytest.mark.parametrize(
    "value", ["secret\r\nX: y", "secret\n", "secret\r", "secret\x00", "secret\u20ac"]
)
def test_a_header_cannot_carry_another(value: str) -> None:
    """A value with a line end is refused, and the message does not show it."""
    with pytest.raises(UsageError) as caught:
        request_bytes("GET", "/", "h", [("Authorization", value)])
    assert "Authorization" in caught.value.message
    assert "secret" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [("GET /", "/", "A"), ("GET", "/a b", "A"), ("GET", "/\r\n", "A"), ("GET", "", "A"),
     ("GET", "/", "A:"), ("GET", "/", "A\r\nB"), ("GET", "/", "")],
)  # fmt: skip
def test_a_request_line_is_one_line(method: str, target: str, name: str) -> None:
    """Neither method, target nor header name can break out of its place."""
    with pytest.raises(UsageError):
        request_bytes(method, target, "h", [(name, "x")])
