"""Emulated engines in virtual time as the site of trials."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from loadgen.folder import RunFolder
from loadgen.workload import lengths_of

from ..physics.capacity import capacity
from ..runs import SUMMARY
from ..traffic.plan import Plan
from ..traffic.probe import Bearing
from ..traffic.record import RequestRecord
from ..traffic.slo import Slo
from ..traffic.survey import survey_of_users
from .engine_options import build
from .trials import LOADS, TRIAL_OPTIONS, Load, Pace, Trial
from .virtual_run import VirtualRun

PACE: Final = Pace(measured_s=300.0, warmup_s=30.0, samples=10_000, precision=0.02)
"""Five minutes show growth of a VM's backlog from 1 % above its capacity on. Of ten
thousand requests a hundred are above the p99."""
_ABOVE: Final = 8.0
"""The search goes up to so many times the capacity estimated from the step law."""
_BELOW: Final = 1000.0
_TIMES: Final = ("duration", "warmup")
_OF_LOAD: Final = (*LOADS, "users", *_TIMES, "seed", "out")


@dataclass
class VirtualSite:
    """A plan on emulated engines; `given` are the options of `simulate` it is from."""

    run: VirtualRun
    given: Mapping[str, Any]
    console: Console
    pace: Pace = PACE
    plan: Plan = field(init=False)
    slos: tuple[Slo, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Refuse what the engines could not serve; raises `UsageError`."""
        self.plan, self.slos = self.run.plan, self.run.slos
        self._built = build(**self.run.engine)
        survey_of_users(self.plan, lengths_of(self.plan)).refuse_beyond(
            self._built.machine.limits.max_model_len
        )

    def asked(self) -> dict[str, Any]:
        """Return the options of the load and of the engines."""
        kept = {k: v for k, v in self.given.items() if k not in TRIAL_OPTIONS}
        own = {k: v for k, v in kept.items() if k not in (*_TIMES, *LOADS, "users")}
        return {"options": own}

    def options(self) -> dict[str, Any]:
        """Return the options as `loadstone simulate plan.toml` reads them again."""
        return {k: v for k, v in self.given.items() if k != "resume"}

    def limits(self) -> tuple[float, float, float]:
        """Return rates around the capacity under the TPOT objective, if there is one.

        The step law gives it.
        """
        machine, cluster, _ = self._built
        prompts, answers = lengths_of(self.plan)
        steps = (slo.max_s for slo in self.slos if slo.metric == "tpot_s")
        guess = len(cluster.engines) * capacity(
            machine.law,
            machine.limits,
            prompt=prompts.mean,
            answer=answers.mean,
            longest_step_s=min(steps, default=inf),
        )
        return guess / _BELOW, guess, guess * _ABOVE

    def describe(self) -> dict[str, Any]:
        """Return which machine is emulated."""
        machine = self._built.machine
        recipe = {"recipe": self.run.recipe.name} if self.run.recipe else {}
        return {
            "model": machine.model,
            "preset": machine.name,
            "vms": self._built.vms,
            **recipe,
        }

    def notes(self) -> tuple[str, ...]:
        """Return what the timing assumes, and what a recipe is not."""
        assumed = "; ".join(self._built.machine.assumptions(short=True))
        recipe = self.run.recipe
        return (*(recipe.notes() if recipe else ()), f"timing assumes: {assumed}")

    def gpus(self, trial: Trial) -> int | None:  # noqa: ARG002 - they are all alike
        """Return the GPUs of the VMs."""
        return self._built.vms * self._built.machine.gpus_per_vm

    def try_load(
        self, load: Load, folder: Path, bearing: Bearing | None,
        stopping: Callable[[], bool],
    ) -> Trial | None:  # fmt: skip
        """Simulate a load; its rows are not kept, its plan makes them again."""
        # Without a rate or a trace a plan is closed.
        closed = {} if load.users is None else {"users": load.users}
        plan = self.plan.retargeted(
            rate=load.rate, seed=load.seed, warmup_s=load.warmup_s,
            duration_s=load.duration_s, **closed,
        )  # fmt: skip
        engine = {**self.run.engine, "seed": load.seed}
        tried = replace(self.run, plan=plan, engine=engine)
        seen = tried.survey()
        folder.mkdir(parents=True, exist_ok=True)
        kept = RunFolder(folder)
        kept.write_plan(plan, seen.plan_hash, options=self._options(load))

        def note(row: RequestRecord) -> None:
            if bearing is not None:
                bearing.add(row)

        summary = tried.run(
            on_row=note,
            stopping=lambda: stopping() or (bearing is not None and bearing.hopeless),
        )
        if stopping():
            return None
        summary = {"run": folder.name, "plan_hash": seen.plan_hash, **summary}
        kept.write_json(SUMMARY, summary)
        return Trial(folder=folder, summary=summary)

    def _options(self, load: Load) -> dict[str, Any]:
        """Return the options of `simulate` that make this one run."""
        shared = {
            k: v for k, v in self.given.items() if k not in (*TRIAL_OPTIONS, *_OF_LOAD)
        }
        own = {"users": load.users} if load.rate is None else {"rate": repr(load.rate)}
        return {
            **shared, **own, "seed": load.seed,
            "duration": f"{load.duration_s:.3f}s", "warmup": f"{load.warmup_s:.3f}s",
        }  # fmt: skip
