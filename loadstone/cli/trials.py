"""Options of `--find-max` and `--sweep`, for `run` and `simulate` alike.

Both try one load after the other, each in a run folder of its own. What differs is
where they are tried: see `Site`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final, Protocol

import click
from rich.console import Console

from ..errors import UsageError
from ..traffic.plan import Plan
from ..traffic.probe import Bearing, Trust
from ..traffic.search import CONFIDENCE, MOST_PROBES, REPEATS
from ..traffic.slo import Slo
from ..units import Seconds, parse_duration

PROBES: Final = "probes"
"""The folder, below that of a search or sweep, that has those of its runs."""
LOADS: Final = ("rate", "rate_profile", "trace", "offline", "window")
"""Options that say a load, or when to look at it; those of a plan are not used."""
_OF_SEARCH: Final = (
    "tolerance", "confidence", "repeats", "min_rate", "max_rate", "start_rate",
    "max_probes",
)  # fmt: skip
_OPTIONS: Final = (
    click.option("--find-max", is_flag=True,
                 help="search the highest rate that meets the objectives"),
    click.option("--sweep", metavar="WHAT=STEPS",
                 help="try loads in turn: rate=1,2,4,8 or users=1:256:x2 (geometric)"
                 " or rate=5:50:+5 (linear)"),
    click.option("--tolerance", type=click.FloatRange(0.001, 1.0), metavar="X",
                 help="how close the search gets, relative"
                 "  [default: 0.05; 0.02 in virtual time]"),
    click.option("--confidence", type=click.FloatRange(0.5, 0.9999), metavar="P",
                 help="least chance that no verdict of the search is wrong"
                 f"  [default: {CONFIDENCE:g}]"),
    click.option("--repeats", type=click.IntRange(1), metavar="N",
                 help="most seeds that a rate at the boundary is tried with"
                 f"  [default: {REPEATS}]"),
    click.option("--min-rate", type=click.FloatRange(0, min_open=True),
                 metavar="REQ/S", help="lowest rate that the search tries"),
    click.option("--max-rate", type=click.FloatRange(0, min_open=True),
                 metavar="REQ/S", help="highest rate that the search tries"),
    click.option("--start-rate", type=click.FloatRange(0, min_open=True),
                 metavar="REQ/S", help="first rate that the search tries"
                 "  [default: 1; what the step law bears in virtual time]"),
    click.option("--max-probes", type=click.IntRange(1), metavar="N",
                 help=f"most rates that the search tries  [default: {MOST_PROBES}]"),
    click.option("--gpus", type=click.IntRange(1), metavar="N",
                 help="GPUs that a sweep's figures are divided by"
                 "  [default: those of the mock, or of --vms N --prices NAME]"),
    click.option("--resume", metavar="DIR",
                 type=click.Path(exists=True, file_okay=False, path_type=Path),
                 help="go on with the search or sweep in that folder, where it was"
                 " stopped"),
)  # fmt: skip
TRIAL_OPTIONS: Final = (
    "find_max", "sweep", *_OF_SEARCH, "gpus", "resume"
)  # fmt: skip


def trial_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add these options to a command, which is given them as one, `trials`."""

    @wraps(command)
    def gathered(*args: Any, **given: Any) -> Any:
        own = {name: given.pop(name) for name in TRIAL_OPTIONS}
        return command(*args, trials=Trials.of(own), **given)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


@dataclass(frozen=True, slots=True)
class Trials:
    """Which kind of trials is wanted, if any, and its options; None where left open."""

    given: Mapping[str, Any]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Trials":
        """Check them; raises `UsageError` for those that mean nothing here."""
        if given["find_max"] and given["sweep"]:
            raise UsageError("--find-max and --sweep are two things: give one of them")
        if not given["find_max"]:
            _refuse(given, _OF_SEARCH, "is for a search", "add --find-max")
        if not given["sweep"]:
            _refuse(given, ("gpus",), "is for a sweep", "add --sweep rate=1,2,4")
        if not given["find_max"] and not given["sweep"]:
            hint = "repeat the command that was stopped, and add --resume DIR"
            _refuse(given, ("resume",), "goes on with a search or a sweep", hint)
        return cls(given)

    def __bool__(self) -> bool:
        """Whether any are wanted."""
        return self.find_max or self.sweep is not None

    @property
    def find_max(self) -> bool:
        """Whether the highest rate is searched."""
        return bool(self.given["find_max"])

    @property
    def sweep(self) -> str | None:
        """The loads to try in turn, as they were given."""
        found: str | None = self.given["sweep"]
        return found

    @property
    def resume(self) -> Path | None:
        """The folder to go on in."""
        found: Path | None = self.given["resume"]
        return found

    def refuse_loads(self, given: Mapping[str, Any], *more: str) -> None:
        """Raise `UsageError` for options that say a load, since trials bring theirs."""
        for name in (*LOADS, *more):
            if given.get(name) is not None:
                flag = "--" + name.replace("_", "-")
                raise UsageError(
                    f"a search or a sweep tries its own loads: leave {flag} out"
                )

    def get(self, name: str, default: Any) -> Any:
        """Return an option, or the default where it was not given."""
        value = self.given[name]
        return default if value is None else value


def _refuse(
    given: Mapping[str, Any], names: tuple[str, ...], why: str, hint: str
) -> None:
    for name in names:
        if given[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')} {why}", hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long a trial is, where nobody says: it depends on what time costs."""

    measured_s: Seconds
    warmup_s: Seconds
    samples: int
    """Requests that a probe measures at least, where no duration was given."""
    precision: float

    def timed(self, given: Mapping[str, Any]) -> tuple[Seconds, Seconds]:
        """Return (measured, warm-up), as given by `--duration` and `--warmup`."""
        measured, warmup = given.get("duration"), given.get("warmup")
        return (
            parse_duration(measured) if measured else self.measured_s,
            parse_duration(warmup) if warmup else self.warmup_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A load to try: a rate in requests/s or a number of users, and for how long.

    `duration_s` includes the warm-up.
    """

    rate: float | None = None
    users: int | None = None
    seed: int = 0
    warmup_s: Seconds = 0.0
    duration_s: Seconds

    def __str__(self) -> str:
        """Write it as a step of a table."""
        if self.users is not None:
            return f"{self.users:,} user{'s' * (self.users > 1)}"
        return f"{self.rate:,.2f} requests/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of a load that was tried."""

    folder: Path
    summary: Mapping[str, Any]
    trust: Trust = Trust.FULL
    notes: tuple[str, ...] = ()


class Site(Protocol):
    """Where loads are tried: an endpoint, or emulated engines in virtual time."""

    pace: Pace
    plan: Plan
    """What every trial has in common."""
    slos: tuple[Slo, ...]
    console: Console
    """Where progress is told: stderr."""

    def describe(self) -> dict[str, Any]:
        """Return what it is, as far as it is known."""
        ...

    def asked(self) -> dict[str, Any]:
        """Return all that decides the answers: to go on, it must be the same."""
        ...

    def options(self) -> dict[str, Any]:
        """Return the options for the folder's plan."""
        ...

    def limits(self) -> tuple[float, float, float]:
        """Return the lowest rate, the first and the highest, where nobody says."""
        ...

    def try_load(
        self, load: Load, folder: Path, bearing: Bearing | None,
        stopping: Callable[[], bool],
    ) -> Trial | None:  # fmt: skip
        """Run a load below that folder; None if it was stopped before its end.

        `bearing` is shown every row.
        """
        ...

    def gpus(self, trial: Trial) -> int | None:
        """Return how many GPUs gave these figures, if that is known."""
        ...

    def notes(self) -> tuple[str, ...]:
        """Return what a reader must know of all trials."""
        ...
