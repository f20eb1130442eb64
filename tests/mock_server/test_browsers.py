"""What browsers, gateways and careless base URLs do to a server, on the wire."""

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from loadstone.errors import UsageError
from mock_server.config import ServerConfig

CHAT = "/v1/chat/completions"
PAGE, OTHER = "https://chat.example", "https://evil.example"
BODY = {
    "model": "llama", "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 2, "ignore_eos": True,
}  # fmt: skip


def answers(
    mock: Callable[..., Any], *asked: dict[str, Any], **settings: Any
) -> list[tuple[int, dict[str, str], bytes]]:
    """Ask one after the other; returns status, headers and body of each answer."""

    async def main() -> list[tuple[int, dict[str, str], bytes]]:
        found = []
        async with mock(**settings) as server, aiohttp.ClientSession() as session:
            for each in asked:
                usual = {"method": "POST", "path": CHAT}
                rest = usual | each
                url = server.url + rest.pop("path")
                async with session.request(
                    url=url, allow_redirects=False, **rest
                ) as response:
                    body = await response.read()
                    headers = {k.lower(): v for k, v in response.headers.items()}
                    found.append((response.status, headers, body))
        return found

    return asyncio.run(main())


def preflight(origin: str) -> dict[str, Any]:
    """Return what a browser asks before a page of that origin may ask with a key."""
    headers = {
        "origin": origin, "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }  # fmt: skip
    return {"method": "OPTIONS", "headers": headers}


ALLOW = "access-control-allow-origin"


def test_pages_of_an_allowed_origin_may_ask_and_read(mock: Callable[..., Any]) -> None:
    """The preflight without a key, then bodies, streams and errors; no other's."""
    key = {"authorization": "Bearer k"}
    (pre, asked, streamed, refused, evil_pre, evil) = answers(
        mock,
        preflight(PAGE),
        {"json": BODY, "headers": key | {"origin": PAGE}},
        {"json": BODY | {"stream": True}, "headers": key | {"origin": PAGE}},
        {"json": BODY, "headers": {"origin": PAGE}},
        preflight(OTHER),
        {"json": BODY, "headers": key | {"origin": OTHER}},
        api_key="k",
        origins=(PAGE,),
    )
    assert pre[0] == 200
    assert pre[1]["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in pre[1]["access-control-allow-methods"]
    assert [one[0] for one in (asked, streamed, refused)] == [200, 200, 401]
    for _, headers, _ in (pre, asked, streamed, refused):
        assert headers[ALLOW] == PAGE
        assert headers["vary"] == "Origin"
    assert b"data: [DONE]" in streamed[2]
    assert evil_pre[0] == 403
    assert evil[0] == 200  # a browser shows the page none of it
    for _, headers, _ in (evil_pre, evil):
        assert ALLOW not in headers


def test_all_origins_or_none(mock: Callable[..., Any]) -> None:
    """`*` is for all; without the option a preflight is what it was: no method."""
    asked = ({"json": BODY, "headers": {"origin": OTHER}}, preflight(OTHER))
    for _, headers, _ in answers(mock, *asked, origins=("*",)):
        assert headers[ALLOW] == "*"
    plain, pre = answers(mock, *asked)
    assert (plain[0], pre[0]) == (200, 405)
    assert ALLOW not in plain[1] | pre[1]


@pytest.mark.parametrize("origin", ["", "chat.example", "https://a/b", "null", "://a"])
def test_what_is_no_origin_is_refused_at_the_start(origin: str) -> None:
    """A list that allows nobody would look like one that does."""
    with pytest.raises(UsageError, match="is not an origin"):
        ServerConfig(model="m", preset="p", origins=(origin,))


def test_a_slash_too_many_leads_to_the_path_without_it(
    mock: Callable[..., Any],
) -> None:
    """As FastAPI does it, 307: the method and the body stay."""
    told = answers(
        mock,
        {"path": CHAT + "/?a=b", "json": BODY},
        {"path": "/v1/models/", "method": "GET"},
        {"path": "/health/", "method": "GET"},
        {"path": "/v1/nothing/", "method": "GET"},
    )
    assert [status for status, _, _ in told] == [307, 307, 307, 404]
    assert [headers.get("location") for _, headers, _ in told] == [
        CHAT + "?a=b", "/v1/models", "/health", None,
    ]  # fmt: skip


def test_what_gateways_send_is_understood(mock: Callable[..., Any]) -> None:
    """Compressed and chunked bodies, an announced body, a HEAD for a health check."""
    raw = json.dumps(BODY).encode()
    kind = {"content-type": "application/json"}
    told = answers(
        mock,
        {"data": gzip.compress(raw), "headers": kind | {"content-encoding": "gzip"}},
        {"data": raw, "headers": kind, "chunked": True},
        {"data": raw, "headers": kind, "expect100": True},
        {"path": "/health", "method": "HEAD"},
        {"path": "/ping", "method": "GET"},
    )
    assert [status for status, _, _ in told] == [200] * 5
    contents = [json.loads(body)["usage"]["completion_tokens"] for *_, body in told[:3]]
    assert contents == [2, 2, 2]
