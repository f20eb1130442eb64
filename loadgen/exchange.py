"""What became of one request, and the one table from a fault to its code.

A network failure is data: nothing here raises for what a peer or a network can do.
"""

import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from errno import EADDRNOTAVAIL, EHOSTUNREACH, EMFILE, ENETUNREACH, ENFILE
from typing import Final

from loadstone.units import MS, Seconds
from loadstone.wire.chunks import ErrorObject, parse
from loadstone.wire.http1 import WireError
from loadstone.wire.reply import ChatReply, read_body, read_stream

from .connection import Response
from .dial import DeadlineError, TunnelError
from .receive import lag_at

MAX_ERROR_TEXT: Final = 200
"""Most characters of `Exchange.error_text`."""

_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")

_ERRNO_CODES: Final = {
    EMFILE: "out_of_files",
    ENFILE: "out_of_files",
    EADDRNOTAVAIL: "out_of_ports",
    EHOSTUNREACH: "unreachable",
    ENETUNREACH: "unreachable",
}
OWN_LIMITS: Final = ("out_of_files", "out_of_ports")
"""This machine's own: the run is client-limited."""

_CODES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (socket.gaierror, "dns"),
    (ssl.SSLError, "tls"),
    (ConnectionRefusedError, "connect_refused"),
    (FileNotFoundError, "connect_refused"),  # no such Unix socket
    (ConnectionError, "reset"),
    (TimeoutError, "timeout_connect"),  # the kernel's own
    (OSError, "network"),
)
"""The first row that fits decides. Our own errors carry their code themselves."""


_VERIFY_CAUSES: Final = {
    9: "tls_not_yet_valid",
    10: "tls_expired",
    18: "tls_untrusted",  # self-signed
    19: "tls_untrusted",  # self-signed, in its chain
    20: "tls_untrusted",  # issuer not known
    21: "tls_untrusted",
    62: "tls_wrong_host",
    64: "tls_wrong_host",  # an address
}
"""What OpenSSL says of a certificate (X509_V_ERR_*)."""
_NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL",
                   "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")  # fmt: skip


def cause_of(error: Exception) -> str | None:
    """Return the code of a fault more finely than a row has it: what of TLS failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_CAUSES.get(error.verify_code, "tls_untrusted")
    if isinstance(error, ssl.SSLError) and getattr(error, "reason", "") in _NOT_TLS:
        return "https_to_http"
    return code_of(error)


# NOTE: a value, which nobody changes, as `Request`, `ChatReply` and `Question` are: to
# make the three of them frozen takes 4 us of a request.
@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request and what came back. Instants are on `time.monotonic`."""

    sent: Seconds
    """Just before the first byte was handed to the kernel, by the first attempt; if
    there was never a connection, when we began to look for one."""
    end: Seconds
    """The read that completed the response, or when the failure was known."""
    connect_s: Seconds = 0.0
    """Name lookup, TCP and TLS; 0.0 on a connection that was there."""
    status: int | None = None
    reply: ChatReply | None = None
    """The answer, also when it broke off; None for an HTTP error."""
    error: str | None = None
    """A stable code, None if all is well."""
    error_text: str = ""
    cause: str | None = None
    """The same as `error`, where more is known of a failed connection."""
    retry_after_s: Seconds | None = None
    """What the server said last; None if it did not."""
    retries: int = 0
    """How often it was sent again because of what the server answered."""
    bytes_in: int = 0
    """As read from the socket: heads, framing and TLS's records included, handshakes
    not. `bytes_out` is the same of what the kernel took, over all attempts."""
    bytes_out: int = 0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    recv_lag_s: Seconds | None = None
    """How long the first token lay in the kernel before it was read; None where the
    kernel does not say. `worst_recv_lag_s` is the longest of any read it told of."""
    worst_recv_lag_s: Seconds | None = None
    reconnects: int = 0
    """1 if a kept connection turned out to be dead and the request went out again."""
    body: bytes = field(default=b"", repr=False)
    """What came, if it was not a stream."""


def code_of(error: Exception) -> str | None:
    """Return the code of a fault of the network or the peer, None for a bug of ours."""
    if isinstance(error, WireError | DeadlineError | TunnelError):
        return error.code
    number = error.errno if isinstance(error, OSError) else None
    if number in _ERRNO_CODES and not isinstance(error, socket.gaierror | ssl.SSLError):
        return _ERRNO_CODES[number]
    return next((code for kind, code in _CODES if isinstance(error, kind)), None)


def text_of(error: Exception) -> str:
    """Return what a fault says of itself, in a line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


def judge(
    response: Response,
    *,
    stream: bool,
    connect_s: Seconds,
    reconnects: int,
    wall: Seconds,
    secrets: tuple[str, ...],
) -> Exchange:
    """Say what a response was. `wall` is the time of day in seconds since the epoch.

    Secrets that the server repeats in what it says beside its answer are blotted out.
    Raises the response's failure if that is a bug of ours.
    """
    parser = response.parser
    reply, error, text = _verdict(response, stream=stream)
    text = masked(text, secrets)
    if reply is not None:
        reply = _masked_reply(reply, secrets)
    streamed = reply is not None and not isinstance(reply.words, str)
    return Exchange(
        sent=response.sent,
        end=response.sent if response.end is None else response.end,
        connect_s=connect_s,
        status=parser.status if parser.head_complete else None,
        reply=reply,
        error=error,
        error_text=text[:MAX_ERROR_TEXT],
        cause=error if response.failure is None else cause_of(response.failure),
        retry_after_s=_retry_after(parser.headers, wall),
        bytes_in=response.bytes_in,
        bytes_out=response.bytes_out,
        headers=parser.headers,
        recv_lag_s=lag_at(
            response.lag_stamps, response.lags, reply.first if reply else None
        ),
        worst_recv_lag_s=max(response.lags, default=None),
        reconnects=reconnects,
        body=b"" if streamed else _masked_body(bytes(response.scanner.body), secrets),
    )


def masked(text: str, secrets: tuple[str, ...]) -> str:
    """Return `text` without the secrets, and without what moves a terminal's cursor."""
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, "***")
    return plain(text)


def plain(text: str) -> str:
    """Return what a server says with a blank for each character that is not shown."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text)


def _masked_reply(reply: ChatReply, secrets: tuple[str, ...]) -> ChatReply:
    """Blot secrets out of what a row keeps of an answer: its errors and reasons."""
    error, reason = reply.error, reply.finish_reason
    if error is not None:
        error = ErrorObject(masked(error.message, secrets), masked(error.kind, secrets))
    if reason is not None:
        reason = masked(reason, secrets)
    if error is reply.error and reason is reply.finish_reason:
        return reply
    return replace(reply, error=error, finish_reason=reason)


def _masked_body(body: bytes, secrets: tuple[str, ...]) -> bytes:
    for secret in secrets:
        body = body.replace(secret.encode(), b"***")
    return body


_Verdict = tuple[ChatReply | None, str | None, str]
"""The reply, the code of what was wrong with it, and a line about it."""


def _verdict(response: Response, *, stream: bool) -> _Verdict:
    parser, failure = response.parser, response.failure
    broken: str | None = None
    said = ""
    if failure is not None:
        broken, said = code_of(failure), text_of(failure)
        if broken is None:
            raise failure
    if not parser.head_complete:
        return None, broken, said
    if not 200 <= parser.status < 300:
        body = bytes(response.scanner.body)
        return None, f"http_{parser.status}", _error_text(body)
    if parser.headers.get("content-encoding", "identity") != "identity":
        return None, "bad_response", "the answer is compressed, which was not asked for"
    kind = parser.headers.get("content-type", "").lower()
    if kind.startswith("text/event-stream") or (stream and "json" not in kind):
        reply, error, text = _streamed(response, kind)
    else:
        reply, error, text = _whole(response, kind)
    # Who asked for a stream asked for an answer; others may be content with none.
    if stream and error is None and not (reply and reply.answered):
        error, text = "empty_answer", "the answer holds no token, and counts none"
    # What the server says of its own trouble explains a connection that broke after it.
    if broken is not None and error != "stream_error":
        return reply, broken, said
    return reply, error, text


def _streamed(response: Response, kind: str) -> _Verdict:
    reply = read_stream(response.scanner.events())
    if reply.error is not None:
        return reply, "stream_error", reply.error.message
    if not reply.events and not reply.done and "event-stream" not in kind:
        return (
            reply,
            "bad_response",
            f"asked for a stream, got {kind[:60] or 'no type'!r}",
        )
    if reply.unreadable:
        return reply, "bad_response", f"{reply.unreadable} events are not JSON objects"
    if not reply.whole:
        return reply, "closed_early", "the stream ended before its answer did"
    return reply, None, ""


def _whole(response: Response, kind: str) -> _Verdict:
    if "json" not in kind or not response.scanner.body:
        return None, None, ""
    try:
        reply = read_body(bytes(response.scanner.body))
    except WireError as error:
        return None, error.code, error.message
    if reply.error is not None:
        return reply, "stream_error", reply.error.message
    return reply, None, ""


def _error_text(body: bytes) -> str:
    """Return what an error's body says, whatever form it has, in one line."""
    error = ErrorObject.of(parse(body) or {})
    if error is not None:
        return error.message
    return " ".join(body[: 4 * MAX_ERROR_TEXT].decode(errors="replace").split())


def _retry_after(headers: dict[str, str], wall: Seconds) -> Seconds | None:
    """Read how long to leave the server alone: seconds, a date, or Azure's ms."""
    value, scale = headers.get("retry-after-ms"), MS
    if value is None:
        value, scale = headers.get("retry-after"), 1.0
    if value is None:
        return None
    if _NUMBER.fullmatch(value):
        return float(value) * scale
    until = _instant(value)
    return (
        None
        if until is None
        else max(0.0, until - (_instant(headers.get("date")) or wall))
    )


def _instant(date: str | None) -> Seconds | None:
    """Return an HTTP date in seconds since the epoch."""
    try:
        return parsedate_to_datetime(date or "").timestamp()
    except (ValueError, OverflowError):
        return None
