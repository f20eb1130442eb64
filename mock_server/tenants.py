"""Tenants: whose key a request came with, and how much of each minute is left to them.

A tenant's requests and tokens per minute are two buckets that hold a minute's allowance
and fill evenly. As on Azure, tokens are estimated before the answer is there (prompt,
plus the longest answer that is allowed, for each choice) and nothing is given back when
it was shorter. A request that is refused takes from neither bucket.

Azure's limits are on windows of one or ten seconds for requests; a bucket lets a burst
of a whole minute through and then holds the same rate.
"""

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, inf
from typing import Final

from loadstone.errors import UsageError
from loadstone.units import Seconds, Tokens, is_number, is_whole
from loadstone.wire.openai_error import ApiError

DEFAULT: Final = "default"
"""Whose requests are where nobody told tenants apart."""
_MINUTE: Final[Seconds] = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One who may ask. `weight` is a share under fair scheduling."""

    name: str
    key: str | None = field(default=None, repr=False)
    rpm: float = inf
    """Requests a minute."""
    tpm: float = inf
    """Tokens a minute."""
    priority: int = 0
    """Added to that of each request: the lower the sooner."""
    weight: float = 1.0

    def part(self, fraction: float) -> "Tenant":
        """Return the tenant with that part of its limits, for one process of many."""
        return replace(self, rpm=self.rpm * fraction, tpm=self.tpm * fraction)


class TenantError(UsageError):
    """A row that cannot be; `key` is the field at fault."""

    def __init__(self, key: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, code="bad_tenant")
        self.key = key


_NUMBERS: Final = ("rpm", "tpm", "weight")
_FIELDS: Final = ("name", "key_file", "priority", *_NUMBERS)


def read_tenant(row: Mapping[str, object], read_key: Callable[[str], str]) -> Tenant:
    """Read a row of the table; `read_key` gives what is in a key file.

    Raises `TenantError` for what the row cannot say.
    """
    for key in row:
        if key not in _FIELDS:
            hint = "keys are in files, never in the table" if key == "key" else ""
            raise TenantError(
                key, f"a tenant has no {key!r}",
                hint=hint or f"it has {', '.join(_FIELDS)}",
            )  # fmt: skip
    name, path = row.get("name"), row.get("key_file")
    if not isinstance(name, str) or not name:
        raise TenantError("name", f"a tenant needs a name, not {name!r}")
    if not isinstance(path, str):
        raise TenantError("key_file", f"tenant {name} needs a 'key_file'")
    priority = row.get("priority", 0)
    if not is_whole(priority):
        raise TenantError("priority", f"priority must be an integer: {priority!r}")
    numbers = {n: _positive(n, row[n]) for n in _NUMBERS if n in row}
    return Tenant(name=name, key=read_key(path), priority=priority, **numbers)


def _positive(name: str, value: object) -> float:
    if not is_number(value) or not 0 < value < inf:
        raise TenantError(name, f"{name} must be a number above 0: {value!r}")
    return value


def check_tenants(tenants: Iterable[Tenant]) -> None:
    """Raise `UsageError` for tenants that could not be told apart."""
    names: set[str] = set()
    keys: set[str | None] = set()
    for tenant in tenants:
        if not tenant.key:
            raise UsageError(f"the key of tenant {tenant.name} is empty")
        if tenant.name in names or tenant.key in keys:
            raise UsageError(
                f"tenant {tenant.name} has the name or the key of another",
                hint="each tenant needs its own",
            )
        names.add(tenant.name)
        keys.add(tenant.key)


def find_tenant(
    tenants: Iterable[Tenant], authorization: str, api_key: str
) -> Tenant | None:
    """Return whose key is in one of a request's headers; None if it is nobody's.

    All keys are compared, each in constant time: how long it took tells nothing.
    """
    # Header bytes that are not UTF-8 arrive as surrogates; compare_digest wants bytes.
    bearer = authorization.encode(errors="surrogateescape")
    bare = api_key.encode(errors="surrogateescape")
    found = None
    for tenant in tenants:
        key = (tenant.key or "").encode()
        # Azure's clients send the key bare.
        by_bearer = hmac.compare_digest(bearer, b"Bearer " + key)
        if hmac.compare_digest(bare, key) or by_bearer:
            found = tenant
    return found


class Bucket:
    """A minute's allowance: full at first, filled evenly, never more than full."""

    def __init__(self, limit: float, now: Seconds) -> None:
        self.limit = limit
        self._level = limit
        self._at = now

    def __repr__(self) -> str:
        return f"<Bucket {self._level:g} of {self.limit:g} at {self._at:g}s>"

    def level(self, now: Seconds) -> float:
        """Return what is left."""
        filled = self._level + (now - self._at) * self.limit / _MINUTE
        return min(self.limit, filled)

    def wait(self, cost: float, now: Seconds) -> Seconds:
        """Return how long until `cost` can be taken; infinity if it never can."""
        if cost > self.limit:
            return inf
        short = cost - self.level(now)
        return max(0.0, short * _MINUTE / self.limit)

    def take(self, cost: float, now: Seconds) -> None:
        """Take `cost`, for which there must be enough."""
        self._level, self._at = self.level(now) - cost, now


class Allowance:
    """What one tenant may still ask for."""

    def __init__(self, tenant: Tenant, now: Seconds) -> None:
        limits = {"requests": tenant.rpm, "tokens": tenant.tpm}
        self.tenant = tenant
        self._buckets = {
            what: Bucket(limit, now) for what, limit in limits.items() if limit < inf
        }

    def __repr__(self) -> str:
        return f"<Allowance of {self.tenant.name} {self._buckets}>"

    def headers(self, now: Seconds) -> dict[str, str]:
        """Return the limits, what is left of them, and when they are whole again."""
        told = {}
        for what, bucket in self._buckets.items():
            whole = bucket.wait(bucket.limit, now)
            told[f"x-ratelimit-limit-{what}"] = f"{bucket.limit:.0f}"
            told[f"x-ratelimit-remaining-{what}"] = str(int(bucket.level(now)))
            told[f"x-ratelimit-reset-{what}"] = f"{ceil(whole)}s"
        return told

    def take(self, tokens: Tokens, now: Seconds) -> str:
        """Take one request of so many tokens; returns what there was too little of.

        Nothing is taken unless there is enough of everything, and then "" is returned.
        """
        costs = {"requests": 1, "tokens": tokens}
        for what, bucket in self._buckets.items():
            if bucket.wait(costs[what], now) > 0:
                return what
        for what, bucket in self._buckets.items():
            bucket.take(costs[what], now)
        return ""

    def refusal(self, what: str, tokens: Tokens, now: Seconds) -> ApiError:
        """Return the error for a request that there was too little of `what` for.

        A client that waits as told finds enough, unless others of its tenant took it.
        """
        costs = {"requests": 1, "tokens": tokens}
        waits = [b.wait(costs[name], now) for name, b in self._buckets.items()]
        wait, limit = max(waits), self._buckets[what].limit
        about = f"{what} per minute: limit {limit:.0f}, requested {costs[what]}"
        hint = "The request is too large." if wait == inf else (
            f"Please retry after {ceil(wait)} seconds."
        )  # fmt: skip
        headers = self.headers(now)
        if wait < inf:
            headers["retry-after-ms"] = str(ceil(wait * 1e3))
        return ApiError(
            f"Rate limit reached on {about}. {hint}",
            status=429,
            code="rate_limit_exceeded",
            kind=what,
            retry_after_s=ceil(wait) if wait < inf else None,
            headers=headers,
        )
