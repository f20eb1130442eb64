"""An endpoint as the site of trials: each is a run, of the child that `run` starts."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

from rich.console import Console

from loadgen.idle import in_flight
from loadgen.options import plan_of, read_options
from loadgen.plans import objectives
from loadgen.target import endpoints_of
from loadgen.workload import stream_of

from ..catalog.presets import preset_names, read_machine
from ..errors import LoadstoneError, UsageError
from ..report.progress import Progress
from ..runs import RunFiles
from ..traffic.plan import DEFAULT_SCENARIO, Plan
from ..traffic.probe import Bearing, Trust
from ..traffic.record import RequestRecord
from ..traffic.slo import Slo
from ..traffic.verdict import Verdict
from .locust_child import failed, running
from .trials import Load, Pace, Trial

PACE: Final = Pace(measured_s=60.0, warmup_s=10.0, samples=0, precision=0.05)
LIMITS: Final = (0.01, 1.0, 100_000.0)
"""Rates in requests/s that a search tries where nobody says: lowest, first, highest."""
_THESE: Final = "a search or a sweep"
_PATIENCE_S: Final = 60.0
"""How long an endpoint is given to end what it still runs of the trial before."""
_LOOK_EVERY_S: Final = 0.5
_PAUSE_S: Final = 2.0
"""The pause before an endpoint that does not tell what it runs."""
_NO_LOAD: Final = frozenset({"out", "metrics_port", "selfcheck", "api_key_env",
                             "api_key_file", "rate", "duration", "warmup"})  # fmt: skip
"""Options that decide no answer, and those that each trial sets itself."""
_TRUST: Final = {
    Verdict.OK: Trust.FULL,
    Verdict.TOO_FEW_SAMPLES: Trust.FULL,  # how many are enough is the search's affair
    Verdict.CLIENT_LIMITED: Trust.CEILING,
    Verdict.RATE_NOT_DELIVERED: Trust.NONE,
}


class Arguments(Protocol):
    """Writes options and a number of users as Locust's command line."""

    def __call__(
        self, given: Mapping[str, str | None], *, users: int | None
    ) -> list[str]:
        """Raise `UsageError` for wrong ones."""
        ...


@dataclass
class LiveSite:
    """An endpoint, with the options of `loadstone run` that all trials share."""

    given: Mapping[str, str | None]
    host: str
    users: int | None
    arguments: Arguments
    console: Console
    web: bool = False
    pace: Pace = PACE
    plan: Plan = field(init=False)
    slos: tuple[Slo, ...] = field(init=False)
    _mock: Mapping[str, Any] | None = field(init=False, default=None)
    _model: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Read what can be wrong before anything starts; raises `UsageError`."""
        if self.web:
            raise UsageError(f"--web is for one run: leave it out of {_THESE}")
        scenario = self.given.get("scenario") or DEFAULT_SCENARIO
        self.slos = objectives(self.given.get("slo") or None, scenario)
        seed = read_options(self.given)["seed"]
        any_load = Load(rate=1.0, seed=seed, duration_s=1.0)
        self.plan = self._plan(any_load)
        self._arguments(any_load, Path())

    def _options(self, load: Load, out: Path) -> dict[str, str | None]:
        rate = None if load.rate is None else repr(load.rate)
        return {
            **self.given, "rate": rate, "seed": str(load.seed), "out": str(out),
            "duration": f"{load.duration_s:.3f}s", "warmup": f"{load.warmup_s:.3f}s",
        }  # fmt: skip

    def _users(self, load: Load) -> int | None:
        """Return the users of a closed loop, or the places in flight of an open one."""
        return load.users if load.rate is None else self.users

    def _arguments(self, load: Load, out: Path) -> list[str]:
        return self.arguments(self._options(load, out), users=self._users(load))

    def _plan(self, load: Load) -> Plan:
        values = read_options(self._options(load, Path()))
        return plan_of(values, host=self.host, users=self._users(load))

    def asked(self) -> dict[str, Any]:
        """Return the endpoint, the options and what they add up to."""
        given = {k: v for k, v in self.given.items() if v and k not in _NO_LOAD}
        return {"host": self.host, "users": self.users, "options": given}

    def options(self) -> dict[str, Any]:
        """Return the options as `loadstone run plan.toml` reads them again."""
        given = {k: v for k, v in self.given.items() if v and k != "out"}
        users = {} if self.users is None else {"users": self.users}
        return given | {"host": self.host} | users

    def limits(self) -> tuple[float, float, float]:
        """Return what is known of an endpoint beforehand: nothing."""
        return LIMITS

    def describe(self) -> dict[str, Any]:
        """Return the model, and of a mock its preset and VMs."""
        mock = self._mock or {}
        return {
            "host": self.host,
            "model": self._model,
            "preset": mock.get("preset"),
            "vms": self.plan.vms or mock.get("vms"),
        }

    def notes(self) -> tuple[str, ...]:
        """Say what was tried against."""
        if self._mock is None:
            return ()
        slowdown = float(self._mock.get("slowdown", 1.0))
        slower = f", slowed down {slowdown:g} times" if slowdown != 1.0 else ""
        return (f"the endpoint is loadstone's mock{slower}: no GPU was measured",)

    def gpus(self, trial: Trial) -> int | None:
        """Return the GPUs of the mock's VMs, or of the `--vms` that are paid for.

        What a VM has is in the catalog, by the mock's preset or by `--prices`.
        """
        mock = RunFiles(trial.folder).environment().get("mock") or {}
        vms = self.plan.vms or mock.get("vms")
        preset, price = mock.get("preset"), self.plan.price
        machines = {name: read_machine(name) for name in preset_names()}
        sizes = {
            int(facts["gpus_per_vm"].value)
            for name, (machine, facts) in machines.items()
            if (name == preset if preset else machine["price"] == price)
        }
        if vms is None or len(sizes) != 1:
            return None
        return int(vms) * sizes.pop()

    def try_load(
        self, load: Load, folder: Path, bearing: Bearing | None,
        stopping: Callable[[], bool],
    ) -> Trial | None:  # fmt: skip
        """Wait until the endpoint is idle, run the load and read its rows."""
        notes = self._await_idle(stopping)
        if stopping():
            return None
        done = _run(self._arguments(load, folder), self.console)
        if done is None:
            return None
        path = Path(done["folder"])
        rows = list(RunFiles(path).rows())
        summary = done["summary"]
        self._mock = RunFiles(path).environment().get("mock")
        self._model = summary.get("model")
        plan = self._plan(load)
        if bearing is not None:
            dropped = summary["requests"]["dropped"]
            _show(bearing, Plan.from_toml(RunFiles(path).plan()["plan"]), rows, dropped)
        instrument = summary["instrument"]
        trust = _TRUST[Verdict(instrument["verdict"])]
        if trust is not Trust.FULL:
            notes += tuple(instrument["reasons"])
        if trust is Trust.NONE and most_in_flight(rows) >= plan.users:
            # The endpoint held as many as it may; what waited is in the backlog.
            notes += (f"all {plan.users} places in flight were taken (--users)",)
            trust = Trust.FULL
        return Trial(folder=path, summary=summary, trust=trust, notes=notes)

    def _await_idle(self, stopping: Callable[[], bool]) -> tuple[str, ...]:
        """Wait for what the endpoint still runs; say what was found, if it matters."""
        endpoints = endpoints_of(self.plan.hosts, read_options(self.given), os.environ)
        deadline = time.monotonic() + _PATIENCE_S
        while not stopping():
            busy = in_flight(endpoints)
            if busy is None:
                time.sleep(_PAUSE_S)
                return ()
            if busy == 0:
                return ()
            if time.monotonic() > deadline:
                return (f"the endpoint still had {busy:,} requests: somebody else's?",)
            time.sleep(_LOOK_EVERY_S)
        return ()


def _run(arguments: Sequence[str], console: Console) -> dict[str, Any] | None:
    """Run Locust to its end and return what it told; None if it was interrupted."""
    done: dict[str, Any] | None = None
    with running([*arguments, "--headless"]) as child, Progress(console) as progress:
        for what, facts in child:
            if what == "progress" and console.is_terminal:
                progress.show(facts)
            elif what == "failed" and not child.interrupted:
                raise failed(facts)
            elif what == "done":
                child.keep_log(Path(facts["folder"]))
                done = facts
        if child.interrupted:
            return None
        if done is None:
            child.close()
            raise LoadstoneError(
                "Locust ended without a summary", hint=child.log_tail()
            )
    return done


def _show(
    bearing: Bearing, plan: Plan, rows: Sequence[RequestRecord], dropped: int
) -> None:
    """Show what was sent, and what was due and had no place to be sent from."""
    for row in rows:
        bearing.add(row)
    if dropped and plan.loop != "closed":
        sent = {row.id for row in rows}
        due = (
            request.intended_s
            for request in stream_of(plan)()
            if request.id not in sent
        )
        # Later turns of a conversation that never began were not due.
        bearing.add_dropped(islice(due, dropped))


def most_in_flight(rows: Sequence[RequestRecord]) -> int:
    """Return how many requests were under way at once, at most."""
    changes = sorted(
        change for row in rows for change in ((row.sent_s, 1), (row.end_s, -1))
    )
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
