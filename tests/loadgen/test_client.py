"""The streaming client against real sockets that play exact scripts of bytes."""

import errno
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import pytest
from scripted import (
    ANSWER,
    CHUNKED,
    END,
    KEY,
    PATH,
    PATIENCE_S,
    SSE,
    STOP,
    Peer,
    Script,
    Server,
    answer,
    ask,
    check,
    chunk,
    client,
    event,
    once,
    refusing_url,
    serving,
    silent,
    usage,
)

from loadgen.connection import Connection, Timeouts
from loadgen.exchange import code_of
from loadstone.errors import UsageError


def test_a_chunked_stream() -> None:
    """Every token has its stamp, every byte is counted, the key is in its header."""
    requests: list[bytes] = []

    def script(peer: Peer) -> None:
        requests.append(peer.request())
        peer.send(ANSWER)

    with serving(script) as server, client(server.url + "/base/") as made:
        exchange = made.send(b'{"x":1}', path=PATH, headers={"x-a": "b"}, stream=True)
        check(exchange)
        assert exchange.bytes_in == len(ANSWER)
        assert (exchange.connect_s > 0, exchange.reconnects) == (True, 0)
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(
        b"POST /base/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:"
    )
    assert f"authorization: Bearer {KEY}".encode() in head
    assert b"x-a: b" in head
    assert b"Accept: text/event-stream" in head
    assert body == b'{"x":1}'


def test_stamps_are_those_of_the_reads() -> None:
    """A token that is written after the first was read is stamped later."""
    seen = threading.Event()

    def script(peer: Peer) -> None:
        assert peer.request()
        peer.send(CHUNKED + chunk(event("a")))
        assert seen.wait(PATIENCE_S)
        peer.send(chunk(event("b")) + END)

    with serving(script) as server:
        connection = Connection.open(server.address, time.monotonic() + PATIENCE_S)
        asking = gevent.spawn(
            connection.exchange, b"GET / HTTP/1.1\r\n\r\n", Timeouts()
        )
        while connection._response is None or not connection._response.scanner.stamps:
            gevent.sleep(0.001)
        between = time.monotonic()
        assert (
            repr(connection) == f"<Connection to {server.address}: busy, 1 exchanges>"
        )
        seen.set()
        stamps = asking.get(timeout=PATIENCE_S).scanner.stamps
        connection.close()
    assert stamps[0] < between < stamps[1]


def test_a_stream_byte_by_byte() -> None:
    """A server without any buffering is read like any other."""

    def script(peer: Peer) -> None:
        assert peer.request()
        for byte in ANSWER:
            peer.send(bytes((byte,)))

    with serving(script) as server, client(server.url) as made:
        check(ask(made))


def test_a_stream_that_lasts_until_the_close() -> None:
    """Without framing the close is the end, and nothing is kept."""
    body = event("Hel") + event("lo") + STOP
    with serving(once(SSE + b"\r\n" + body, close=True)) as server, \
            client(server.url) as made:  # fmt: skip
        check(ask(made))
        assert "0 idle" in repr(made)


def test_a_plain_answer() -> None:
    """An answer in one piece has text and usage, no first token, and its body."""
    body = (
        b'{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":3,"completion_tokens":1}}'
    )
    with serving(once(answer("200 OK", body))) as server, client(server.url) as made:
        exchange = made.send(b"{}", path=PATH)
    assert exchange.reply is not None
    assert (exchange.reply.text, exchange.reply.output_tokens) == ("Hi", 1)
    assert (exchange.reply.first, exchange.error) == (None, None)
    assert exchange.body == body


def test_other_bodies_are_handed_over() -> None:
    """What is not JSON and not a stream is the caller's to read."""
    response = answer("200 OK", b"x 1\n", kind="text/plain")
    with serving(once(response)) as server, client(server.url) as made:
        exchange = made.send(path="/metrics", method="GET")
    assert (exchange.status, exchange.error, exchange.reply) == (200, None, None)
    assert exchange.body == b"x 1\n"


def test_a_unix_socket(tmp_path: Path) -> None:
    """`unix:` speaks the same over a path."""
    server = Server(once(ANSWER))
    server.listener.close()
    server.listener = socket.socket(socket.AF_UNIX)
    server.listener.bind(str(tmp_path / "s"))
    server.listener.listen()
    server.start()
    with client(f"unix:{tmp_path / 's'}") as made:
        check(ask(made))
    server.stop()
    with client(f"unix:{tmp_path / 'none'}") as made:
        assert ask(made).error == "connect_refused"


# ---------------------------------------------------------------- connections


def test_a_connection_is_kept() -> None:
    """Three requests, one connection: only the first waits for it."""

    def script(peer: Peer) -> None:
        for _ in range(3):
            assert peer.request()
            peer.send(ANSWER)

    with serving(script) as server, client(server.url) as made:
        exchanges = [ask(made) for _ in range(3)]
        assert made.opened == 1
    assert [exchange.connect_s > 0 for exchange in exchanges] == [True, False, False]
    for exchange in exchanges:
        check(exchange)


@pytest.mark.parametrize("extra", [b"HTTP/1.1 408 Request Timeout\r\n\r\n", b"\r\n"])
def test_bytes_after_the_answer_end_the_connection(extra: bytes) -> None:
    """They would be taken for the next answer."""
    with serving(once(ANSWER + extra), once(ANSWER)) as server, \
            client(server.url) as made:  # fmt: skip
        check(ask(made))
        check(ask(made))
        assert made.opened == 2


def test_a_kept_connection_that_was_closed_is_not_used() -> None:
    """The close is seen before the request is sent: no reconnect, no failure."""
    closed = threading.Event()

    def script(peer: Peer) -> None:
        assert peer.request()
        peer.send(ANSWER)
        peer.close()
        closed.set()

    with serving(script, once(ANSWER)) as server, client(server.url) as made:
        check(ask(made))
        assert closed.wait(PATIENCE_S)
        again = ask(made)
        check(again)
        assert (again.reconnects, again.connect_s > 0, made.opened) == (0, True, 2)


def test_a_new_connection_is_not_tried_again() -> None:
    """A server that closes on a fresh connection has failed the request."""
    with serving(lambda peer: peer.request() and peer.close()) as server, \
            client(server.url) as made:  # fmt: skip
        failed = ask(made)
        assert (failed.error, failed.reconnects, made.opened) == ("closed_early", 0, 1)
        assert (failed.status, failed.reply, failed.bytes_in) == (None, None, 0)


def test_warm_connections_wait_and_the_last_used_goes_first() -> None:
    """`warm` opens ahead of time; requests reuse the hottest."""
    with serving() as server, client(server.url) as made:
        assert made.warm(5) == 5
        assert made.warm(3) == 5
        assert made.opened == 5
        assert repr(made) == f"<StreamingClient {server.url}: 0 busy, 5 idle, 5 opened>"
        last = made._idle[-1]
        assert made._reuse() is last
        last.close()
    assert all(connection.closed for connection in made._idle)


def test_warming_a_dead_endpoint_is_no_error() -> None:
    """The first request says what is wrong."""
    with client(refusing_url()) as made:
        assert made.warm(3) == 0


def test_a_long_request_waits_for_the_server() -> None:
    """A body larger than the kernel's buffers goes out as the server reads it."""

    def script(peer: Peer) -> None:
        assert len(peer.request()) > 8_000_000
        peer.send(ANSWER)

    with serving(script) as server, client(server.url) as made:
        check(ask(made, b"x" * 8_000_000))
        assert "1 idle" in repr(made)


@pytest.mark.parametrize("reset", [False, True])
def test_a_refusal_overtakes_a_long_request(reset: bool) -> None:
    """A server may answer before it has read all: its answer counts, not the reset."""
    told = threading.Event()
    refusal = answer("413 Payload Too Large", b'{"error":{"message":"too long"}}')

    def script(peer: Peer) -> None:
        assert peer.read()
        peer.send(refusal)
        if reset:
            peer.reset()
        assert told.wait(PATIENCE_S)

    with serving(script) as server, client(server.url) as made:
        refused = ask(made, b"x" * 16_000_000)
        told.set()
        assert (refused.error, refused.error_text) == ("http_413", "too long")
        assert "0 idle" in repr(made)


def test_addresses_are_tried_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may have an address at which nobody listens; the next one is tried."""
    with serving(once(ANSWER)) as server:
        port = server.address.place[1]
        asked: list[str] = []

        def look_up(host: str, *_: object, **__: object) -> list[Any]:
            asked.append(host)
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port))
                for place in ("127.0.0.2", "127.0.0.1")
            ]

        monkeypatch.setattr(gevent.socket, "getaddrinfo", look_up)
        with client(f"http://rack.test:{port}") as made:
            check(ask(made))
        assert asked == ["rack.test"]


# ---------------------------------------------------------------- what goes wrong


def test_nobody_listens() -> None:
    """Refused is data: a code, a text and two instants."""
    with client(refusing_url()) as made:
        failed = ask(made)
    assert (failed.error, failed.error_text) == (
        "connect_refused",
        "Connection refused",
    )
    assert (failed.status, failed.reply) == (None, None)
    assert failed.sent <= failed.end


def test_no_such_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve is `dns`."""

    def look_up(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(gevent.socket, "getaddrinfo", look_up)
    with client("http://rack.test") as made:
        failed = ask(made)
    assert (failed.error, failed.error_text) == ("dns", "Name or service not known")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (OSError(errno.EMFILE, "x"), "out_of_files"),
        (OSError(errno.EADDRNOTAVAIL, "x"), "out_of_ports"),
        (OSError(errno.EHOSTUNREACH, "x"), "unreachable"),
        (OSError(errno.ETIMEDOUT, "x"), "timeout_connect"),
        (OSError(errno.EPIPE, "x"), "reset"),
        (OSError(errno.EIO, "x"), "network"),
        (ssl.SSLError(errno.EMFILE, "x"), "tls"),
        (ValueError("x"), None),
    ],
)
def test_codes_of_faults(fault: Exception, code: str | None) -> None:
    """One table says what a fault is called; a bug of ours has no code."""
    assert code_of(fault) == code


@pytest.mark.parametrize(
    ("script", "error", "events"),
    [
        (lambda peer: peer.request() and peer.reset(), "reset", None),
        (once(CHUNKED + chunk(event("a")), close=True), "closed_early", 1),
        (once(CHUNKED + chunk(event("a"))[:-9], close=True), "closed_early", 0),
        (once(CHUNKED + chunk(event("a")) + chunk(b"")), "closed_early", 1),
        (once(SSE + b"\r\n" + event("a"), close=True), "closed_early", 1),
        (once(CHUNKED + b"zz\r\n"), "bad_response", 0),
        (once(b"220 ready\r\n"), "bad_response", None),
        (once(CHUNKED + chunk(b"data: oops\n\n") + END), "bad_response", 0),
        (once(CHUNKED + END), "empty_answer", 0),
        (once(CHUNKED + chunk(b"data: [DONE]\n\n") + chunk(b"")), "empty_answer", 0),
        (once(CHUNKED + chunk(usage(0)) + END), "empty_answer", 0),
        (once(answer("200 OK", b"")), "empty_answer", None),
        (once(answer("200 OK", b"{}")), "empty_answer", 0),
        (once(answer("200 OK", b"<html>", kind="text/html")), "bad_response", 0),
        (once(answer("200 OK", b"<html>")), "bad_response", None),
        (once(answer("200 OK", b"x", "Content-Encoding: br")), "bad_response", None),
        (once(CHUNKED + chunk(event("a")) + chunk(b"x" * 999)), "too_large", 1),
        (once(answer("302 Found", b"", "Location: /")), "http_302", None),
        (once(answer("500 Oops", b"a\n  trace")), "http_500", None),
        (once(answer("503 Oops", b"abc")[:-1], close=True), "http_503", None),
    ],
)
def test_a_server_that_fails(script: Script, error: str, events: int | None) -> None:
    """Each failure has its code, and what came before it is kept."""
    with serving(script) as server, client(server.url, limit=500) as made:
        failed = ask(made)
        assert "0 idle" in repr(made) or failed.status is not None
    assert failed.error == error
    assert failed.sent <= failed.end
    if events is None:
        assert failed.reply is None
    else:
        assert failed.reply is not None
        assert failed.reply.events == events


@pytest.mark.parametrize(
    "response",
    [
        CHUNKED + chunk(usage(9)) + END,
        answer("200 OK", b'{"choices":[],"usage":{"completion_tokens":9}}'),
        answer("200 OK", b'{"choices":[{"message":{"content":"Hi"}}]}'),
        answer("200 OK", b'{"choices":[{"message":{"tool_calls":[{"id":"a"}]}}]}'),
    ],
)
def test_an_answer_without_visible_text_may_be_whole(response: bytes) -> None:
    """Hidden reasoning that used up `max_tokens` was counted; a tool call is said."""
    with serving(once(response)) as server, client(server.url) as made:
        answered = ask(made)
    assert (answered.status, answered.error) == (200, None)
    assert answered.reply is not None
    assert answered.reply.first is None


def test_only_who_asks_for_a_stream_needs_an_answer() -> None:
    """An empty list of models is not an error."""
    with serving(once(answer("200 OK", b""))) as server, client(server.url) as made:
        assert made.send(path="/v1/models", method="GET").error is None


def test_an_error_in_a_stream() -> None:
    """What the server says of its trouble is the error, also if it then breaks off."""
    trouble = chunk(b'data: {"error":{"message":"engine died","type":"x"}}\n\n')
    for end in (END, b""):
        response = CHUNKED + chunk(event("a")) + trouble + end
        with serving(once(response, close=True)) as server, client(server.url) as made:
            failed = ask(made)
        assert (failed.error, failed.error_text) == ("stream_error", "engine died")
        assert failed.reply is not None
        assert failed.reply.events == 1


def test_an_error_object_is_read_and_the_key_blotted_out() -> None:
    """The text is the server's message, short, without the key it repeats."""
    message = f"Incorrect API key provided: {KEY}. " + "x" * 400
    body = b'{"error":{"message":"%b","type":"auth"}}' % message.encode()
    with serving(once(answer("401 Unauthorized", body))) as server, \
            client(server.url) as made:  # fmt: skip
        refused = ask(made)
    assert (refused.error, refused.status) == ("http_401", 401)
    assert refused.error_text.startswith("Incorrect API key provided: ***. xxx")
    assert len(refused.error_text) <= 200


def test_the_key_is_blotted_out_of_stream_errors_too() -> None:
    """Also from the reply that carries the error object."""
    trouble = b'data: {"error":"bad key %b"}\n\n' % KEY.encode()
    with serving(once(CHUNKED + chunk(trouble) + END)) as server, \
            client(server.url) as made:  # fmt: skip
        failed = ask(made)
    assert failed.error_text == "bad key ***"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (("Retry-After: 7",), 7.0),
        (("Retry-After: 1.5",), 1.5),
        (("retry-after-ms: 250", "Retry-After: 1"), 0.25),
        (("Date: Sat, 01 Nov 2025 10:00:00 GMT",
          "Retry-After: Sat, 01 Nov 2025 10:00:30 GMT"), 30.0),
        (("Retry-After: Sat, 01 Nov 2025 10:00:30 GMT",), 0.0),
        (("Retry-After: soon",), None),
        (("Retry-After: -1",), None),
        (("Retry-After: inf",), None),
        ((), None),
    ],
)  # fmt: skip
def test_throttled(headers: tuple[str, ...], seconds: float | None) -> None:
    """429 says how long to wait, in any of the forms servers use."""
    response = answer("429 Too Many Requests", b'{"error":"slow down"}', *headers)
    with serving(once(response)) as server, client(server.url) as made:
        refused = ask(made)
        assert "1 idle" in repr(made)
    assert (refused.error, refused.error_text) == ("http_429", "slow down")
    assert refused.retry_after_s == seconds


def test_an_unusable_request_is_the_callers_mistake() -> None:
    """A header that cannot be sent raises before anything is opened."""
    with client(refusing_url()) as made:
        with pytest.raises(UsageError):
            made.send(b"{}", path=PATH, headers={"x": "a\r\nb: c"})
        with pytest.raises(UsageError):
            made.send(b"{}", path="/a b")
        assert made.opened == 0


# ---------------------------------------------------------------- patience


def endless(peer: Peer) -> None:
    """Send a token every few milliseconds until the client has had enough."""
    assert peer.request()
    peer.send(CHUNKED)
    peer.socket.settimeout(0.005)
    while True:
        try:
            peer.send(chunk(event("a")))
            assert peer.read() == b""
        except TimeoutError:
            continue
        except OSError:
            pass
        return


@pytest.mark.parametrize(
    ("script", "waits", "error"),
    [
        (silent(), {"first_byte": 0.03}, "timeout_first_byte"),
        (silent(CHUNKED), {"first_byte": 0.03}, "timeout_first_byte"),
        (silent(CHUNKED, chunk(event("a"))), {"idle": 0.03}, "timeout_idle"),
        (silent(CHUNKED, chunk(event("a"))), {"total": 0.03}, "timeout_total"),
        (endless, {"total": 0.05, "idle": 0.04}, "timeout_total"),
    ],
)
def test_patience_ends(script: Script, waits: dict[str, float], error: str) -> None:
    """Each wait has its own end and name; the connection is closed."""
    with serving(script) as server, client(server.url, **waits) as made:
        failed = ask(made)
        assert "0 busy, 0 idle" in repr(made)
    assert failed.error == error
    assert failed.error_text.startswith("gave up waiting")
    wait = waits.get("total") or min(waits.values())
    assert wait <= failed.end - failed.sent < PATIENCE_S


def test_a_server_that_does_not_read_is_given_up() -> None:
    """The deadline also holds while the request is still being sent."""
    release = threading.Event()
    with serving(lambda _: release.wait(PATIENCE_S)) as server:
        with client(server.url, total=0.05) as made:
            failed = ask(made, b"x" * 32_000_000)
        release.set()
    assert failed.error == "timeout_total"


def test_a_handshake_that_never_ends() -> None:
    """TLS belongs to connecting and shares its deadline."""
    with serving(lambda peer: peer.read() and peer.read()) as server:
        url = server.url.replace("http:", "https:")
        with client(url, connect=0.03, verify=False) as made:
            failed = ask(made)
    assert failed.error == "timeout_connect"


@pytest.mark.parametrize("how", ["kill", "timeout"])
@pytest.mark.parametrize("parts", [(), (CHUNKED, chunk(event("a")))])
def test_a_killed_greenlet_leaves_nothing(how: str, parts: tuple[bytes, ...]) -> None:
    """The socket is closed, no watcher lives on, and the client goes on working."""
    asked = threading.Event()

    def script(peer: Peer) -> None:
        assert peer.request()
        for part in parts:
            peer.send(part)
        asked.set()
        assert peer.read() == b""

    with serving(script, once(ANSWER)) as server, client(server.url) as made:
        before = gevent.get_hub().loop.activecnt
        asking = gevent.spawn(ask, made)
        while not asked.is_set():
            gevent.sleep(0.001)
        assert "1 busy" in repr(made)
        death = gevent.GreenletExit() if how == "kill" else gevent.Timeout()
        asking.kill(death, block=True)
        assert gevent.get_hub().loop.activecnt == before
        assert "0 busy, 0 idle" in repr(made)
        check(ask(made))


def test_a_timeout_around_a_request() -> None:
    """`gevent.Timeout` works as it does everywhere, and closes the connection."""
    with serving(silent(CHUNKED)) as server, client(server.url) as made:
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.03):
            ask(made)
        assert "0 busy, 0 idle" in repr(made)


def test_all_this_under_the_monkey_patch() -> None:
    """Locust patches socket, ssl and threading; the client does not mind."""
    here = Path(__file__).parent
    files = [str(here / "test_client.py"), str(here / "test_tls.py")]
    options = ["-q", "-p", "no:cacheprovider", "-k"]
    names = "a_chunked_stream or own or kept or killed or first_byte"
    code = (
        "import gevent.monkey; gevent.monkey.patch_all()\n"
        "import sys, pytest\n"
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *options, names, *files],
        capture_output=True, text=True, timeout=60, check=False,
        cwd=here.parents[1], env=os.environ | {"PYTEST_ADDOPTS": ""},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
