"""What a mock server is told when it starts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Literal

from loadstone.errors import UsageError
from loadstone.units import Seconds, Tokens
from loadstone.wire.tokens import RING_TOKENS

from .faults import Fault
from .share import Share
from .tenants import DEFAULT, Tenant, check_tenants

MIB: Final = 1 << 20

ANY_ORIGIN: Final = "*"
MAX_INTERVAL: Final[Tokens] = RING_TOKENS
"""Most tokens that one event can have: a turn of the filler."""

LengthDistribution = Callable[[Random], Tokens]
"""Draws how long an answer is that ends by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The server's settings; the engines themselves come as a fleet.

    `model`, `preset`, `vms` and `slowdown` are only told to clients: what they mean was
    built into the fleet. `port` 0 takes a free one; `uds`, a path, replaces host and
    port.
    """

    model: str
    preset: str
    vms: int = 1
    seed: int = 0
    host: str = "127.0.0.1"
    port: int = 8000
    uds: Path | None = None
    stream_interval: Tokens = 1
    """Tokens that later events of a stream share; the first has one."""
    expect_connections: int = 1
    """Connections that it must be able to hold; it does not start where it cannot."""
    max_waiting: int = 4096
    """Requests waiting on all engines from which on new ones are refused with 429."""
    api_key: str | None = field(default=None, repr=False)
    tenants: tuple[Tenant, ...] = ()
    """Who may ask, each with a key; they replace the one `api_key`."""
    max_body_bytes: int = 4 * MIB
    """A million tokens of prompt under the token rule, well above `max_model_len`."""
    write_limit_bytes: int = MIB
    """A client this far behind in reading its stream is cut off: some 5,000 events.

    A real server would keep what was not read in memory, without a bound."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    grace_s: Seconds = 10.0
    """How long running answers may take to end once the server is told to stop."""
    slowdown: float = 1.0
    share: Share | None = None
    """Its part of the rack, where several processes are one."""
    control: Path | None = None
    """A Unix socket besides, by which a supervisor asks for metrics and the like."""
    aliases: tuple[str, ...] = ()
    """Further names of the model, as vLLM's `--served-model-name` gives it."""
    faults: tuple[Fault, ...] = ()
    """What goes wrong on purpose, timed from the server's start."""
    admin_key: str | None = field(default=None, repr=False)
    """Of those who may add and remove faults; without one nobody may."""
    origins: tuple[str, ...] = ()
    """Origins whose pages may ask and read, in browsers; `*` for all."""
    fault_header: bool = False
    """Whether requests may ask for a fault of their own."""
    clock: Literal["real", "virtual"] = "real"
    """Whether its times are to be waited for; only told to clients, too."""

    @property
    def part(self) -> Share:
        """What this process has of its rack: all of it, if nobody says otherwise."""
        return self.share or Share(worker=0, workers=1, of_vms=self.vms)

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the model, the first of them its own."""
        return (self.model, *self.aliases)

    @property
    def who(self) -> tuple[Tenant, ...]:
        """All whose keys are known; nobody needs one where there is none."""
        if self.api_key is None:
            return self.tenants
        return (Tenant(name=DEFAULT, key=self.api_key),)

    def __post_init__(self) -> None:
        """Refuse settings that could not serve; raises `UsageError`."""
        if not 0 <= self.port < 1 << 16:
            raise UsageError(f"port must be 0 to 65535, not {self.port}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("TLS needs both a certificate and its key")
        if "" in self.names or len(set(self.names)) < len(self.names):
            raise UsageError(
                f"the model's names must be different and not empty: {self.names}",
                hint="give --served-model-name once for each name",
            )
        self._check_keys()
        self._check_origins()
        if not 1 <= self.stream_interval <= MAX_INTERVAL:
            raise UsageError(
                f"stream_interval must be 1 to {MAX_INTERVAL},"
                f" not {self.stream_interval}"
            )
        for name in (
            "vms", "max_waiting", "max_body_bytes", "write_limit_bytes",
            "expect_connections",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{name} must be at least 1, not {getattr(self, name)}"
                )

    def _check_origins(self) -> None:
        for origin in self.origins:
            # RFC 6454: a scheme, a host and perhaps a port, and nothing behind them.
            scheme, there, host = origin.partition("://")
            whole = scheme and there and host and "/" not in host
            if origin != ANY_ORIGIN and not whole:
                raise UsageError(
                    f"{origin!r} is not an origin",
                    hint='write it as "https://chat.example:8443", or "*" for all',
                )

    def _check_keys(self) -> None:
        for what, key in (("API", self.api_key), ("admin", self.admin_key)):
            if key == "":
                raise UsageError(
                    f"the {what} key is empty, so anyone could use it",
                    hint="give a key, or none at all",
                )
        if self.api_key is not None and self.tenants:
            raise UsageError(
                "an API key and tenants exclude each other",
                hint="each tenant has its own key",
            )
        check_tenants(self.tenants)
