"""The order that a process runs its share on, and the session that it opens for it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadstone.errors import UsageError
from loadstone.traffic.accounts import Pulse
from loadstone.traffic.plan import Plan, journeys, plan_hash
from loadstone.traffic.record import RequestRecord
from loadstone.traffic.request import Request
from loadstone.traffic.share import Share
from loadstone.units import Seconds

from .budget import Budget
from .client import Endpoint, StreamingClient
from .flows import flows_of
from .folder import RunFolder
from .options import timeouts_of
from .rag import retrieval
from .receive import ReceiveLags
from .results import RowWriter, pulse_name, rows_name
from .session import Session
from .stats import ClientStats
from .target import endpoint_of, endpoints_of, endpoints_of_tenants
from .tracing import Traces
from .workload import mix_of, requests_of


@dataclass(frozen=True, slots=True)
class Order:
    """What a process needs to run its share; plain values, so that it can be a message.

    Secrets are not in it: each process reads the key from its own environment or file.
    """

    rank: int
    workers: int
    t0_epoch: Seconds
    """On the master's clock."""
    plan: dict[str, Any]
    plan_hash: str
    folder: str
    values: dict[str, Any]
    clock_offset_s: Seconds = 0.0
    """The clock of who gets this order minus the master's."""
    run_id: str = ""
    """Unlike any other's; it is in `environment.json` of the run's folder too."""

    @property
    def trace_run(self) -> str:
        """What its traces' own half is drawn from, in each of the run's processes."""
        return f"{self.plan_hash}/{self.t0_epoch!r}"

    def message(self) -> dict[str, Any]:
        """Return it as a message; `Order(**message)` reads it."""
        return asdict(self)


def open_session(
    order: Order,
    environ: Mapping[str, str],
    on_row: Callable[[RequestRecord], None],
    on_disk_failure: Callable[[OSError], None],
    *,
    requests: list[Request] | None = None,
    sampled: float = 0.0,
) -> Session:
    """Make an order's session, which samples that share of its requests' traces.

    `requests` saves drawing them again where they are at hand. Raises `UsageError` if
    another plan is drawn here.
    """
    plan = Plan.from_toml(order.plan)
    requests = requests_of(plan) if requests is None else requests
    if plan_hash(plan, requests) != order.plan_hash:
        raise UsageError(
            f"worker {order.rank} draws another schedule than the master",
            hint="run the same loadstone and the same trace file on every host",
        )
    timeouts, lags = timeouts_of(order.values), ReceiveLags()
    t0 = time.monotonic() + order.t0_epoch + order.clock_offset_s - time.time()
    folder = Path(order.folder)

    def clients_of(endpoints: list[Endpoint]) -> list[StreamingClient]:
        return [StreamingClient(e, timeouts=timeouts, lags=lags) for e in endpoints]

    found = retrieval(plan, order.values, folder)
    embeds = None
    if (host := order.values["embeddings_host"]) is not None:
        embeds = clients_of([endpoint_of(host, order.values, environ)])[0]

    return Session(
        plan,
        share=Share(order.rank, order.workers),
        requests=requests,
        drawn=journeys(plan, mix_of(plan), order.rank, order.workers),
        clients=clients_of(endpoints_of(plan.hosts, order.values, environ)),
        rows=RowWriter(
            folder / rows_name(order.rank, order.workers),
            on_disk_failure,
            _pulse(order, t0),
        ),
        stats=ClientStats(),
        traces=Traces(plan.seed, run=order.trace_run, ratio=sampled),
        t0=t0,
        on_row=on_row,
        by_tenant={
            name: clients_of(endpoints)
            for name, endpoints in endpoints_of_tenants(
                plan, order.values, environ
            ).items()
        },
        flows=flows_of(plan, found.flows),
        on_stop=found.close,
        embeddings=embeds,
        most=Budget.of(order.values).share_of_requests(order.rank, order.workers),
    )


def _pulse(order: Order, t0: Seconds) -> Callable[[bool], None]:
    """Return what writes a process's sign of life, since the run's `t0`."""
    name = pulse_name(order.rank, order.workers)

    def pulse(closed: bool) -> None:  # noqa: FBT001 - as `RowWriter` calls it
        sign = Pulse(order.rank, time.monotonic() - t0, closed)
        RunFolder(Path(order.folder)).write_json(name, asdict(sign))

    return pulse
