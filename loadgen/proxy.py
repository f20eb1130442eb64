"""The way through a proxy, where one is asked for.

Nothing is taken from the environment unasked, as curl and OpenAI's client would: a run
through a proxy that nobody thought of measures the proxy. `--proxy env` asks for what
curl does with `http_proxy`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.

Plain requests go to the proxy in absolute form (RFC 9112, 3.2.2); for https it is asked
for a tunnel by CONNECT (RFC 9110, 9.3.6), in which TLS then speaks to the endpoint.
"""

import base64
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import unquote, urlsplit
from urllib.request import (  # type: ignore[attr-defined] # not all are in the stubs
    getproxies_environment,
    proxy_bypass_environment,
)

from loadstone import __version__
from loadstone.errors import NotModelledError, UsageError
from loadstone.wire.http1 import request_bytes

FROM_ENVIRONMENT: Final = "env"
_PORT: Final = 1080
"""curl's default for a proxy URL without a port."""
_HINT: Final = "write it as http://host:port, or `env` for what the environment says"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; who we are to it is in `headers()` and in nothing that prints."""

    host: str
    port: int
    credentials: str | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}"

    @classmethod
    def parse(cls, url: str, *, may_have_password: bool = False) -> Self:
        """Read a proxy's URL, `http://` left out or not.

        Raises `UsageError` for what cannot be meant, and for a password where others
        could see it; `NotModelledError` for proxies that speak something else.
        """
        full = url if "://" in url else f"http://{url}"
        try:
            parts = urlsplit(full)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme in ("https", "socks4", "socks4a", "socks5", "socks5h"):
            raise NotModelledError(
                f"a proxy that speaks {parts.scheme} is not supported", hint=_HINT
            )
        plain = parts.path in ("", "/") and not parts.query and not parts.fragment
        if parts.scheme != "http" or not host or not plain or port == 0:
            shown = url if "@" not in url else "this URL"
            raise UsageError(f"{shown!r} is not a proxy", hint=_HINT)
        if parts.username is None:
            return cls(host, port or _PORT)
        if not may_have_password:
            raise UsageError(
                "a proxy's user and password do not belong on a command line",
                hint="export HTTPS_PROXY or http_proxy, and give --proxy env",
            )
        user, word = unquote(parts.username), unquote(parts.password or "")
        pair = base64.b64encode(f"{user}:{word}".encode()).decode()
        return cls(host, port or _PORT, pair)

    def headers(self) -> dict[str, str]:
        """Return the header that shows who asks."""
        if self.credentials is None:
            return {}
        return {"Proxy-Authorization": f"Basic {self.credentials}"}

    def tunnel_request(self, host: str, port: int) -> bytes:
        """Return the request for a tunnel to that place."""
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        fields = {"User-Agent": f"loadstone/{__version__}", **self.headers()}
        return request_bytes("CONNECT", place, place, fields.items())


def proxy_for(
    setting: str | None, *, scheme: str, host: str, port: int
) -> Proxy | None:
    """Return the proxy for an endpoint, None if its requests go straight there.

    `setting` is a URL, `env`, or None. Raises as `Proxy.parse` does.
    """
    if setting is None:
        return None
    if setting != FROM_ENVIRONMENT:
        return Proxy.parse(setting)
    known = getproxies_environment()
    url = known.get(scheme) or known.get("all")
    if not url or proxy_bypass_environment(f"{host}:{port}", known):
        return None
    return Proxy.parse(url, may_have_password=True)
