"""The run as a whole: prepares it, splits it into shares, puts the figures together.

There is one coordinator per Locust process that is not a worker. It never sends a
request: a `Session` does, here or in the workers, on the order that the coordinator
gave it.
"""

import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from loadstone.catalog.workloads import load_price, price_of_preset
from loadstone.errors import LoadstoneError, UsageError
from loadstone.physics.cost import Rent, no_price
from loadstone.runs import METRICS, SUMMARY, read_rows
from loadstone.traffic.machine import loads_of
from loadstone.traffic.plan import Plan, journeys, plan_hash
from loadstone.traffic.record import RequestRecord
from loadstone.traffic.request import Request
from loadstone.traffic.slo import Slo, read_slos
from loadstone.traffic.summary import describe, describe_histogram, summarize
from loadstone.traffic.verdict import Evidence, Verdict, judge
from loadstone.units import Seconds

from .client import Endpoint, StreamingClient
from .files import read_text
from .folder import RunFolder
from .options import plan_of, timeouts_of
from .plans import find_plan
from .probe import Target, probe
from .rag import FLOW, check_options, prepare, retrieval
from .receive import why_absent
from .results import RowWriter, rows_name
from .selfcheck import standing
from .series import Series
from .session import Session, Share
from .stats import ClientStats, SliceStats, total
from .tracing import Traces
from .workload import mix_of, requests_of, with_trace_located

FRESH: Final = "fresh"
"""The salt that stands for another one in each run."""
LEAD_S: Final = 0.5
"""From the order to t0: time to spawn users and open connections."""
LEAD_OF_WORKERS_S: Final = 2.0
"""The same where the order goes to other processes first."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a process needs to run its share; plain values, so that it can be a message.

    Secrets are not in it: each process reads the key from its own environment or file.
    """

    rank: int
    workers: int
    t0_epoch: Seconds
    plan: dict[str, Any]
    plan_hash: str
    folder: str
    values: dict[str, Any]


def read_key(values: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    """Return the endpoint's key from where the options say it is, or None."""
    name, path = values["api_key_env"], values["api_key_file"]
    if name and path:
        raise UsageError("give --api-key-env or --api-key-file, not both")
    if name and not environ.get(name):
        raise UsageError(
            f"the environment variable {name} is not set", hint="export it first"
        )
    if path:
        # A stack mounts a key file whether or not there is a key; empty says: none.
        return read_text(path, "key file").strip() or None
    return environ[name].strip() if name else None


def endpoint_of(
    plan: Plan, values: Mapping[str, Any], environ: Mapping[str, str]
) -> Endpoint:
    """Return where the plan sends its requests, key and TLS settings included."""
    return Endpoint.parse(
        plan.hosts[0],
        api_key=read_key(values, environ),
        ca_file=values["ca_file"],
        proxy=values["proxy"],
    )


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
    own = endpoint_of(plan, order.values, environ)
    timeouts = timeouts_of(order.values)
    more: dict[str, Any] = {}
    if FLOW in mix_of(plan).flows:
        ready = retrieval(plan, order.values, Path(order.folder))
        more = {"flows": ready.flows, "on_stop": ready.close}
        if order.values["embeddings_host"] is not None:
            embeds = _embeds(plan, order.values, environ)
            more["embeddings"] = StreamingClient(embeds, timeouts=timeouts)
    return Session(
        plan,
        share=Share(order.rank, order.workers),
        requests=requests,
        drawn=journeys(plan, mix_of(plan), order.rank, order.workers),
        client=StreamingClient(own, timeouts=timeouts),
        rows=RowWriter(
            Path(order.folder) / rows_name(order.rank, order.workers), on_disk_failure
        ),
        stats=ClientStats(),
        traces=Traces(
            plan.seed, run=f"{order.plan_hash}/{order.t0_epoch!r}", ratio=sampled
        ),
        t0=time.monotonic() + order.t0_epoch - time.time(),
        on_row=on_row,
        **more,
    )


def _embeds(
    plan: Plan, values: Mapping[str, Any], environ: Mapping[str, str]
) -> Endpoint:
    """Return who embeds questions: the endpoint itself unless another one is named."""
    host = values["embeddings_host"]
    place = plan if host is None else plan.retargeted(hosts=(host,))
    return endpoint_of(place, values, environ)


class Run:
    """One run, from its preparation to its summary."""

    def __init__(
        self,
        values: dict[str, Any],
        *,
        host: str,
        users: int | None,
        workers: int,
        environ: Mapping[str, str],
        wanted: Callable[[], bool],
    ) -> None:
        """Prepare a run: read, probe and draw everything that could be wrong.

        `wanted` is asked once the endpoint was found, since that may take long. Raises
        `UsageError` or `LoadstoneError` before anything was sent or written.
        """
        if not host:
            raise UsageError(
                "no endpoint to drive", hint="give --host http://127.0.0.1:8000"
            )
        plan = plan_of(values, host=host, users=users)
        retrieves = FLOW in mix_of(plan).flows
        check_options(values, used=retrieves)
        self.slos = self._read_slos(values["slo"]) or find_plan(values["scenario"]).slos
        self.standing = standing(values["selfcheck"], environ)
        began = time.monotonic()
        self.requests = requests_of(plan)
        drawing_s = time.monotonic() - began
        self.target = probe(endpoint_of(plan, values, environ))
        if not wanted():
            raise LoadstoneError("stopped before the run began", code="stopped")
        self.plan = plan = _resolve(plan, self.target)
        self.rent = _rent(plan)
        self.workers = workers
        self.digest = plan_hash(plan, self.requests)
        self.folder = RunFolder.create(Path(values["out"]), plan.scenario)
        self.folder.write_plan(
            plan,
            self.digest,
            options=_given(values, host, users),
            slo=[asdict(slo) for slo in self.slos] or None,
        )
        self.folder.write_environment(self.target.mock, workers)
        if retrieves:
            prepare(plan, values, _embeds(plan, values, environ), self.folder.path)
        # Workers draw the schedule again before they can send; some are slower than we.
        lead = LEAD_S if workers == 1 else LEAD_OF_WORKERS_S + 3 * drawing_s
        self.t0_epoch = time.time() + lead
        self._values = values
        self.handed_in: set[str] = set()
        """Workers that handed their last totals in, by client id."""
        self.snapshots: dict[str, Mapping[str, Any]] = {}
        """The newest snapshot of each worker, by client id."""
        self.series = Series()
        self.live: ClientStats | None = None
        """The totals of this process, where it runs the session itself."""

    def __repr__(self) -> str:
        return f"<Run {self.folder.path.name} {self.plan.loop} {self.stats()!r}>"

    @staticmethod
    def _read_slos(path: str | None) -> tuple[Slo, ...]:
        return read_slos(read_text(path, "SLO file"), name=path) if path else ()

    def order(self, rank: int) -> Order:
        """Return the order for the worker of that rank."""
        return Order(
            rank, self.workers, self.t0_epoch, self.plan.to_toml(), self.digest,
            str(self.folder.path.absolute()), self._values,
        )  # fmt: skip

    def stats(self) -> ClientStats:
        """Return the totals so far, over all processes."""
        return self.live or total(self.snapshots.values())

    def elapsed_s(self) -> Seconds:
        """Seconds since t0, never negative."""
        return max(0.0, time.time() - self.t0_epoch)

    def cost_usd(self) -> float:
        """Rent since t0; 0 without a price."""
        return self.rent.total(self.elapsed_s()) if self.rent else 0.0

    def progress(self) -> dict[str, Any]:
        """Return what a live display shows; times in seconds."""
        whole, elapsed = self.stats().whole(), self.elapsed_s()
        return {
            "elapsed_s": elapsed,
            "duration_s": self.plan.duration_s,
            "drain_s": self.plan.drain_s,
            "scheduled": self._scheduled(whole),
            "sent": whole.sent,
            "in_flight": whole.in_flight,
            "outcomes": whole.outcomes,
            "output_tokens": whole.output_tokens,
            "ttft_p50_s": whole.percentiles["ttft_s"].quantile(0.5),
            "ttft_p99_s": whole.percentiles["ttft_s"].quantile(0.99),
            "usd": self.cost_usd() if self.rent else None,
        }

    def finish(
        self,
        *,
        locust: dict[str, int],
        metrics: Callable[[], bytes],
        stopped_s: Seconds = math.inf,
    ) -> dict[str, Any]:
        """Fold rows into `summary.json` and return it.

        `stopped_s` is when the run was stopped, if it was. The rows are the truth: from
        here on the totals, and with them `metrics`, are theirs.
        """
        rows = list(read_rows(self.folder.path))
        self.live = self._settled(rows, stopped_s)
        summary = self.summary(rows, complete=stopped_s == math.inf)
        summary["instrument"]["locust"] = locust
        self.folder.write_json(SUMMARY, summary)
        self.folder.write_text(METRICS, metrics())
        return summary

    def _settled(self, rows: list[RequestRecord], until: Seconds) -> ClientStats:
        """Return the totals of the rows and of what was due by `until`, sent or not."""
        seen, settled = self.stats(), ClientStats()
        for row in rows:
            settled.add(row)
        for request in self.requests:
            if request.intended_s <= until and request.turn == 0:
                slice_of = settled.slice_of
                slice_of(request.scenario, request.tenant, request.stage).scheduled += 1
        for key, part in seen.slices.items():
            settled.slice_of(*key).scheduled += part.followed
        for part in settled.slices.values():
            part.dropped = max(0, part.scheduled - part.sent)
        settled.loop_lag = seen.loop_lag
        settled.worst_pause_s = seen.worst_pause_s
        settled.recv_lags, settled.vitals = seen.recv_lags, seen.vitals
        return settled

    def summary(self, rows: list[RequestRecord], *, complete: bool) -> dict[str, Any]:
        """Return the run's figures, cost and verdict."""
        stats = self.stats()
        figures = summarize(rows, dropped=stats.whole().dropped, slos=self.slos)
        requests, tokens = figures["requests"], figures["tokens"]
        cost = (
            self.rent.summary(
                figures["makespan_s"],
                requests["ok"] - requests["beside"],
                tokens["output"],
            )
            if self.rent
            else no_price("no price: give --prices NAME and --vms N")
        )
        return {
            "run": self.folder.path.name,
            "scenario": self.plan.scenario,
            "loop": self.plan.loop,
            "host": self.plan.hosts[0],
            "model": self.plan.model,
            "plan_hash": self.digest,
            "complete": complete,
            **figures,
            "cost": cost,
            "instrument": self._instrument(rows, stats, figures),
        }

    def verdict_now(self) -> tuple[Verdict, list[str]]:
        """Judge the run as far as it has come, from its totals."""
        stats = self.stats()
        whole = stats.whole()
        return judge(
            Evidence(
                samples=whole.percentiles["ttft_s"].count,
                ttft_error={"p99": stats.ttft_error.quantile(0.99)},
                loop_lag_p99=stats.loop_lag.quantile(0.99),
                recv_lag_p99=stats.recv_lags.p99,
                vitals=stats.vitals,
                send_lag_p99=whole.percentiles["send_lag_s"].quantile(0.99),
                # What is due and waits in the queue may still be sent.
                scheduled=self._scheduled(whole),
                sent=whole.scheduled - whole.dropped,
            )
        )

    def _scheduled(self, whole: SliceStats) -> int | None:
        return None if self.plan.loop == "closed" else whole.scheduled

    def _instrument(
        self, rows: list[RequestRecord], stats: ClientStats, figures: dict[str, Any]
    ) -> dict[str, Any]:
        errors = describe(abs(e) for r in rows if (e := r.ttft_error_s) is not None)
        lags = describe(r.truth.lag_s for r in rows if r.truth is not None)
        loop_lag = describe_histogram(stats.loop_lag)
        recv_lag = describe_histogram(stats.recv_lags.histogram)
        scheduled = self._scheduled(stats.whole())
        selfcheck, beyond = self.standing.judge(loads_of(rows))
        verdict, reasons = judge(
            Evidence(
                samples=int(figures["ttft_s"]["n"] or 0),
                ttft_error=errors,
                loop_lag_p99=loop_lag["p99"],
                recv_lag_p99=recv_lag["p99"],
                vitals=stats.vitals,
                send_lag_p99=figures["send_lag_s"]["p99"],
                scheduled=scheduled,
                sent=figures["requests"]["sent"],
                server_lag_p99=lags["p99"],
                workers_lost=self.workers - self._reported(),
                beyond_profile=beyond,
            )
        )
        return {
            "verdict": verdict.value,
            "reasons": reasons,
            "scheduled": scheduled,
            "ttft_error_s": errors,
            "loop_lag_s": loop_lag,
            "recv_lag_s": recv_lag,
            "recv_lag_absent": None if recv_lag["n"] else why_absent(unix=self._unix()),
            "recv_lag_dropped": stats.recv_lags.clock_set,
            "worst_gc_pause_s": stats.worst_pause_s,
            **stats.vitals,
            "mock_lag_s": lags,
            "workers": {"expected": self.workers, "reported": self._reported()},
            "selfcheck": selfcheck,
            **({"notes": [self.standing.absent]} if self.standing.absent else {}),
        }

    def _unix(self) -> bool:
        return self.plan.hosts[0].startswith("unix:")

    def _reported(self) -> int:
        return 1 if self.workers == 1 else len(self.handed_in)


def _resolve(plan: Plan, target: Target) -> Plan:
    """Fill what the endpoint and files tell: model, price, VMs, the trace's hash."""
    changes: dict[str, Any] = {}
    if not plan.model:
        if not target.models:
            raise UsageError("the endpoint lists no model", hint="give --model NAME")
        changes["model"] = target.models[0]
    if target.mock is not None:
        changes["price"] = plan.price or price_of_preset(str(target.mock.get("preset")))
        changes["vms"] = plan.vms or target.mock.get("vms")
    if plan.salt == FRESH:
        changes["salt"] = secrets.token_hex(8)
    return with_trace_located(plan.retargeted(**changes))


def _given(values: Mapping[str, Any], host: str, users: int | None) -> dict[str, Any]:
    """Return what was asked for, as `loadstone run plan.toml` reads it again."""
    # What the plan's own tables say is not said again: their file may be gone by then.
    given = {
        name: str(value)
        for name, value in values.items()
        if value is not None and name not in ("scenario", "slo")
    }
    return given | {"host": host} | ({} if users is None else {"users": users})


def _rent(plan: Plan) -> Rent | None:
    if plan.price is None:
        return None
    price = load_price(plan.price)
    if plan.vms is None:
        raise UsageError(
            "a price without a number of VMs says nothing", hint="give --vms N"
        )
    return Rent(price.usd_per_vm_hour.value, plan.vms, (price.assumption(),))


def order_message(order: Order) -> dict[str, Any]:
    """Return an order as a message; `Order(**message)` reads it."""
    return asdict(order)
