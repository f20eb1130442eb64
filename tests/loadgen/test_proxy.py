"""Through a proxy: only if asked for, in the form that the scheme needs."""

import base64
from pathlib import Path

import pytest
from authority import Authority
from scripted import (
    ANSWER,
    KEY,
    PATH,
    Peer,
    answer,
    ask,
    check,
    client,
    once,
    serving,
    silent,
)

from loadgen.client import Endpoint
from loadgen.probe import probe
from loadgen.proxy import Proxy, proxy_for
from loadstone.errors import LoadstoneError, NotModelledError, UsageError
from loadstone.traffic.plan import Plan

PASSWORD = "s3cret:%40"
BASIC = base64.b64encode(b"u:s3cret:@").decode()
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY",
             "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD")  # fmt: skip


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what this machine says of proxies out of the environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_plain_requests_go_in_absolute_form() -> None:
    """The proxy is told the whole URL; the Host is the endpoint's."""
    requests: list[bytes] = []

    def script(peer: Peer) -> None:
        for _ in range(2):
            requests.append(peer.request())
            peer.send(ANSWER)

    with serving(script) as proxy, \
            client("http://rack.test:81/base", proxy=proxy.url) as made:  # fmt: skip
        check(ask(made))
        check(ask(made))
        assert made.opened == 1
    line = f"POST http://rack.test:81/base{PATH} HTTP/1.1\r\nHost: rack.test:81\r\n"
    for request in requests:
        assert request.startswith(line.encode())
        assert f"authorization: Bearer {KEY}".encode() in request
        assert b"Proxy-Authorization" not in request


def test_tls_goes_through_a_tunnel(tmp_path: Path) -> None:
    """The proxy learns the place and never the key; the certificate is the rack's."""
    authority = Authority(tmp_path)
    context = authority.server("rack.test")
    asked: list[bytes] = []

    def script(peer: Peer) -> None:
        asked.append(peer.request())
        peer.send(b"HTTP/1.1 200 Connection established\r\nX-Via: p\r\n\r\n")
        inner = Peer(context.wrap_socket(peer.socket, server_side=True))
        asked.append(inner.request())
        inner.send(ANSWER)
        inner.close()

    with serving(script) as proxy, \
            client("https://rack.test", proxy=proxy.url, ca_file=authority.file) \
            as made:  # fmt: skip
        check(ask(made))
    assert asked[0].startswith(
        b"CONNECT rack.test:443 HTTP/1.1\r\nHost: rack.test:443\r\n"
    )
    assert KEY.encode() not in asked[0]
    assert asked[1].startswith(f"POST {PATH} HTTP/1.1\r\nHost: rack.test\r\n".encode())


def test_who_we_are_to_the_proxy_is_for_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """User and password come from the environment and go into one header."""
    asked: list[bytes] = []

    def script(peer: Peer) -> None:
        asked.append(peer.request())
        peer.send(ANSWER)

    with serving(script) as proxy:
        place = proxy.url.removeprefix("http://")
        monkeypatch.setenv("http_proxy", f"http://u:{PASSWORD}@{place}")
        with client("http://rack.test", proxy="env") as made:
            check(ask(made))
            assert BASIC not in repr(made.endpoint)
            assert "s3cret" not in repr(made.endpoint) + str(made.endpoint.proxy)
    assert f"Proxy-Authorization: Basic {BASIC}\r\n".encode() in asked[0]
    monkeypatch.setenv("HTTPS_PROXY", f"u:{PASSWORD}@p:1")
    tunnelled = Endpoint.parse("https://rack.test", proxy="env", verify=False)
    assert BASIC.encode() in (tunnelled.tunnel or b"")
    assert tunnelled.headers() == {}


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        (once(answer("407 Proxy Authentication Required", b"")), "proxy", "HTTP 407"),
        (once(answer("502 Bad Gateway", b"x")), "proxy", "HTTP 502"),
        (once(b"", close=True), "proxy", "closed"),
        (once(b"SSH-2.0\r\n"), "bad_response", "not HTTP"),
        (silent(b"HTTP/1.1 200 OK\r\n"), "timeout_connect", "connect timeout"),
        (once(b"HTTP/1.1 200 OK\r\n\r\n", close=True), "tls", ""),
    ],
)
def test_a_tunnel_that_is_not_made(script: object, error: str, said: str) -> None:
    """The request fails with the proxy's own words; nothing was sent to the rack."""
    with serving(script) as proxy, \
            client("https://rack.test", proxy=proxy.url, verify=False, connect=0.3) \
            as made:  # fmt: skip
        failed = ask(made)
    assert (failed.error, failed.status) == (error, None)
    assert said in failed.error_text


@pytest.mark.parametrize("url", ["http://rack.test", "https://rack.test"])
def test_a_proxy_that_refuses_is_told_before_the_run(url: str) -> None:
    """In either form, with what to do about it."""
    refusal = answer("407 Proxy Authentication Required", b"")
    with serving(once(refusal, close=True)) as proxy:
        endpoint = Endpoint.parse(url, proxy=proxy.url, verify=False)
        with pytest.raises(LoadstoneError, match="407") as caught:
            probe(endpoint, Plan(rate=1.0))
    assert caught.value.code == "proxy"
    assert "--proxy env" in caught.value.hint


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({"http_proxy": "http://p:1"}, "http://h", "http://p:1"),
        ({"http_proxy": "p:1"}, "http://h", "http://p:1"),
        ({"http_proxy": "p"}, "http://h", "http://p:1080"),
        ({"http_proxy": "p:1"}, "https://h", "None"),
        ({"HTTPS_PROXY": "p:2"}, "https://h", "http://p:2"),
        ({"ALL_PROXY": "p:3"}, "https://h", "http://p:3"),
        ({"http_proxy": "p:1", "no_proxy": "a, h"}, "http://h", "None"),
        ({"http_proxy": "p:1", "NO_PROXY": ".h.test"}, "http://x.h.test", "None"),
        ({"http_proxy": "p:1", "no_proxy": "h:81"}, "http://h:82", "http://p:1"),
        ({"http_proxy": "p:1", "no_proxy": "*"}, "http://h", "None"),
        ({}, "http://h", "None"),
    ],
)
def test_the_environment_is_read_as_curl_does(
    environ: dict[str, str], url: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only if it is asked for."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert str(Endpoint.parse(url, proxy="env").proxy) == proxy
    assert Endpoint.parse(url).proxy is None


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("", UsageError),
        ("http://", UsageError),
        ("http://p:99999", UsageError),
        ("http://p:0", UsageError),
        ("http://p/path", UsageError),
        ("ftp://p", UsageError),
        (f"http://u:{PASSWORD}@p", UsageError),
        ("https://p", NotModelledError),
        ("socks5://p", NotModelledError),
    ],
)
def test_what_is_no_proxy(url: str, error: type[Exception]) -> None:
    """It is refused in words that show no password."""
    with pytest.raises(error) as caught:
        proxy_for(url, scheme="http", host="h", port=80)
    assert "s3cret" not in str(caught.value)


def test_ipv6_places_are_bracketed() -> None:
    """As a CONNECT needs them."""
    request = Proxy("p", 1).tunnel_request("::1", 443)
    assert request.startswith(b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n")


@pytest.mark.parametrize("url", ["unix:relative", "unix:./s"])
def test_unix_paths_are_absolute(url: str) -> None:
    """The load generator runs in a folder of its own."""
    with pytest.raises(UsageError, match="absolute"):
        Endpoint.parse(url)


def test_there_is_no_proxy_to_a_unix_socket() -> None:
    """An option that has no meaning is refused, not ignored."""
    with pytest.raises(UsageError, match="proxy"):
        Endpoint.parse("unix:/s", proxy="env")
