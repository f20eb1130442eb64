"""Looks at an endpoint before a run: is it there, what has it, is it the mock."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from loadstone.errors import LoadstoneError, UsageError

from .client import Endpoint, Exchange, StreamingClient, Timeouts

_TIMEOUTS: Final = Timeouts(connect=10.0, first_byte=10.0, total=20.0)
_HINTS: Final = {
    "tls": "name the authority that signed its certificate with --ca-file",
    "dns": "check the host name in --host",
    "proxy": "check --proxy; user and password come from the environment, --proxy env",
}
_SAME: Final = ("preset", "slowdown", "clock")
"""What a mock says of itself that is the same for all hosts of a run."""
_ELSE: Final = "start the mock with `loadstone serve`, or check --host"


@dataclass(frozen=True, slots=True)
class Target:
    """What an endpoint says of itself; `mock` is the mock's `/version`, else None."""

    models: tuple[str, ...]
    mock: dict[str, Any] | None


def probe_all(endpoints: Sequence[Endpoint], model: str) -> Target:
    """Ask every endpoint, and return what they are as one.

    The mocks are one with all their VMs. Raises what `probe` does, and `UsageError` for
    endpoints that cannot be measured as one: some are the mock and some are not, they
    emulate different machines, or lack the `model` that is asked for (empty: the first
    that the first one lists).
    """
    targets = [probe(endpoint) for endpoint in endpoints]
    first = targets[0]
    model = model or next(iter(first.models), "")
    for endpoint, target in zip(endpoints, targets, strict=True):
        if len(targets) > 1 and target.models and model not in target.models:
            raise UsageError(f"{endpoint.url} does not list the model {model!r}")
        if _kind(target) != _kind(first):
            raise UsageError(
                f"{endpoint.url} is not what {endpoints[0].url} is:"
                f" {_kind(target)}, not {_kind(first)}",
                hint="several hosts are measured as one; give equal ones",
            )
    mocks = [target.mock for target in targets if target.mock is not None]
    if not mocks:
        return first
    whole = {"vms": 0, "engines": 0}
    for mock in mocks:
        for count in whole:
            whole[count] += int(mock.get(count) or 0)
    return Target(first.models, mocks[0] | whole)


def _kind(target: Target) -> str:
    """Say what must be the same of all hosts of a run."""
    if target.mock is None:
        return "an endpoint"
    return " ".join(f"{name} {target.mock.get(name)}" for name in _SAME)


def probe(endpoint: Endpoint) -> Target:
    """Ask for the models, and whether this is loadstone's mock.

    Raises `LoadstoneError` in plain words when nothing answers or the key is refused.
    """
    client = StreamingClient(endpoint, timeouts=_TIMEOUTS)
    try:
        listing = client.send(path="/v1/models", method="GET")
        _refuse(endpoint, listing)
        version = _object(client.send(path="/version", method="GET"))
    finally:
        client.close()
    workers = version.get("workers")
    if isinstance(workers, list):
        raise UsageError(
            f"{endpoint.url} is the supervisor of {len(workers)} workers, which answer",
            hint="drive them: " + " ".join(f"--host {url}" for url in workers),
        )
    found = _object(listing).get("data")
    models = (
        [m for m in found if isinstance(m, dict)] if isinstance(found, list) else []
    )
    return Target(
        tuple(str(model["id"]) for model in models if "id" in model),
        version if version.get("emulated") is True else None,
    )


def _refuse(endpoint: Endpoint, listing: Exchange) -> None:
    if listing.status in (401, 403):
        raise LoadstoneError(
            f"{endpoint.url} refused the key (HTTP {listing.status})",
            code="auth",
            hint="give it by --api-key-env VAR or --api-key-file FILE",
        )
    if listing.status == 407:
        raise LoadstoneError(
            f"the proxy to {endpoint.url} refused us (HTTP 407)",
            code="proxy",
            hint=_HINTS["proxy"],
        )
    # An endpoint may have no list of models; one that has no status does not answer.
    if listing.status is None:
        error = listing.error or "no answer"
        raise LoadstoneError(
            f"nothing answers at {endpoint.url}: {error}: {listing.error_text}",
            code=error if error in ("tls", "proxy") else "unreachable",
            hint=_HINTS.get(error, _ELSE),
        )


def _object(exchange: Exchange) -> dict[str, Any]:
    try:
        body = json.loads(exchange.body)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
