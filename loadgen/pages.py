"""Where a server's own metrics are: the pages to scrape, named or guessed.

A page is given by its URL, which may carry no secret: it would be on a command line, in
the plan and in the summary. The endpoint's key is shown to pages of the endpoint's own
scheme, host and port, and to no other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from loadstone.errors import UsageError

AUTO: Final = "auto"
_HINT: Final = "write it as http://host:8000/metrics, or auto"
GUESSES: Final = ("/metrics", "/prometheus/metrics", "/v1/metrics")
"""Where engines have them: vLLM, SGLang and the mock; TensorRT-LLM; NIM."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of metrics: a base URL and the path below it."""

    base: str
    path: str

    def __str__(self) -> str:
        return self.base + self.path


def metrics_url(url: str) -> Page:
    """Read a page's URL; raises `UsageError`, and shows neither a user nor a query."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
        secret = "@" in parts.netloc or bool(parts.query or parts.fragment)
        _ = parts.port
    except ValueError:
        raise UsageError(
            "this is not the URL of a page of metrics", hint=_HINT
        ) from None
    if secret:
        raise UsageError(
            "the URL of a page of metrics has no user, password or query",
            hint="they would be in the plan and the summary; " + _HINT,
        )
    if not known:
        raise UsageError(f"{url!r} is not the URL of a page of metrics", hint=_HINT)
    return Page(f"{parts.scheme}://{parts.netloc}", parts.path or GUESSES[0])


def pages_of(setting: str, host: str) -> Iterator[Page]:
    """Yield the pages of a setting, `auto` as all that the endpoint may have."""
    for url in setting.split(","):
        if url != AUTO:
            yield metrics_url(url)
            continue
        if host.startswith("unix:"):
            base = host
        else:
            parts = urlsplit(host)
            base = f"{parts.scheme}://{parts.netloc}"
        yield from (Page(base, path) for path in GUESSES)
