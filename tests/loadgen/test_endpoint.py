"""Base URLs and keys: what is meant, what is refused, and what never shows."""

import pytest
from scripted import KEY, PATH

from loadgen.client import Endpoint
from loadstone.errors import UsageError


@pytest.mark.parametrize(
    ("url", "shown", "host", "target"),
    [
        ("http://localhost:8000", "http://localhost:8000", "localhost:8000", PATH),
        ("http://H/", "http://h", "h", PATH),
        ("https://h:443/a/b/", "https://h/a/b", "h", "/a/b" + PATH),
        ("https://h/v1", "https://h/v1", "h", PATH),
        ("http://[::1]:81", "http://[::1]:81", "[::1]:81", PATH),
        ("unix:/run/s", "unix:/run/s", "localhost", PATH),
        ("http://b\u00fccher.de", "http://xn--bcher-kva.de", "xn--bcher-kva.de", PATH),
    ],
)
def test_endpoints(url: str, shown: str, host: str, target: str) -> None:
    """A base URL becomes a place, a Host header and a prefix."""
    endpoint = Endpoint.parse(url)
    assert (endpoint.url, endpoint.authority) == (shown, host)
    assert endpoint.target(PATH) == target
    assert (endpoint.tls is not None) is url.startswith("https")


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "http://", "ftp://h", "http://h:99999", "http://h:0",
     "unix:",
     "http://h h", "http://a..b", "http://[zz]", f"http://h?key={KEY}", "http://h#x",
     f"http://user:{KEY}@h", f"http://user:{KEY}@h:x", "http://" + "a" * 64],
)  # fmt: skip
def test_what_is_no_endpoint(url: str) -> None:
    """Junk is a usage error that says what to write, and shows no secret."""
    with pytest.raises(UsageError) as caught:
        Endpoint.parse(url)
    assert caught.value.hint
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", ["", "sk x", "sk\n", "sk\u20ac"])
def test_what_is_no_key(key: str) -> None:
    """A key that no header can carry is refused, unseen."""
    with pytest.raises(UsageError) as caught:
        Endpoint.parse("http://h", api_key=key)
    assert not key or key not in str(caught.value)


def test_keys_and_their_headers() -> None:
    """A bearer by default, the bare key where a service wants it, nothing without."""
    assert Endpoint.parse("http://h").headers() == {}
    bearer = Endpoint.parse("http://h", api_key=KEY)
    assert bearer.headers() == {"authorization": f"Bearer {KEY}"}
    azure = Endpoint.parse("http://h", api_key=KEY, key_header="api-key")
    assert azure.headers() == {"api-key": KEY}


@pytest.mark.parametrize(("key", "kept"), [("abcd", ("abcd",)), ("abc", ()), ("v", ())])
def test_a_word_that_is_in_any_text_is_no_secret(
    key: str, kept: tuple[str, ...]
) -> None:
    """Else a key of one letter would be blotted out of the server's own JSON."""
    assert Endpoint.parse("http://h", api_key=key).secrets == kept
