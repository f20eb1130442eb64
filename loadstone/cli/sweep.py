"""`--sweep` of `run` and `simulate`: one load after the other, and how they compare."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..errors import ExitCode, UsageError
from ..report.pareto import Picture
from ..report.table import WIDTH, duration, number
from ..runs import SWEEP
from ..traffic.probe import Bearing, Trust
from ..traffic.sweep import Sweep
from ..units import Seconds, format_duration
from .journal import Journal
from .trials import PROBES, Load, Site, Trial, Trials
from .virtual_run import interruptible

PLOT: Final = "pareto.svg"
_GROWTH_NATS: Final = 4.5
"""Three standard deviations: the backlog grows by more than chance."""
_COLUMNS: Final = (
    "load", "done/s", "tokens/s", "per GPU", "per user", "TTFT p50", "TTFT p99",
    "TPOT p50", "answer p99", "not ok", "verdict",
)  # fmt: skip
_KNEE: Final = "the largest product of both (Kleinrock's power: throughput over delay)"


def sweep(
    site: Site, trials: Trials, given: Mapping[str, Any], *, as_json: bool
) -> int:
    """Try each load, tell it as it ends and then all of them; return the exit code.

    `given` are the command's other options. Raises `UsageError` for what cannot be
    tried.
    """
    return _Sweep(site, trials, given).run(as_json=as_json)


@dataclass
class _Sweep:
    site: Site
    trials: Trials
    given: Mapping[str, Any]
    wanted: Sweep = field(init=False)
    journal: Journal = field(init=False)
    measured_s: Seconds = field(init=False)
    warmup_s: Seconds = field(init=False)

    def __post_init__(self) -> None:
        self.wanted = Sweep.parse(self.trials.sweep or "")
        if self.wanted.what == "users" and self.given.get("users") is not None:
            raise UsageError("--sweep users=... says how many: leave --users out")
        self.measured_s, self.warmup_s = self.site.pace.timed(self.given)
        self.journal = Journal.open(
            self.site, SWEEP, f"sweep-{self.site.plan.scenario}", entries="steps",
            asked={
                **self.site.asked(), "sweep": self.trials.sweep,
                "gpus": self.trials.given["gpus"], "measured_s": self.measured_s,
                "warmup_s": self.warmup_s,
            },
            out=Path(self.given.get("out") or "runs"), resume=self.trials.resume,
        )  # fmt: skip

    def run(self, *, as_json: bool) -> int:
        """Try what was not tried yet; return the exit code."""
        steps, done = self.wanted.steps, self.journal.entries
        self._say(
            f"{len(steps)} loads, each measured for {format_duration(self.measured_s)}"
            f" after {format_duration(self.warmup_s)}"
        )
        for told in done:
            self._say(_line(told, len(steps), 0.0))
        with interruptible() as stopping:
            while len(done) < len(steps) and not stopping():
                told_now = self._try(steps[len(done)], stopping)
                if told_now is None:
                    break
                self.journal.add(told_now)
                self.journal.write(self._document())
                left = (len(steps) - len(done)) * self.journal.pace_s
                self._say(_line(done[-1], len(steps), left))
        document = self._document()
        self.journal.write(document)
        if (picture := _picture(document)) is not None:
            self.journal.folder.write_text(PLOT, picture.svg().encode())
        self.journal.end(
            self.site, document, lambda: self._print(done, picture), as_json=as_json
        )
        return self._exit_code()

    def _exit_code(self) -> ExitCode:
        done = self.journal.entries
        whole = len(done) == len(self.wanted.steps)
        sound = all(step["trusted"] for step in done)
        return ExitCode.DONE if whole and sound else ExitCode.NOT_VALID

    def _say(self, text: str) -> None:
        # As text: a note may repeat what a server said.
        self.site.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _print(self, steps: list[dict[str, Any]], picture: Picture | None) -> None:
        wide = None if sys.stdout.isatty() else 2 * WIDTH
        Console(width=wide).print(_table(steps))
        for line in picture.text() if picture else ():
            click.echo(line)

    def _try(self, value: float, stopping: Callable[[], bool]) -> dict[str, Any] | None:
        rate = value if self.wanted.what == "rate" else None
        load = Load(
            rate=rate, users=None if rate else int(value), seed=self.site.plan.seed,
            warmup_s=self.warmup_s, duration_s=self.warmup_s + self.measured_s,
        )  # fmt: skip
        bearing = Bearing(
            (), requests=0, warmup_s=load.warmup_s, duration_s=load.duration_s,
            nats=_GROWTH_NATS,
        )  # fmt: skip
        turn, began = len(self.journal.entries) + 1, time.monotonic()
        folder = self.journal.path / PROBES / f"{turn:02}"
        trial = self.site.try_load(load, folder, bearing, stopping)
        if trial is None:
            return None
        grows = bearing.look().growth_nats >= _GROWTH_NATS
        return {
            **self._told(load, trial),
            "grows": rate is not None and grows,
            "turn": turn,
            "seconds": round(time.monotonic() - began, 3),
        }

    def _told(self, load: Load, trial: Trial) -> dict[str, Any]:
        summary = trial.summary
        gpus = self.trials.get("gpus", self.site.gpus(trial))
        steady = summary["throughput"]["steady_output_tok_s"]
        tpot = summary["tpot_s"]["p50"]
        return {
            "load": str(load),
            "rate": load.rate,
            "users": load.users,
            "seed": load.seed,
            "folder": self.journal.relative(trial.folder),
            "gpus": gpus,
            "output_tok_s": steady,
            "tok_s_per_gpu": steady / gpus if gpus and steady is not None else None,
            "tok_s_per_user": 1.0 / tpot if tpot else None,
            "trusted": trial.trust is Trust.FULL,
            "verdict": summary["instrument"]["verdict"],
            "notes": list(trial.notes),
            **{
                name: summary[name]
                for name in ("requests", "throughput", "ttft_s", "ttft_intended_s",
                             "tpot_s", "e2e_s", "slo", "cost")
            },
        }  # fmt: skip

    def _document(self) -> dict[str, Any]:
        done = self.journal.entries
        document = {
            "scenario": self.site.plan.scenario,
            **self.site.describe(),
            "complete": len(done) == len(self.wanted.steps),
            "what": self.wanted.what,
            "loads": self.wanted.steps,
            "steps": done,
        }
        picture = _picture(document)
        return {
            **document,
            "frontier": picture.frontier_loads if picture else [],
            "knee": {"load": picture.knee_at, "is": _KNEE} if picture else None,
            "notes": [*_notes(picture, done), *self.site.notes()],
        }


def _picture(document: Mapping[str, Any]) -> Picture | None:
    title = f"{document['scenario']} on {document['model'] or 'the endpoint'}"
    return Picture.of(title, document["steps"])


def _notes(picture: Picture | None, steps: list[dict[str, Any]]) -> list[str]:
    notes = []
    if picture is None:
        notes.append("no step has both a TPOT and a throughput: nothing to plot")
    elif picture.knee_at:
        end = "; at an end of the frontier: it may lie beyond the sweep"
        notes.append(
            f"knee: {picture.knee_at}, {_KNEE}{end if picture.at_an_end else ''}"
        )
    if any(step["gpus"] is None for step in steps):
        notes.append("how many GPUs there are is unknown: give --gpus N")
    growing = [step["load"] for step in steps if step["grows"]]
    if growing:
        notes.append(
            f"not sustained, the backlog grew, and left out: {', '.join(growing)}"
        )
    spoilt = [step["load"] for step in steps if not step["trusted"]]
    if spoilt:
        notes.append(
            f"the client's limit, not the endpoint's, and left out: {', '.join(spoilt)}"
        )
    return notes


def _line(step: Mapping[str, Any], steps: int, left_s: Seconds) -> str:
    left = f"   about {format_duration(round(left_s))} left" if left_s >= 1 else ""
    why = "".join(f"\n    {note}" for note in step["notes"])
    return (
        f"{step['turn']:>2}/{steps}  {step['load']:>16}"
        f"  {number(step['output_tok_s'], 0)} tokens/s"
        f"  TTFT p99 {duration(step['ttft_intended_s']['p99'])}"
        f"  TPOT p50 {duration(step['tpot_s']['p50'])}  {step['verdict']}{left}{why}"
    )


def _table(steps: list[dict[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for step in steps:
        requests, first = step["requests"], step["ttft_intended_s"]
        table.add_row(
            step["load"],
            number(step["throughput"]["req_s"], 2),
            number(step["output_tok_s"], 0),
            number(step["tok_s_per_gpu"], 1),
            number(step["tok_s_per_user"], 1),
            duration(first["p50"]),
            duration(first["p99"]),
            duration(step["tpot_s"]["p50"]),
            duration(step["e2e_s"]["p99"]),
            number(requests["sent"] - requests["ok"] + requests["dropped"], 0),
            step["verdict"],
        )
    return table
