"""The run as a whole: prepares it, splits it into shares, puts the figures together.

There is one coordinator per Locust process that is not a worker. It never sends a
request: a `Session` does, here or in the workers, on the order that the coordinator
gave it.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from loadstone.cost.meter import usd_so_far
from loadstone.errors import LoadstoneError, UsageError
from loadstone.runs import (
    METRICS,
    PULSES,
    SERVER_COUNTS,
    SERVER_METRICS,
    SUMMARY,
    RunFiles,
    read_rows,
)
from loadstone.traffic.accounts import UNSURE_S, Fate, Pulse
from loadstone.traffic.isolation import isolation_of
from loadstone.traffic.machine import Load, Standing, loads_of
from loadstone.traffic.plan import Plan, plan_hash
from loadstone.traffic.record import RequestRecord
from loadstone.traffic.request import Request
from loadstone.traffic.serverside import read_scrapes
from loadstone.traffic.slo import Slo
from loadstone.traffic.summary import describe, describe_histogram, summarize
from loadstone.traffic.verdict import Evidence, Verdict, judge
from loadstone.units import Seconds, Tokens, Usd

from . import merged
from .budget import Budget
from .client import Endpoint
from .clocks import Offset
from .described import describe_target
from .exchange import OWN_LIMITS
from .flows import flows_of
from .folder import RunFolder
from .ledger import Ledger
from .options import as_given, plan_of, window_of
from .order import Order
from .plans import objectives
from .pricing import cost_of, fleet_of
from .probe import Target, probe_all
from .rag import BUILT_IN, check_options, prepare, retrieves
from .receive import why_absent
from .resolve import resolve
from .scrape import Scraper, watch_of
from .selfcheck import standing
from .series import Series
from .server_books import ServerBooks
from .settling import Settled, by_rows, by_totals
from .stats import ClientStats, SliceStats, total
from .target import endpoint_of, endpoints_of, endpoints_of_tenants
from .tracing import Traces
from .workload import requests_of, skipped_of

LEAD_S: Final = 0.5
"""From the order to t0: time to spawn users and open connections."""
LEAD_OF_WORKERS_S: Final = 2.0
"""The same where the order goes to other processes first."""
_NO_TARGET: Final = Target(models=(), mock=None)
"""Of a run that nobody is going to send."""
REPORT_S: Final = 3.0
"""How often Locust's workers report (WORKER_REPORT_INTERVAL)."""


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
        endpoints: Sequence[Endpoint] = (),
        books: ServerBooks | None = None,
        drawing_s: Seconds = 0.0,
    ) -> None:
        """Take a run's parts: `drawing_s` is how long drawing its requests took.

        `books` are those of its servers, where they keep any.
        """
        self.folder = folder
        self.plan = plan
        self.requests = requests
        self.digest = digest
        self.workers = workers
        self.slos = slos
        self.standing = standing
        self.fleet = fleet_of(plan)
        self.target = target
        self.budget = Budget.of(values)
        self._endpoints = endpoints
        self._books = books
        self._scraper: Scraper | None = None
        self.notes = [standing.absent] if standing.absent else []
        """What to know of the figures beside the verdict's reasons."""
        self.run_id = uuid4().hex
        self.t0_epoch = time.time()
        """On this process's clock; final once the run is `begin`ning."""
        self.t0 = time.monotonic()
        """The same instant on the clock that nobody sets."""
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
        slos = objectives(values["slo"], values["scenario"])
        flows_of(plan, BUILT_IN)
        endpoints_of_tenants(plan, values, environ)
        judged_by = standing(values["selfcheck"], environ)
        began = time.monotonic()
        requests = requests_of(plan)
        drawing_s = time.monotonic() - began
        endpoints = endpoints_of(plan.hosts, values, environ)
        target = probe_all(endpoints, plan, wanted)
        if not wanted():
            raise LoadstoneError("stopped before the run began", code="stopped")
        plan = resolve(plan, target)
        _refuse_priceless(plan, values)
        digest = plan_hash(plan, requests)
        folder = RunFolder.create(Path(values["out"]), plan.scenario)
        folder.write_plan(
            plan,
            digest,
            options=_given(values, host, users),
            slo=[asdict(slo) for slo in slos] or None,
        )
        if retrieves(plan):
            embeds = values["embeddings_host"] or plan.hosts[0]
            prepare(plan, values, endpoint_of(embeds, values, environ), folder.path)
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
            endpoints=endpoints,
            books=_books_of(endpoints, target, values, environ),
            drawing_s=drawing_s,
        )

    def begin(self, clocks: Mapping[str, Offset | None] | None = None) -> None:
        """Set t0 a little ahead, and say in the folder what this runs on.

        `clocks` has the workers in order of rank, and by how much their clocks differ;
        None where this process sends everything itself.
        """
        if self._books is not None:
            self._books.open()
        if clocks is None:
            lead = LEAD_S
        else:
            self.ledger = Ledger.of(clocks)
            # Workers draw the schedule again before they can send; some are slower.
            lead = LEAD_OF_WORKERS_S + 3 * self._drawing_s
        self.t0_epoch, self.t0 = time.time() + lead, time.monotonic() + lead
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

    def watch_server(self) -> None:
        """Scrape the server's own metrics from now on, if the options say so."""
        setting = self._values["server_metrics"]
        if setting is None:
            return
        self._scraper = Scraper(
            watch_of(
                setting, self._endpoints, self._values,
                t0=self.t0, folder=self.folder.path.absolute(),
            )
        )  # fmt: skip

    def end_watch(self) -> None:
        """Scrape no more."""
        if self._scraper is not None:
            self._scraper.close()
            self._scraper = None

    @property
    def most_rows(self) -> float:
        """Bytes of rows up to which a worker's are carried over at the end."""
        return float(self._values["collect_mb"]) * 1e6

    def stats(self) -> ClientStats:
        """Return the totals so far, over all processes."""
        return self.live or total(self.snapshots.values())

    def elapsed_s(self) -> Seconds:
        """Seconds since t0, never negative."""
        return max(0.0, time.monotonic() - self.t0)

    def cost_usd(self) -> float:
        """Return what it has cost since t0; 0 without a price."""
        whole = self.stats().whole()
        return self._usd(whole.input_tokens, whole.output_tokens)

    def _usd(self, input_tokens: Tokens, output_tokens: Tokens) -> Usd:
        if self.fleet is None:
            return 0.0
        return usd_so_far(self.fleet, self.elapsed_s(), input_tokens, output_tokens)

    def spent(self) -> dict[str, float]:
        """Return what was spent so far of what may be limited.

        Requests in flight count with the tokens that they have asked for.
        """
        stats = self.stats()
        parts = stats.slices.values()
        n_in = stats.reserved[0] + sum(part.input_tokens for part in parts)
        n_out = stats.reserved[1] + sum(part.output_tokens for part in parts)
        return {
            "usd": self._usd(n_in, n_out),
            "requests": sum(part.sent for part in parts),
            "tokens": n_in + n_out,
        }

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
            "usd": self.cost_usd() if self.fleet else None,
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
        self.end_watch()
        if self._books is not None:
            traces = Traces(self.plan.seed, run=self.order().trace_run, ratio=0.0)
            self.folder.write_json(SERVER_COUNTS, self._books.close(traces.run_hex))
        if self.ledger is not None:
            self.notes += self.ledger.notes()
        complete, spent = stopped_s == math.inf, self.spent()
        rows: list[RequestRecord] | None = None
        if self.ledger is None or self.ledger.all_rows_here:
            rows = list(read_rows(self.folder.path))
            if complete and self.budget.reached(spent):
                # What was due later was not wanted any more.
                stopped_s = max((row.intended_s for row in rows), default=0.0)
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
        if self.budget.limits:
            summary["budget"] = self.budget.summary(spent, self.workers, REPORT_S)
        summary |= self._of_the_target(rows or [])
        summary["instrument"]["locust"] = locust
        self.folder.write_json(SUMMARY, summary)
        self.folder.write_text(METRICS, metrics())
        self.folder.forget(PULSES)
        return summary

    def _of_the_target(self, rows: list[RequestRecord]) -> dict[str, Any]:
        """Return what is known of the endpoint, and what it says of itself."""
        scrapes = read_scrapes(self.folder.lines(SERVER_METRICS))
        keyed = any(endpoint.credential for endpoint in self._endpoints)
        return describe_target(self.plan, self.target, rows, scrapes, keyed=keyed)

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
        requests = figures["requests"]
        requests["unknown"] = self._settled.count(Fate.UNKNOWN)
        requests["undue"] = self._settled.count(Fate.UNDUE)
        return {
            "run": self.folder.path.name,
            "scenario": self.plan.scenario,
            "loop": self.plan.loop,
            "host": ",".join(self.plan.hosts),
            "model": self.plan.model,
            "plan_hash": self.digest,
            "complete": complete,
            **figures,
            "cost": cost_of(
                self.fleet, rows, stats, slos=self.slos, window_s=figures["makespan_s"]
            ),
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
        _, beyond = self.standing.judge(self._loads())
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
                server_lag_p99=stats.mock_lag.quantile(0.99),
                workers_lost=len(self.ledger.lost) if self.ledger else 0,
                beyond_profile=beyond,
            )
        )

    def _loads(self) -> list[Load]:
        """Return the load of each process so far."""
        own = [self.live] if self.live else []
        parts = own or [total([told]) for told in self.snapshots.values()]
        return [part.whole().load for part in parts]

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
            lags = describe_histogram(stats.mock_lag)
            told, beyond = self.standing.judge(self._loads())
        else:
            errors = describe(abs(e) for r in rows if (e := r.ttft_error_s) is not None)
            lags = describe(r.truth.lag_s for r in rows if r.truth is not None)
            told, beyond = self.standing.judge(loads_of(rows))
        reported = self.ledger.reported if self.ledger else 1
        unix = all(host.startswith("unix:") for host in self.plan.hosts)
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
                without_socket=sum(figures["errors"].get(e, 0) for e in OWN_LIMITS),
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
            "recv_lag_absent": None if recv_lag["n"] else why_absent(unix=unix),
            "recv_lag_dropped": stats.recv_lags.clock_set,
            "worst_gc_pause_s": stats.worst_pause_s,
            **stats.vitals,
            "mock_lag_s": lags,
            "workers": {"expected": self.workers, "reported": reported},
            "selfcheck": told,
            **({"notes": self.notes} if self.notes else {}),
        }


def _refuse_priceless(plan: Plan, values: Mapping[str, Any]) -> None:
    if fleet_of(plan) is None and "usd" in Budget.of(values).limits:
        raise UsageError(
            "--max-usd needs a price", hint="give --prices NAME and --vms N"
        )


def _books_of(
    endpoints: Sequence[Endpoint],
    target: Target,
    values: Mapping[str, Any],
    environ: Mapping[str, str],
) -> ServerBooks | None:
    """Return the books of all servers that will get requests; real ones keep none."""
    if target.mock is None:
        return None
    embeds = values["embeddings_host"]
    known = {endpoint.url for endpoint in endpoints}
    more = () if embeds is None else (endpoint_of(embeds, values, environ),)
    return ServerBooks([*endpoints, *(e for e in more if e.url not in known)])


def _given(values: Mapping[str, Any], host: str, users: int | None) -> dict[str, Any]:
    """Return what was asked for, as `loadstone run plan.toml` reads it again."""
    own = {"host": host} | ({} if users is None else {"users": users})
    return as_given(values) | own
