"""The run as a whole: prepares it, splits it into shares, puts the figures together.

There is one coordinator per Locust process that is not a worker. It never sends a
request: a `Session` does, here or in the workers, on the order that the coordinator
gave it.
"""

import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from loadstone.catalog.workloads import load_price, price_of_preset
from loadstone.errors import LoadstoneError, UsageError
from loadstone.physics.cost import Rent, no_price
from loadstone.runs import METRICS, PULSES, SUMMARY, RunFiles, read_rows
from loadstone.traffic.accounts import UNSURE_S, Fate, Pulse
from loadstone.traffic.isolation import isolation_of
from loadstone.traffic.machine import Standing, loads_of
from loadstone.traffic.plan import Plan, journeys, plan_hash
from loadstone.traffic.record import RequestRecord
from loadstone.traffic.request import Request
from loadstone.traffic.share import Share
from loadstone.traffic.slo import Slo, read_slos
from loadstone.traffic.summary import describe, describe_histogram, summarize
from loadstone.traffic.verdict import Evidence, Verdict, judge
from loadstone.units import Seconds

from . import merged
from .client import Endpoint, StreamingClient
from .clocks import Offset
from .files import read_text
from .flows import flows_of
from .folder import RunFolder
from .ledger import Ledger
from .options import plan_of, timeouts_of, window_of
from .plans import find_plan
from .probe import Target, probe_all
from .rag import BUILT_IN, check_options, prepare, retrieval, retrieves
from .receive import ReceiveLags, why_absent
from .results import RowWriter, pulse_name, rows_name
from .selfcheck import standing
from .series import Series
from .session import Session
from .settling import Settled, by_rows, by_totals
from .stats import ClientStats, SliceStats, total
from .tracing import Traces
from .workload import mix_of, requests_of, skipped_of, with_trace_located

FRESH: Final = "fresh"
"""The salt that stands for another one in each run."""
LEAD_S: Final = 0.5
"""From the order to t0: time to spawn users and open connections."""
LEAD_OF_WORKERS_S: Final = 2.0
"""The same where the order goes to other processes first."""
_NO_TARGET: Final = Target(models=(), mock=None)
"""Of a run that nobody is going to send."""


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


def endpoints_of(
    plan: Plan, values: Mapping[str, Any], environ: Mapping[str, str]
) -> list[Endpoint]:
    """Return where the plan sends its requests, key and TLS settings included."""
    key = read_key(values, environ)
    return [
        Endpoint.parse(
            host, api_key=key, ca_file=values["ca_file"], proxy=values["proxy"]
        )
        for host in plan.hosts
    ]


def endpoints_of_tenants(
    plan: Plan, values: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, list[Endpoint]]:
    """Return the same for each tenant that has a key of its own."""
    return {
        tenant.name: endpoints_of(
            plan,
            {**values, "api_key_env": tenant.key_env, "api_key_file": tenant.key_file},
            environ,
        )
        for tenant in plan.tenants
        if tenant.key_env or tenant.key_file
    }


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
    if order.values["embeddings_host"] is not None:
        embeds = clients_of([_embeds(plan, order.values, environ)])[0]

    def pulse(closed: bool) -> None:  # noqa: FBT001 - as `RowWriter` calls it
        sign = Pulse(order.rank, time.monotonic() - t0, closed)
        name = pulse_name(order.rank, order.workers)
        RunFolder(folder).write_json(name, asdict(sign))

    return Session(
        plan,
        share=Share(order.rank, order.workers),
        requests=requests,
        drawn=journeys(plan, mix_of(plan), order.rank, order.workers),
        clients=clients_of(endpoints_of(plan, order.values, environ)),
        rows=RowWriter(
            folder / rows_name(order.rank, order.workers), on_disk_failure, pulse
        ),
        stats=ClientStats(),
        traces=Traces(
            plan.seed, run=f"{order.plan_hash}/{order.t0_epoch!r}", ratio=sampled
        ),
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
    )


def _embeds(
    plan: Plan, values: Mapping[str, Any], environ: Mapping[str, str]
) -> Endpoint:
    """Return who embeds questions: the endpoint itself unless another one is named."""
    host = values["embeddings_host"]
    place = plan if host is None else plan.retargeted(hosts=(host,))
    return endpoints_of(place, values, environ)[0]


class Run:
    """One run, from its preparation to its summary."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        plan: Plan,
        requests: list[Request],
        digest: str,
        workers: int,
        slos: tuple[Slo, ...],
        standing: Standing,
        values: dict[str, Any],
        target: Target = _NO_TARGET,
        drawing_s: Seconds = 0.0,
    ) -> None:
        """Take a run's parts: `drawing_s` is how long drawing its requests took."""
        self.folder = folder
        self.plan = plan
        self.requests = requests
        self.digest = digest
        self.workers = workers
        self.slos = slos
        self.standing = standing
        self.rent = _rent(plan)
        self.target = target
        self.notes = [standing.absent] if standing.absent else []
        """What to know of the figures beside the verdict's reasons."""
        self.run_id = uuid4().hex
        self.t0_epoch = time.time()
        """On this process's clock; final once the run is `begin`ning."""
        self._drawing_s = drawing_s
        self._values = values
        self._settled = Settled(ClientStats(), {})
        """What came of the plan, once the run is over."""
        self.ledger: Ledger | None = None
        """The workers, where there are any."""
        self.snapshots: dict[str, Mapping[str, Any]] = {}
        """The newest snapshot of each worker, by client id."""
        self.series = Series()
        self.live: ClientStats | None = None
        """The totals of this process, where it runs the session itself."""

    @classmethod
    def prepare(
        cls,
        values: dict[str, Any],
        *,
        host: str,
        users: int | None,
        workers: int,
        environ: Mapping[str, str],
        wanted: Callable[[], bool],
    ) -> "Run":
        """Prepare a run: read, probe and draw everything that could be wrong.

        `wanted` is asked once the endpoint was found, since that may take long. Raises
        `UsageError` or `LoadstoneError` before anything was sent or written.
        """
        if not host:
            raise UsageError(
                "no endpoint to drive", hint="give --host http://127.0.0.1:8000"
            )
        plan = plan_of(values, host=host, users=users)
        check_options(plan, values)
        slos = _slos_of(values) or find_plan(values["scenario"]).slos
        flows_of(plan, BUILT_IN)
        endpoints_of_tenants(plan, values, environ)
        judged_by = standing(values["selfcheck"], environ)
        began = time.monotonic()
        requests = requests_of(plan)
        drawing_s = time.monotonic() - began
        target = probe_all(endpoints_of(plan, values, environ), plan.model)
        if not wanted():
            raise LoadstoneError("stopped before the run began", code="stopped")
        plan = _resolve(plan, target)
        _rent(plan)
        digest = plan_hash(plan, requests)
        folder = RunFolder.create(Path(values["out"]), plan.scenario)
        folder.write_plan(
            plan,
            digest,
            options=_given(values, host, users),
            slo=[asdict(slo) for slo in slos] or None,
        )
        if retrieves(plan):
            prepare(plan, values, _embeds(plan, values, environ), folder.path)
        return cls(
            folder,
            plan=plan,
            requests=requests,
            digest=digest,
            workers=workers,
            slos=slos,
            standing=judged_by,
            values=values,
            target=target,
            drawing_s=drawing_s,
        )

    def begin(self, clocks: Mapping[str, Offset | None] | None = None) -> None:
        """Set t0 a little ahead, and say in the folder what this runs on.

        `clocks` has the workers in order of rank, and by how much their clocks differ;
        None where this process sends everything itself.
        """
        if clocks is None:
            lead = LEAD_S
        else:
            self.ledger = Ledger.of(clocks)
            # Workers draw the schedule again before they can send; some are slower.
            lead = LEAD_OF_WORKERS_S + 3 * self._drawing_s
        self.t0_epoch = time.time() + lead
        self.folder.write_environment(
            self.target.mock, self.workers, run_id=self.run_id, t0_epoch=self.t0_epoch
        )

    def __repr__(self) -> str:
        return f"<Run {self.folder.path.name} {self.plan.loop} {self.stats()!r}>"

    def order(self, rank: int = 0, clock: Offset | None = None) -> Order:
        """Return the order for the process of that rank, whose clock differs so."""
        return Order(
            rank, self.workers, self.t0_epoch, self.plan.to_toml(), self.digest,
            str(self.folder.path.absolute()), self._values,
            clock.offset_s if clock else 0.0, self.run_id,
        )  # fmt: skip

    @property
    def most_rows(self) -> float:
        """Bytes of rows up to which a worker's are carried over at the end."""
        return float(self._values["collect_mb"]) * 1e6

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
        complete = stopped_s == math.inf
        if self.ledger is None or self.ledger.all_rows_here:
            rows = list(read_rows(self.folder.path))
            reported = self.stats().latencies()
            self.settle(rows, self._pulses(), stopped_s=stopped_s)
            summary = self.summary(rows, complete=complete)
            if self.ledger is not None:
                same = self.stats().latencies() == reported
                summary["distributed"]["merged_equals_rows"] = same
        else:
            self._settle_by_totals(self.ledger, stopped_s)
            if self._values["window"]:
                self.notes.append("totals are of the whole run, not of the window")
            summary = self.summary(None, complete=complete)
        summary["instrument"]["locust"] = locust
        self.folder.write_json(SUMMARY, summary)
        self.folder.write_text(METRICS, metrics())
        self.folder.forget(PULSES)
        return summary

    def _pulses(self) -> list[Pulse]:
        """Return how long each process lived: to the end, unless it was lost."""
        if self.ledger is None:
            return [Pulse(0, math.inf, closed=True)]
        left = {pulse.rank: pulse for pulse in RunFiles(self.folder.path).pulses()}
        pulses = [
            left.get(worker.rank, Pulse(worker.rank, worker.heard_s or -math.inf))
            for worker in self.ledger.lost
        ]
        lost = {pulse.rank for pulse in pulses}
        ended = set(range(self.workers)) - lost
        return pulses + [Pulse(rank, math.inf, closed=True) for rank in ended]

    def settle(
        self,
        rows: Iterable[RequestRecord],
        pulses: Iterable[Pulse],
        *,
        ranks: Iterable[int] | None = None,
        stopped_s: Seconds = math.inf,
    ) -> None:
        """Make the totals those of the rows: they are the truth once a run is over.

        `ranks` are those whose rows these are, all unless it is said.
        """
        self._take(
            by_rows(
                self.requests,
                rows,
                pulses,
                ranks=range(self.workers) if ranks is None else ranks,
                workers=self.workers,
                arrivals_s=self.plan.duration_s,
                stopped_s=stopped_s,
            )
        )

    def _settle_by_totals(self, ledger: Ledger, stopped_s: Seconds) -> None:
        workers = ledger.workers
        parts = {workers[n].rank: total([part]) for n, part in self.snapshots.items()}
        lives = {worker.rank: math.inf for worker in workers.values()}
        for worker in ledger.lost:
            heard = -math.inf if worker.heard_s is None else worker.heard_s
            lives[worker.rank] = heard + UNSURE_S
        self._take(by_totals(self.requests, parts, lives, stopped_s=stopped_s))

    def _take(self, settled: Settled) -> None:
        """Take settled totals for the run's; only the instrument's own stay."""
        seen, self._settled, self.live = self.stats(), settled, settled.stats
        self.live.loop_lag = seen.loop_lag
        self.live.worst_pause_s = seen.worst_pause_s
        self.live.recv_lags, self.live.vitals = seen.recv_lags, seen.vitals

    def summary(
        self, rows: list[RequestRecord] | None, *, complete: bool
    ) -> dict[str, Any]:
        """Return the run's figures, cost and verdict; without rows from the totals."""
        stats = self.stats()
        if rows is None:
            figures = merged.figures(stats, self.slos)
        else:
            figures = summarize(
                rows,
                dropped=stats.whole().dropped,
                slos=self.slos,
                window=window_of(self._values),
            )
        requests, tokens = figures["requests"], figures["tokens"]
        requests["unknown"] = self._settled.count(Fate.UNKNOWN)
        requests["undue"] = self._settled.count(Fate.UNDUE)
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
            "host": ",".join(self.plan.hosts),
            "model": self.plan.model,
            "plan_hash": self.digest,
            "complete": complete,
            **figures,
            "cost": cost,
            "instrument": self._instrument(rows, stats, figures),
            **self._distributed(),
            **self._isolation(rows),
            **skipped_of(self.plan),
        }

    def _isolation(self, rows: list[RequestRecord] | None) -> dict[str, Any]:
        if rows is None or len(self.plan.tenants) < 2:
            return {}
        return {"isolation": isolation_of(rows, self.slos, self.plan.duration_s)}

    def _distributed(self) -> dict[str, Any]:
        if self.ledger is None:
            return {}
        return {"distributed": self.ledger.summary(self._settled.fates)}

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
        self,
        rows: list[RequestRecord] | None,
        stats: ClientStats,
        figures: dict[str, Any],
    ) -> dict[str, Any]:
        if rows is None:
            errors = describe_histogram(stats.ttft_error)
            lags = describe(())
            told: dict[str, Any] = {"profile": None, "absent": "rows are elsewhere"}
            beyond = None
        else:
            errors = describe(abs(e) for r in rows if (e := r.ttft_error_s) is not None)
            lags = describe(r.truth.lag_s for r in rows if r.truth is not None)
            told, beyond = self.standing.judge(loads_of(rows))
        loop_lag = describe_histogram(stats.loop_lag)
        recv_lag = describe_histogram(stats.recv_lags.histogram)
        scheduled = self._scheduled(stats.whole())
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
                workers_lost=len(self.ledger.lost) if self.ledger else 0,
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
            "selfcheck": told,
            **({"notes": self.notes} if self.notes else {}),
        }

    def _unix(self) -> bool:
        return all(host.startswith("unix:") for host in self.plan.hosts)

    def _reported(self) -> int:
        return self.ledger.reported if self.ledger else 1


def _slos_of(values: Mapping[str, Any]) -> tuple[Slo, ...]:
    path = values["slo"]
    return read_slos(read_text(path, "SLO file"), name=path) if path else ()


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
