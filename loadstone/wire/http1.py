"""HTTP/1.1 as a client needs it, sans-I/O: write a request, parse a response.

`ResponseParser.feed` takes bytes as they came from the network and gives back the
pieces of the body among them; everything else is state to look at (`status`, `headers`,
`done`, `keep_alive`). A body ends in one of four ways: it is chunked, it has a length,
it lasts until the connection closes, or there is none.

The fast path is a read that holds whole small chunks, because a token stream sends one
chunk per token. It is strict where leniency would let a broken peer look healthy: line
ends are CRLF, sizes are plain digits, two lengths must agree. Whatever is not
understood raises `WireError`, and nothing grows without a bound.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from ..errors import LoadstoneError, UsageError

MAX_HEAD: Final = 64 * 1024
"""Most bytes of a response head, interim heads and trailers included. Others: h11 16
KiB, nginx 4-8 KiB per buffer, Go 1 MiB; proxies with many cookies stay far below
this."""
MAX_SIZE_LINE: Final = 4 * 1024
"""Most bytes of a chunk-size line with its extensions (hyper allows 16 KiB of
extensions)."""
MAX_LENGTH: Final = 1 << 40
"""A body or a chunk that announces more than 1 TiB is taken for nonsense."""

_HEAD, _CHUNKED, _LENGTH, _UNTIL_CLOSE, _TRAILERS, _DONE = range(6)
_STATES: Final = ("head", "chunked", "length", "until close", "trailers", "done")

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\x00\r\n]*)?")
_HEADER_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~\w]+):[ \t]*([^\x00\r\n]*?)[ \t]*", re.ASCII
)
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~\w]+", re.ASCII)
_WITH_BODY: Final = (b"POST ", b"PUT ", b"PATCH ")
_TARGET = re.compile(r"[\x21-\x7e]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# NOTE: a table lookup is 70 ns where slicing, validating and int(..., 16) take 240 ns;
# one event of a token stream is 100-600 bytes.
_SIZES: Final = {b"%x" % n: n for n in range(1, 2048)}


_KNOWN_LINES: Final = 256
_KNOWN_SIZE: Final = 128
"""Header lines that are remembered, and their most bytes: a server says nearly the same
with each answer, and to look a line up is 0.1 us, to read it 1.4."""


class WireError(LoadstoneError):
    """The peer sent what the protocol does not allow, or more than we will hold."""

    code = "bad_response"


def request_bytes(
    method: str,
    target: str,
    host: str,
    headers: Iterable[tuple[str, str]],
    body: bytes = b"",
) -> bytes:
    """Return a whole request, with `Host` and, if there is a body, `Content-Length`.

    Raises what `request_head` does.
    """
    return complete(request_head(method, target, host, headers), (), body)


def request_head(
    method: str, target: str, host: str, headers: Iterable[tuple[str, str]]
) -> bytes:
    """Return how requests begin that have all this in common: to be `complete`d.

    Raises `UsageError` for anything that could start a header of its own (CR, LF) or is
    not allowed where it stands. The message names the header and never shows its value.
    """
    if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
        raise UsageError(
            f"cannot request {method!r} {target!r}", hint="no spaces, no newlines"
        )
    line = f"{method} {target} HTTP/1.1\r\n".encode("latin-1")
    return line + _fields((("Host", host), *headers))


def complete(
    head: bytes, headers: Iterable[tuple[str, str]], body: bytes = b""
) -> bytes:
    """Return the request that begins with `head` and has these headers besides.

    Raises what `request_head` does.
    """
    fields = _fields(headers)
    if body or head.startswith(_WITH_BODY):
        fields += b"Content-Length: %d\r\n" % len(body)
    return b"%b%b\r\n%b" % (head, fields, body)


def _fields(headers: Iterable[tuple[str, str]]) -> bytes:
    lines = []
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            raise UsageError(f"{name!r} is not a header name")
        if not _VALUE.fullmatch(value):
            raise UsageError(
                f"the value of header {name} has characters a header cannot carry",
                hint="look for a newline at its end, as from a key file",
            )
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1")


class ResponseParser:
    """Reads one response; make a new one for each.

    `headers` has lower-case names; the values of a repeated header are joined by
    commas. `keep_alive` says, once `done`, whether the connection may carry another
    request.
    """

    __slots__ = (
        "_head_bytes",
        "_left",
        "_rest",
        "_state",
        "head_complete",
        "headers",
        "keep_alive",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.head_complete = False
        self.keep_alive = False
        self._state = _HEAD
        self._rest = b""
        """An unfinished head or line, to be put before the next read."""
        self._left = 0
        """Body bytes to come; in a chunk, its final CRLF is counted in."""
        self._head_bytes = 0

    def __repr__(self) -> str:
        return (
            f"<ResponseParser {self.status or 'no status'}: {_STATES[self._state]},"
            f" {self._left} bytes left, {len(self._rest)} held>"
        )

    @property
    def done(self) -> bool:
        """Whether the response is complete."""
        return self._state == _DONE

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the pieces of the body among them.

        Raises `WireError` for what is not HTTP. The pieces of the same read are lost
        then, and the connection is of no more use.
        """
        if self._state == _CHUNKED:
            return self._chunks(data)
        if self._state == _HEAD:
            return self._head(data)
        if self._state == _LENGTH:
            return self._counted(data)
        if self._state == _UNTIL_CLOSE:
            return [data]
        if self._state == _TRAILERS:
            self._trailers(data)
        elif data:
            self.keep_alive = False  # nobody asked for these bytes
        return []

    def eof(self) -> None:
        """Note that the peer closed; raises `WireError` if that was too early."""
        self.keep_alive = False
        if self._state == _UNTIL_CLOSE:
            self._state = _DONE
        elif self._state != _DONE:
            where = _STATES[self._state]
            raise WireError(
                f"the server closed inside the {where} part", code="closed_early"
            )

    def _chunks(self, data: bytes) -> list[bytes]:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        pieces: list[bytes] = []
        pos = 0
        size = len(data)
        while pos < size:
            if not self._left:
                eol = data.find(b"\r\n", pos, pos + MAX_SIZE_LINE)
                if eol < 0:
                    self._hold(data[pos:])
                    break
                line = data[pos:eol]
                length = _SIZES.get(line) or _chunk_size(line)
                pos = eol + 2
                if not length:
                    self._state = _TRAILERS
                    self._trailers(data[pos:])
                    break
                stop = pos + length
                if data[stop : stop + 2] == b"\r\n":
                    pieces.append(data[pos:stop])
                    pos = stop + 2
                    continue
                self._left = length + 2
            pos = self._part_of_chunk(data, pos, pieces)
        return pieces

    def _part_of_chunk(self, data: bytes, pos: int, pieces: list[bytes]) -> int:
        """Take what there is of a chunk that a read has cut; return where it ends."""
        if self._left > 2:
            piece = data[pos : pos + self._left - 2]
            if piece:
                pieces.append(piece)
            pos += len(piece)
            self._left -= len(piece)
        if self._left <= 2:
            end = data[pos : pos + self._left]
            if not b"\r\n".startswith(end, 2 - self._left):
                raise WireError("a chunk is longer than its size says")
            pos += len(end)
            self._left -= len(end)
        return pos

    def _hold(self, line: bytes) -> None:
        if len(line) >= MAX_SIZE_LINE:
            raise WireError(
                f"a chunk-size line has no end within {MAX_SIZE_LINE} bytes"
            )
        self._rest = line

    def _counted(self, data: bytes) -> list[bytes]:
        piece = data[: self._left]
        self._left -= len(piece)
        if not self._left:
            self._finish(excess=len(data) > len(piece))
        return [piece]

    def _trailers(self, data: bytes) -> None:
        """Skip trailer fields: nobody sends any that a token stream needs."""
        data = self._rest + data
        end = 0 if data.startswith(b"\r\n") else data.find(b"\r\n\r\n") + 2
        if end == 1:  # not found
            self._bound_head(len(data))
            self._rest = data
            return
        self._rest = b""
        self._finish(excess=len(data) > end + 2)

    def _finish(self, *, excess: bool) -> None:
        self._state = _DONE
        if excess:
            self.keep_alive = False

    def _bound_head(self, length: int) -> None:
        if self._head_bytes + length > MAX_HEAD:
            raise WireError(f"the head is longer than {MAX_HEAD} bytes")

    def _head(self, data: bytes) -> list[bytes]:
        data = self._rest + data
        while True:  # an interim head (100, 103) may come before the real one
            end = data.find(b"\r\n\r\n", max(0, len(self._rest) - 3))
            self._bound_head(end if end >= 0 else len(data))
            if end < 0:
                if not b"HTTP/1.".startswith(data[:7]):
                    raise WireError(f"the answer is not HTTP/1: {data[:16]!r}")
                self._rest = data
                return []
            self._rest = b""
            self._head_bytes += end + 4
            version = self._read_head(data[:end].split(b"\r\n"))
            data = data[end + 4 :]
            if self.status >= 200:
                break
            if self.status == 101:
                raise WireError("the server switched protocols unasked")
        self.head_complete = True
        self._frame(version)
        return self.feed(data) if data else []

    def _read_head(self, lines: list[bytes]) -> int:
        """Take status and headers; return the minor version of HTTP/1."""
        status = _STATUS_LINE.fullmatch(lines[0])
        if status is None:
            raise WireError(f"not a status line: {lines[0][:40]!r}")
        self.status = int(status[2])
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, value = _known(line) if len(line) <= _KNOWN_SIZE else _field(line)
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self.headers = headers
        return int(status[1])

    def _frame(self, version: int) -> None:
        """Decide how the body ends (RFC 9112, 6.3) and what comes after it."""
        connection = self.headers.get("connection", "").lower()
        options = [option.strip() for option in connection.split(",")]
        self.keep_alive = "close" not in options and (
            version == 1 or "keep-alive" in options
        )
        coding = self.headers.get("transfer-encoding")
        length = self.headers.get("content-length")
        if self.status in (204, 304):
            self._finish(excess=False)
        elif coding is not None:
            if coding.lower() != "chunked":
                raise WireError(f"transfer coding {coding[:40]!r} was not asked for")
            self._state = _CHUNKED
            if length is not None:
                self.keep_alive = False  # the mark of request smuggling: RFC 9112, 6.1
        elif length is not None:
            self._state = _LENGTH
            self._left = _content_length(length)
            if not self._left:
                self._finish(excess=False)
        else:
            self._state = _UNTIL_CLOSE
            self.keep_alive = False


def _field(line: bytes) -> tuple[str, str]:
    """Return a header's name in lower case, and its value."""
    field = _HEADER_LINE.fullmatch(line)
    if field is None:
        raise WireError(f"not a header line: {line[:40]!r}")
    return field[1].decode("ascii").lower(), field[2].decode("latin-1")


_known: Final = lru_cache(_KNOWN_LINES)(_field)


def _chunk_size(line: bytes) -> int:
    match = _SIZE_LINE.fullmatch(line)
    size = int(match[1], 16) if match else -1
    if not 0 <= size <= MAX_LENGTH:
        raise WireError(f"not a chunk size: {line[:40]!r}")
    return size


def _content_length(value: str) -> int:
    """Read a length; a repeated header is fine as long as its values agree."""
    values = {part.strip() for part in value.split(",")}
    text = values.pop()
    if values or not re.fullmatch(r"[0-9]{1,16}", text) or int(text) > MAX_LENGTH:
        raise WireError(f"not a content length: {value[:40]!r}")
    return int(text)
