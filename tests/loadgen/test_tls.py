"""The same client over TLS, and whom it believes."""

import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from authority import Authority
from scripted import (
    ANSWER,
    CHUNKED,
    END,
    SSE,
    STOP,
    Peer,
    ask,
    check,
    chunk,
    client,
    event,
    once,
    serving,
)

from loadgen.client import Endpoint
from loadstone.errors import UsageError


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make an authority that no system knows."""
    return Authority(tmp_path_factory.mktemp("ca"))


def twice(peer: Peer) -> None:
    """Answer two requests on one connection."""
    for _ in range(2):
        assert peer.request()
        peer.send(ANSWER)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_with_an_authority_of_ones_own(
    authority: Authority, newest: ssl.TLSVersion
) -> None:
    """The same client over TLS, kept alive in spite of the server's session tickets."""
    context = authority.server("127.0.0.1", newest=newest)
    with serving(twice, tls=context) as server, \
            client(server.url, ca_file=authority.file) as made:  # fmt: skip
        check(ask(made))
        second = ask(made)
        check(second)
        assert (second.connect_s, made.opened) == (0.0, 1)
        assert second.bytes_in > len(ANSWER)
        assert "with TLS: idle, 2 exchanges" in repr(made._idle)


def test_tls_bodies_larger_than_a_record(authority: Authority) -> None:
    """Both ways, in many records and reads."""
    text = "x" * 3_000_000

    def script(peer: Peer) -> None:
        assert len(peer.request()) > 3_000_000
        peer.send(CHUNKED + chunk(event(text)) + END)

    with serving(script, tls=authority.server("127.0.0.1")) as server, \
            client(server.url, ca_file=authority.file) as made:  # fmt: skip
        reply = ask(made, text.encode()).reply
    assert reply is not None
    assert reply.text == text


def test_tls_close_without_framing(authority: Authority) -> None:
    """A close_notify ends a body that lasts until the close."""

    def script(peer: Peer) -> None:
        assert peer.request()
        peer.send(SSE + b"\r\n" + event("Hel") + event("lo") + STOP)
        assert isinstance(peer.socket, ssl.SSLSocket)
        with suppress(OSError):
            peer.socket.unwrap()

    with serving(script, tls=authority.server("127.0.0.1")) as server, \
            client(server.url, ca_file=authority.file) as made:  # fmt: skip
        check(ask(made))
        assert "0 idle" in repr(made)


def test_tls_that_nobody_vouches_for(authority: Authority) -> None:
    """By default only the system's authorities count."""
    with serving(once(ANSWER), tls=authority.server("127.0.0.1")) as server, \
            client(server.url) as made:  # fmt: skip
        failed = ask(made)
    assert (failed.error, failed.status) == ("tls", None)
    assert "certificate" in failed.error_text


def test_tls_with_another_name(authority: Authority) -> None:
    """A valid certificate of somebody else is no proof."""
    with serving(once(ANSWER), tls=authority.server("other.test")) as server, \
            client(server.url, ca_file=authority.file) as made:  # fmt: skip
        failed = ask(made)
    assert failed.error == "tls"
    assert "127.0.0.1" in failed.error_text


def test_tls_without_verification(authority: Authority) -> None:
    """Only on request, anybody is trusted."""
    with serving(once(ANSWER), tls=authority.server("other.test")) as server, \
            client(server.url, verify=False) as made:  # fmt: skip
        check(ask(made))


@pytest.mark.parametrize("text", [b"nonsense", b"", b"\x16\x03"])
def test_tls_to_a_server_without(text: bytes) -> None:
    """Plain text where a handshake was due is `tls`."""

    def script(peer: Peer) -> None:
        assert peer.read()
        peer.send(text)
        peer.close()

    with serving(script) as server:
        url = server.url.replace("http:", "https:")
        with client(url, verify=False) as made:
            assert ask(made).error == "tls"


def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    """A missing or empty file is a usage error with its name."""
    (tmp_path / "empty").touch()
    for name in ("missing", "empty"):
        with pytest.raises(UsageError, match=name):
            Endpoint.parse("https://h", ca_file=str(tmp_path / name))
