"""Where requests go: a base URL with its key, its TLS settings, and Azure's paths."""

import re
import ssl
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

from loadstone.errors import UsageError
from loadstone.wire.api import Api

from .auth import Credential, fixed
from .proxy import Proxy, proxy_for
from .tls import tls_context

_PORTS: Final = {"http": 80, "https": 443}
SHORTEST_SECRET: Final = 4
"""Characters. A key of three is guessed sooner than it is read somewhere."""
_HINT: Final = "write it as http://localhost:8000, https://host/prefix or unix:/path"
_HOST = re.compile(r"[0-9A-Za-z._\-]+|[0-9A-Fa-f:.]+(?:%[0-9A-Za-z._\-]+)?")
_NAME = re.compile(r"[0-9A-Za-z._\-]+")
AZURE_V1: Final = "v1"
"""The version of Azure's API that has no date, and OpenAI's own paths."""


@dataclass(frozen=True, slots=True)
class Azure:
    """A deployment on Azure OpenAI, and the version of the API it is spoken to in.

    Raises `UsageError` for a name that no path or query can carry.
    """

    deployment: str
    version: str

    def __post_init__(self) -> None:
        for flag, name in (
            ("--azure-deployment", self.deployment),
            ("--azure-api-version", self.version),
        ):
            if not _NAME.fullmatch(name):
                raise UsageError(
                    f"{flag} {name!r} is not a name that Azure has",
                    hint="letters, digits, dots, dashes and underscores",
                )

    def path(self, api: Api) -> str:
        """Return where the deployment has that API."""
        if self.version == AZURE_V1 or not api.deployed:
            return f"/openai/v1{api.path}"
        place = f"/openai/deployments/{self.deployment}{api.path}"
        return f"{place}?api-version={self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server to talk to. The key is in `headers()` and in nothing that prints."""

    scheme: str
    host: str
    port: int
    prefix: str = ""
    """Path of the base URL, without a slash at its end."""
    unix_path: str | None = None
    credential: Credential | None = field(default=None, repr=False, compare=False)
    key_header: str = "authorization"
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    proxy: Proxy | None = None
    azure: Azure | None = None

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        api_key: str | None = None,
        credential: Credential | None = None,
        key_header: str = "authorization",
        azure: Azure | None = None,
        ca_file: str | None = None,
        verify: bool = True,
        proxy: str | None = None,
    ) -> Self:
        """Read a base URL: `http://host[:port][/prefix]`, https the same, `unix:/path`.

        The key is `api_key`, or what `credential` has at the time of each request.
        `key_header` other than `authorization` gets the bare key, as Azure's `api-key`
        does. `proxy` is a URL, or `env` for what the environment says. Raises
        `UsageError` for what cannot be meant; it never shows a key or a password.
        """
        if api_key is not None:
            credential = fixed(api_key)
        if url.startswith("unix:") and len(url) > len("unix:"):
            path = url.removeprefix("unix:")
            _check_unix(path, proxy)
            return cls(
                scheme="http", host="localhost", port=80, unix_path=path,
                credential=credential, key_header=key_header, azure=azure,
            )  # fmt: skip
        parts = _split(url)
        secure = parts.scheme == "https"
        host, port = _host(parts.hostname or ""), parts.port or _PORTS[parts.scheme]
        return cls(
            scheme=parts.scheme,
            host=host,
            port=port,
            prefix=parts.path.rstrip("/"),
            credential=credential,
            key_header=key_header,
            azure=azure,
            tls=tls_context(ca_file, verify=verify) if secure else None,
            proxy=proxy_for(proxy, scheme=parts.scheme, host=host, port=port),
        )

    def __str__(self) -> str:
        return self.url

    @property
    def url(self) -> str:
        """The base URL, without the key."""
        if self.unix_path is not None:
            return f"unix:{self.unix_path}"
        return f"{self.scheme}://{self.authority}{self.prefix}"

    @property
    def authority(self) -> str:
        """The `Host` header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def tunnel(self) -> bytes | None:
        """What asks the proxy for a tunnel; None where none is needed."""
        if self.proxy is None or self.scheme != "https":
            return None
        return self.proxy.tunnel_request(self.host, self.port)

    def target(self, path: str) -> str:
        """Return what to ask this server for, or the proxy that passes it on.

        A base URL that ends in `/v1`, as OpenAI's own clients want it, says it once for
        all.
        """
        if self.prefix.endswith("/v1") and path.startswith("/v1/"):
            path = path.removeprefix("/v1")
        through_proxy = self.proxy is not None and self.scheme == "http"
        return (self.url if through_proxy else self.prefix) + path

    def path(self, api: Api) -> str:
        """Return the path of an API here, to be given to `target`."""
        return self.azure.path(api) if self.azure else f"/v1{api.path}"

    @property
    def api_key(self) -> str | None:
        """The key in use."""
        return None if self.credential is None else self.credential.text

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not show, should a peer repeat it: the longest first.

        Words that are in any text are no secrets: to blot them out spoils the text.
        """
        if self.credential is None and self.proxy is None:
            return ()
        known = self.credential.secrets if self.credential else ()
        proxy = self.proxy.credentials if self.proxy else None
        words = (*known, *((proxy,) if proxy else ()))
        return tuple(
            sorted((w for w in words if len(w) >= SHORTEST_SECRET), key=len)[::-1]
        )

    def headers(self) -> dict[str, str]:
        """Return the headers that show who asks, with the key in use now."""
        plain = self.proxy is not None and self.scheme == "http"
        shown = self.proxy.headers() if self.proxy is not None and plain else {}
        if self.credential is None:
            return shown
        bearer = self.key_header.lower() == "authorization"
        text = self.credential.text
        key = f"Bearer {text}" if bearer else text
        return {self.key_header: key, **shown}


def _check_unix(path: str, proxy: str | None) -> None:
    if not path.startswith("/"):
        raise UsageError(f"'unix:{path}' is not an absolute path", hint=_HINT)
    if proxy is not None:
        raise UsageError("there is no proxy to a Unix socket", hint="leave it out")


def _split(url: str) -> SplitResult:
    """Split a URL and refuse what a base URL cannot have."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        # A query or a user may be a secret, and an error is printed.
        shown = "this URL" if "@" in url else url.partition("?")[0]
        raise UsageError(f"{shown!r} is not an endpoint", hint=_HINT)
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "an endpoint has no user or password", hint="give a key instead"
        )
    if parts.query or parts.fragment:
        bare = f"{parts.scheme}://{parts.netloc}{parts.path}"
        raise UsageError(f"more follows {bare!r}: a query or a fragment", hint=_HINT)
    return parts


def _host(host: str) -> str:
    """Return the host as DNS and certificates know it."""
    try:
        ascii_host = host.encode("idna").decode()  # checks the labels' lengths, too
    except UnicodeError:
        ascii_host = ""
    if not _HOST.fullmatch(ascii_host):
        raise UsageError(f"{host!r} is not a host name", hint=_HINT)
    return ascii_host
