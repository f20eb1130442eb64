"""The door: who may come in now, and what those who may not are told.

A request passes if its tenant has a request and its tokens left in the minute, and if
not too many wait on the engines. Under fair scheduling the queue is shared as well:
when it is full, a tenant is let in while fewer of its own wait than its share of
`max_waiting`. So a queue that one tenant filled is no wall for the others, and at most
twice `max_waiting` wait.
"""

from math import ceil

from aiohttp import web

from loadstone.units import Tokens
from loadstone.wire.openai_error import ApiError

from .config import ServerConfig
from .driver import Driver
from .edge import TENANT
from .tenants import DEFAULT, Allowance, Tenant


class Door:
    """Lets requests in, or raises what they are answered with."""

    def __init__(self, config: ServerConfig, driver: Driver) -> None:
        self._config = config
        self._driver = driver
        self._policy = driver.fleet.engines[0].scheduling_policy
        now = driver.clock.now()
        tenants = config.who or (Tenant(name=DEFAULT),)
        self._allowances = {t.name: Allowance(t, now) for t in tenants}
        self._weights = sum(tenant.weight for tenant in tenants)

    def __repr__(self) -> str:
        return f"<Door for {', '.join(self._allowances)}>"

    def tenant(self, request: web.Request) -> Tenant:
        """Return whose request it is, as the edge found by its key."""
        return self._allowances[request.get(TENANT, DEFAULT)].tenant

    def check(self, model: str, priority: int) -> None:
        """Refuse a model that is not served and a priority that would mean nothing."""
        if model not in self._config.names:
            raise ApiError.model_not_found(model, ", ".join(self._config.names))
        if priority and self._policy != "priority":
            raise ApiError(
                f"Got priority {priority}, but priority scheduling is not enabled;"
                " start the server with '--scheduling-policy priority'.",
                param="priority",
                code="invalid_value",
            )

    def enter(self, tenant: Tenant, tokens: Tokens) -> dict[str, str]:
        """Let a request of so many estimated tokens in; returns headers that say so.

        Raises `ApiError` 429 for a tenant that has used its minute up and for a queue
        that is full, with the seconds after which to try again; 503 if there is no
        engine.
        """
        self._check_queue(tenant)
        allowance = self._allowances[tenant.name]
        now = self._driver.clock.now()
        lacking = allowance.take(tokens, now)
        self._count(tenant, lacking or "admitted")
        if lacking:
            raise allowance.refusal(lacking, tokens, now)
        return allowance.headers(now)

    def _check_queue(self, tenant: Tenant) -> None:
        fleet = self._driver.fleet
        if not fleet.up:
            raise ApiError.unavailable("Every engine is lost.", "no_engine")
        waiting = fleet.waiting
        if waiting < self._config.max_waiting or self._has_room(tenant):
            return
        self._driver.stats.rejected["max_num_queued_reqs"] += 1
        self._count(tenant, "queue")
        engines = [fleet.engines[i] for i in fleet.up]
        owed = sum(engine.waiting_output_tokens for engine in engines)
        rate = sum(engine.token_rate for engine in engines)
        raise ApiError.queue_full(waiting, max(1, ceil(owed / rate)) if rate else 1)

    def _has_room(self, tenant: Tenant) -> bool:
        if self._policy != "fair":
            return False
        own = sum(e.waiting_of(tenant.name) for e in self._driver.fleet.engines)
        return own < self._config.max_waiting * tenant.weight / self._weights

    def _count(self, tenant: Tenant, outcome: str) -> None:
        self._driver.stats.tenants[tenant.name, outcome] += 1
