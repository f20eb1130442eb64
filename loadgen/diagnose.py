"""From one exchange to a finding: what is wrong with the endpoint, if anything is."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Final

from loadstone.errors import LoadstoneError

from .client import StreamingClient, Timeouts
from .endpoint import Endpoint
from .exchange import Exchange
from .findings import FINDINGS, fault
from .tls import tls_context

_CAUSES: Final[Mapping[str, str]] = {
    **{code: code for code in FINDINGS},
    "network": "unreachable",
    "timeout_first_byte": "no_answer",
    "timeout_idle": "no_answer",
    "timeout_total": "no_answer",
    "reset": "closed",
    "closed_early": "closed",
    "too_large": "bad_response",
}
"""What a broken exchange is called in the table of findings."""
_STATUSES: Final[tuple[tuple[range, str], ...]] = (
    (range(300, 400), "redirected"),
    (range(403, 404), "forbidden"),
    (range(404, 406), "path_unknown"),
    (range(407, 408), "proxy"),
    (range(400, 500), "request_refused"),
    (range(500, 600), "server_error"),
)
"""The first row that fits, where nothing more is known."""
_MODEL: Final = re.compile(
    r"\b(?:model|deployment)\b.{0,80}(?:not (?:exist|found)|does not|doesn't|unknown|"
    r"not (?:available|served|supported))|unknown model|DeploymentNotFound|"
    r"model_not_found|no such model",
    re.IGNORECASE | re.DOTALL,
)
_PLAIN_TO_TLS: Final = re.compile(
    r"plain HTTP request was sent to HTTPS|HTTP request to an HTTPS|"
    r"not HTTP/1: b'\\x15\\x03", re.IGNORECASE
)  # fmt: skip
_MAY_BE_TLS: Final = ("closed", "bad_response", "no_answer")
_MAY_BE_PLAIN: Final = ("tls", "no_answer", "timeout_connect", "closed")
_QUICK: Final = Timeouts(connect=5.0, first_byte=5.0, idle=5.0, total=8.0)


def code_of_exchange(exchange: Exchange, *, keyed: bool) -> str | None:
    """Return the code of what is wrong with an answer, None for nothing."""
    status = exchange.status
    if exchange.error is None:
        return None
    if status in (None, 400) and _PLAIN_TO_TLS.search(exchange.error_text):
        return "http_to_https"
    if status is None or 200 <= status < 300:
        return _CAUSES.get(exchange.cause or exchange.error, "bad_response")
    return _of_status(status, exchange, keyed=keyed)


def _of_status(status: int, exchange: Exchange, *, keyed: bool) -> str:
    if status == 401 or (status == 403 and not keyed):
        return "auth" if keyed else "auth_missing"
    if status == 429:
        told = exchange.retry_after_s is not None
        return "throttled" if told else "throttled_no_hint"
    if status in (400, 404) and _MODEL.search(exchange.error_text):
        return "model_unknown"
    return next((code for codes, code in _STATUSES if status in codes), "bad_response")


def diagnose(exchange: Exchange, endpoint: Endpoint) -> str | None:
    """Return the same, having tried the other scheme where it could be that."""
    code = code_of_exchange(exchange, keyed=endpoint.credential is not None)
    may_be = _MAY_BE_TLS if endpoint.scheme == "http" else _MAY_BE_PLAIN
    if code in may_be and exchange.status is None and _other_scheme_works(endpoint):
        return "http_to_https" if endpoint.scheme == "http" else "https_to_http"
    return code


def _other_scheme_works(endpoint: Endpoint) -> bool:
    """Ask the same port in the other scheme, without the key: nobody is verified."""
    if endpoint.unix_path is not None or endpoint.proxy is not None:
        return False
    plain = endpoint.scheme == "https"
    other = replace(
        endpoint,
        scheme="http" if plain else "https",
        tls=None if plain else tls_context(verify=False),
        credential=None,
    )
    client = StreamingClient(other, timeouts=_QUICK)
    try:
        return client.send(path="/", method="GET").status is not None
    finally:
        client.close()


def found_in(code: str, exchange: Exchange, endpoint: Endpoint, model: str) -> str:
    """Say what was found, in a line: who answered, and what."""
    told = _SAID.get(code)
    if told is not None:
        return told(exchange, endpoint, model)
    said = f": {exchange.error_text}" if exchange.error_text else ""
    if exchange.status is not None and exchange.status >= 300:
        return f"{endpoint.url} answered HTTP {exchange.status}{said}"
    if exchange.status is None and not exchange.bytes_in:
        return f"nothing answers at {endpoint.url}{said}"
    return f"{endpoint.url}{said}"


def _model_found(exchange: Exchange, endpoint: Endpoint, model: str) -> str:
    return f"{endpoint.url} has no model {model!r} (HTTP {exchange.status})"


def _key_found(exchange: Exchange, endpoint: Endpoint, model: str) -> str:  # noqa: ARG001 - one signature for all
    return f"{endpoint.url} refused the key (HTTP {exchange.status})"


def _path_found(exchange: Exchange, endpoint: Endpoint, model: str) -> str:  # noqa: ARG001 - one signature for all
    return f"{endpoint.url} knows no such path (HTTP {exchange.status})"


def _led_elsewhere(exchange: Exchange, endpoint: Endpoint, model: str) -> str:  # noqa: ARG001 - one signature for all
    place = exchange.headers.get("location", "nowhere").partition("?")[0]
    return f"{endpoint.url} leads to {place} (HTTP {exchange.status})"


def _throttled(exchange: Exchange, endpoint: Endpoint, model: str) -> str:  # noqa: ARG001 - one signature for all
    wait = exchange.retry_after_s
    when = "" if wait is None else f", and to come back after {wait:g} s"
    return f"{endpoint.url} said too many requests (HTTP 429){when}"


_SAID: Final[Mapping[str, Callable[[Exchange, Endpoint, str], str]]] = {
    "model_unknown": _model_found,
    "auth": _key_found,
    "path_unknown": _path_found,
    "redirected": _led_elsewhere,
    "throttled": _throttled,
    "throttled_no_hint": _throttled,
}


def error_of(
    code: str,
    exchange: Exchange,
    endpoint: Endpoint,
    *,
    model: str = "",
    models: Sequence[str] = (),
) -> LoadstoneError:
    """Return the error of a finding at this endpoint."""
    hint = nearest(model, models) if code == "model_unknown" else ""
    return fault(code, found_in(code, exchange, endpoint, model), hint=hint)


def nearest(model: str, models: Sequence[str]) -> str:
    """Say which models there are, those with the most similar names first."""
    if not models:
        return ""
    lower = {name.lower(): name for name in reversed(models)}
    close = [lower[n] for n in get_close_matches(model.lower(), lower, n=5, cutoff=0.4)]
    others = [name for name in models if name not in close]
    shown = (close + others)[:8]
    more = f" and {len(models) - len(shown)} more" if len(models) > len(shown) else ""
    return f"choose one of its models by --model: {', '.join(shown)}{more}"
