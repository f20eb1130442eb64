"""`--find-max` of `run` and `simulate`: the highest rate that meets the objectives."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, Final

from loadgen.workload import stream_of

from ..errors import ExitCode, UsageError
from ..report.table import duration, number, usd
from ..traffic.probe import Bearing, Look, Trust, samples_to_show
from ..traffic.search import (
    CONFIDENCE,
    MOST_PROBES,
    REPEATS,
    Answer,
    End,
    Goal,
    Probe,
    bracket,
    next_step,
    standing,
)
from ..units import Seconds, format_duration
from .journal import Journal
from .trials import PROBES, Load, Site, Trial, Trials
from .virtual_run import interruptible

SEARCH: Final = "search.json"
_MARGIN: Final = 2.0
"""A probe is cut short where the evidence would do even if it were clustered so."""


def find(site: Site, trials: Trials, given: Mapping[str, Any], *, as_json: bool) -> int:
    """Search, tell each probe as it ends and then the answer; return the exit code.

    `given` are the command's other options. Raises `UsageError` for what cannot be
    searched.
    """
    return _Search(site, trials, given).run(as_json=as_json)


@dataclass
class _Search:
    """A search that is on: what it wants, and what was seen so far."""

    site: Site
    trials: Trials
    given: Mapping[str, Any]
    goal: Goal = field(init=False)
    journal: Journal = field(init=False)
    samples: int = field(init=False)
    measured_s: Seconds = field(init=False)
    warmup_s: Seconds = field(init=False)

    def __post_init__(self) -> None:
        if not self.site.slos:
            raise UsageError("--find-max needs objectives", hint="give --slo FILE")
        self.goal = _goal(self.site, self.trials)
        self.measured_s, self.warmup_s = self.site.pace.timed(self.given)
        needed = (samples_to_show(slo, self.goal.met_nats) for slo in self.site.slos)
        wanted = 0 if self.given.get("duration") else self.site.pace.samples
        self.samples = max(wanted, *needed)
        self.journal = Journal.open(
            self.site, SEARCH, f"find-max-{self.site.plan.scenario}", entries="probes",
            asked={**self.site.asked(), "search": self._asked()},
            out=Path(self.given.get("out") or "runs"), resume=self.trials.resume,
        )  # fmt: skip

    def _asked(self) -> dict[str, Any]:
        """Return what decides which rates are tried, and what they are judged by.

        Not how many there may be: one that was not settled may be given more.
        """
        wanted = asdict(self.goal)
        del wanted["most"]
        return {
            **wanted,
            "measured_s": self.measured_s,
            "warmup_s": self.warmup_s,
            "objectives_in_full": [asdict(slo) for slo in self.site.slos],
        }

    @property
    def seen(self) -> list[tuple[float, Look]]:
        """What was tried so far, in order."""
        return [
            (told["rate"], Look.from_json(told["look"]))
            for told in self.journal.entries
        ]

    def run(self, *, as_json: bool) -> int:
        """Search on from what was seen; return the exit code."""
        self._say(self._head())
        for turn in range(1, len(self.journal.entries) + 1):
            self._say(self._line(turn, 0.0))
        with interruptible() as stopping:
            step = next_step(self.seen, self.goal)
            while isinstance(step, Probe) and not stopping():
                tried = self._try(step, stopping)
                if tried is None:
                    break
                self.journal.add(tried)
                self.journal.write(self._document(None))
                step = next_step(self.seen, self.goal)
                left = 0 if isinstance(step, Answer) else step.likely + 1
                turn = len(self.journal.entries)
                self._say(self._line(turn, left * self.journal.pace_s))
        answer = step if isinstance(step, Answer) else None
        document = self._document(answer)
        self.journal.write(document)
        self.journal.end(self.site, document, lambda: None, as_json=as_json)
        return _exit_code(answer)

    def _say(self, text: str) -> None:
        # As text: a note may repeat what a server said.
        self.site.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _load(self, probe: Probe) -> Load:
        """Return a probe as a load, long enough for every percentile to be shown."""
        measured_s = max(self.measured_s, ceil(self.samples / probe.rate * 1e3) / 1e3)
        return Load(
            rate=probe.rate,
            seed=self.site.plan.seed + probe.repeat,
            warmup_s=self.warmup_s,
            duration_s=self.warmup_s + measured_s,
        )

    def _try(self, probe: Probe, stopping: Callable[[], bool]) -> dict[str, Any] | None:
        """Try a rate under the seed of its turn; None if that was stopped."""
        load = self._load(probe)
        plan = self.site.plan.retargeted(
            rate=load.rate, seed=load.seed, warmup_s=load.warmup_s,
            duration_s=load.duration_s,
        )  # fmt: skip
        bearing = Bearing(
            self.site.slos,
            requests=sum(r.intended_s >= plan.warmup_s for r in stream_of(plan)()),
            warmup_s=plan.warmup_s,
            duration_s=plan.duration_s,
            nats=_MARGIN * self.goal.missed_nats,
        )
        turn = len(self.journal.entries) + 1
        if self.site.console.is_terminal:
            self.site.console.print(
                f"probe {turn} of {self.goal.most} at most: {load} for"
                f" {format_duration(round(load.duration_s))}",
                highlight=False, soft_wrap=True, style="dim",
            )  # fmt: skip
        began = time.monotonic()
        folder = self.journal.path / PROBES / f"{turn:02}"
        trial = self.site.try_load(load, folder, bearing, stopping)
        if trial is None:
            return None
        return self._told(load, bearing, trial) | {
            "seconds": round(time.monotonic() - began, 3)
        }

    def _told(self, load: Load, bearing: Bearing, trial: Trial) -> dict[str, Any]:
        look, summary = bearing.look(trial.trust), trial.summary
        assert load.rate is not None
        earlier = [seen for rate, seen in self.seen if rate == load.rate]
        verdict = standing([*earlier, look], self.goal)
        return {
            "rate": load.rate,
            "seed": load.seed,
            "folder": self.journal.relative(trial.folder),
            "standing": verdict.value,
            "met": look.seems_met(self.goal.missed_nats),
            "cut_short": bearing.hopeless and not summary["complete"],
            "backlog": look.backlog,
            "grows": look.growth_nats >= self.goal.missed_nats,
            "measured_s": load.duration_s - load.warmup_s,
            "requests": summary["requests"],
            "slo": summary["slo"],
            "throughput": summary["throughput"],
            "cost": summary["cost"],
            "verdict": summary["instrument"]["verdict"],
            "trust": look.trust.value,
            "notes": list(trial.notes),
            "look": look.to_json(),
        }

    # ------------------------------------------------------------------ in words

    def _head(self) -> str:
        goal, slos = self.goal, self.site.slos
        wanted = ", ".join(f"{s.metric} {s.stat} {duration(s.max_s)}" for s in slos)
        return (
            f"highest rate with {wanted}, between {goal.low:.3g} and {goal.high:.5g}"
            f" requests/s, to {goal.precision:.1%} with {goal.confidence:.0%}"
            f" confidence in {goal.most} probes at most; each measures"
            f" {format_duration(self.measured_s)} after"
            f" {format_duration(self.warmup_s)}, and {self.samples:,} requests at least"
        )

    def _line(self, turn: int, left_s: Seconds) -> str:
        told = self.journal.entries[turn - 1]
        values = "  ".join(
            f"{slo['metric']} {slo['stat']}"
            f" {'failures' if slo['value_s'] is None else duration(slo['value_s'])}"
            for slo in told["slo"]
        )
        under, over = bracket(self.seen[:turn], self.goal)
        ends = f"[{number(under, 2)}, {number(over, 2)}]"
        left = f"   about {format_duration(round(left_s))} left" if left_s >= 1 else ""
        # Why the client was late matters where that cost a verdict.
        why = "".join(f"\n    {note}" for note in told["notes"] if not told["met"])
        return (
            f"{turn:>2}/{self.goal.most} {number(told['rate'], 2):>10} requests/s"
            f"  seed {told['seed']}  {values}  {_verdict(told)}  {ends}{left}{why}"
        )

    def _document(self, answer: Answer | None) -> dict[str, Any]:
        probes = self.journal.entries
        best = next(
            (t for t in probes if answer and t["rate"] == answer.met and t["met"]), None
        )
        goal, about = self.goal, self.site.describe()
        return {
            "scenario": self.site.plan.scenario,
            **about,
            "complete": answer is not None,
            "objectives": [asdict(slo) for slo in self.site.slos],
            "limits": {"lowest": goal.low, "highest": goal.high},
            "precision": goal.precision,
            "confidence": goal.confidence,
            "repeats": goal.repeats,
            "most": goal.most,
            "bracket": bracket(self.seen, goal),
            "answer": asdict(answer) if answer else None,
            "at_answer": {k: best[k] for k in ("throughput", "cost")} if best else None,
            "notes": [
                *_says(answer, goal, about.get("vms"), best),
                *self.site.notes(),
            ],
        }


def _goal(site: Site, trials: Trials) -> Goal:
    low, start, high = site.limits()
    high = trials.get("max_rate", high)
    start = trials.get("start_rate", min(start, high))
    low = trials.get("min_rate", min(low, start))
    if trials.given["start_rate"] is None:
        start = max(start, low)
    return Goal(
        start=start,
        low=low,
        high=high,
        objectives=len(site.slos),
        precision=trials.get("tolerance", site.pace.precision),
        confidence=trials.get("confidence", CONFIDENCE),
        repeats=trials.get("repeats", REPEATS),
        most=trials.get("max_probes", MOST_PROBES),
    )


def _verdict(told: Mapping[str, Any]) -> str:
    """Write what is known of the rate by then, and why where figures do not show it."""
    words: str = told["standing"]
    if told["cut_short"]:
        words += ", and cut short"
    if told["grows"]:
        first, last = told["backlog"]
        words += f", backlog grows from {first:,} to {last:,}"
    return words if told["trust"] == Trust.FULL else f"{words} ({told['verdict']})"


def _says(
    answer: Answer | None, goal: Goal, vms: int | None, best: Mapping[str, Any] | None
) -> list[str]:
    if answer is None:
        return ["stopped before there was an answer"]
    if answer.met is None:
        return [_never(answer, goal)]
    rate = f"{number(answer.met, 2)} requests/s"
    if vms:
        rate += f" ({number(answer.met / vms, 2)} per VM)"
    beyond = number(answer.missed, 2)
    says = {
        End.FOUND: f"highest rate that meets it: {rate}; {beyond}"
        + (" does not" if answer.missed_shown else " is too close to call"),
        End.ALWAYS: f"met up to the highest rate that was tried, {rate}:"
        " the limit is beyond it",
        End.CLIENT: f"met up to {rate}, which is the limit of this client: what it"
        f" measured at {beyond} says nothing of the endpoint",
        End.UNSETTLED: f"not settled after {answer.probes} probes: met at {rate}, not"
        f" shown to be at {beyond}",
    }[answer.end]
    says += f" (confidence {goal.confidence:.0%})"
    if best is None:
        return [says]
    rates, cost = best["throughput"], best["cost"]
    steady = number(rates["steady_output_tok_s"], 0)
    million = usd(cost["usd_per_million_output_tokens"])
    there = f"{steady} output tokens/s steady, {million} per million output tokens"
    return [says, f"there: {there}"]


def _never(answer: Answer, goal: Goal) -> str:
    if answer.end is End.CLIENT:
        return (
            f"no answer: already {number(answer.missed, 2)} requests/s is more than"
            " this client can drive or measure"
        )
    if answer.end is End.UNSETTLED:
        return f"not settled after {answer.probes} probes: not shown to be met at any"
    return f"not met at any rate down to {goal.low:.3g} requests/s"


def _exit_code(answer: Answer | None) -> ExitCode:
    if answer is None or answer.end in (End.UNSETTLED, End.CLIENT):
        return ExitCode.NOT_VALID
    return ExitCode.NOT_MET if answer.end is End.NEVER else ExitCode.DONE
