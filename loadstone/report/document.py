"""All that a report says, gathered once: its page, JSON, CSV and Markdown are views.

What is measured comes from `summary.json`; the rows are read once more, for what they
were over time and for their distributions, and counted against it. A run that was
killed has no summary: it is made from the rows here, and says so.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Final

from .. import __version__
from ..cost.usage import Usage
from ..errors import UsageError
from ..runs import SERVER_METRICS, SWEEP, RunFiles
from ..traffic.summary import summarize
from .decision import Decision, decide
from .proof import Asked, judged_claim, judged_contract, money
from .shapes import Sweep, fit, hold
from .timeline import Bin, Timeline

_SERIES: Final = 48
"""Of the server's own metrics at most so many are drawn."""


@dataclass(frozen=True, slots=True)
class ServerSeries:
    """One metric of the server's own, as it was scraped: (seconds since t0, value)."""

    source: str
    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Document:
    """A run, read and folded."""

    name: str
    complete: bool
    summary: Mapping[str, Any]
    plan: Mapping[str, Any]
    """The whole of `plan.toml`."""
    environment: Mapping[str, Any]
    bins: tuple[Bin, ...]
    distributions: Mapping[str, tuple[tuple[int, int], ...]]
    """`LogHistogram` pairs of each latency, warm-up left out."""
    stages: tuple[dict[str, Any], ...]
    rows: int
    end_s: float
    server: tuple[ServerSeries, ...] = ()
    sweep: Mapping[str, Any] | None = None
    """The sweep that this run is the knee of."""
    money: Mapping[str, Any] | None = None
    """Sensitivity and break-even of its price."""
    claim: Mapping[str, Any] | None = None
    contract: Sequence[Mapping[str, Any]] = ()
    loadstone: str = field(default=__version__)

    @cached_property
    def decision(self) -> Decision:
        """What the first page says."""
        return decide(
            self.summary,
            plan=self.plan,
            environment=self.environment,
            complete=self.complete,
            rows=self.rows,
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything, JSON-ready."""
        return {
            "loadstone": self.loadstone,
            "run": self.name,
            "complete": self.complete,
            "decision": asdict(self.decision),
            "summary": self.summary,
            "rows": self.rows,
            "over_time": [asdict(b) for b in self.bins],
            "distributions": self.distributions,
            "stages": self.stages,
            "server_metrics": [asdict(series) for series in self.server],
            "sweep": self.sweep,
            "money": self.money,
            "claim": self.claim,
            "contract": self.contract,
            "plan": self.plan,
            "environment": self.environment,
        }


def gather(run: RunFiles, asked: Asked = Asked()) -> Document:  # noqa: B008 - frozen
    """Read a run's folder; raises `UsageError` for what is not a run's.

    One pass over the rows, another for a contract; of a row no more is kept than cost
    needs (see `Timeline`, `Usage`). The folder of a sweep stands for the run at its
    knee.
    """
    sweep = _optional(run, SWEEP)
    if sweep is not None:
        fit(run.path / SWEEP, sweep, Sweep)
        run = _knee(run, sweep)
    plan, written = run.plan(), run.summary()
    hold(run, plan, written)
    timeline = Timeline(at_once=plan["plan"].get("offline") is not None)
    usage = Usage(())
    for row in run.rows():
        timeline.add(row)
        usage.add(row)
    summary = _of_killed(run, plan) if written is None else written
    return Document(
        name=str(summary.get("run", run.name)),
        complete=summary["complete"],
        summary=summary,
        plan=plan,
        environment=(environment := run.environment()),
        end_s=timeline.end_s,
        bins=tuple(timeline.bins()),
        distributions={n: h.pairs() for n, h in timeline.distributions.items()},
        stages=tuple(timeline.stage_figures()),
        rows=timeline.rows,
        server=tuple(_server_series(run)),
        sweep=sweep,
        money=money(usage, summary),
        claim=judged_claim(run, asked, _machine(summary, environment)),
        contract=judged_contract(asked.clauses, summary, run.rows())
        if asked.clauses
        else (),
    )


def _machine(summary: Mapping[str, Any], environment: Mapping[str, Any]) -> str | None:
    """Return the preset that answered, if it was an emulation."""
    found = summary.get("preset") or (environment.get("mock") or {}).get("preset")
    return found if isinstance(found, str) else None


def _knee(run: RunFiles, sweep: Mapping[str, Any]) -> RunFiles:
    """Return the run at a sweep's knee; raises `UsageError` where there is none."""
    at = (sweep.get("knee") or {}).get("load")
    steps = sweep.get("steps") or ()
    for step in steps:
        folder = (run.path / step["folder"]).resolve()
        if step["load"] == at and folder.is_relative_to(run.path.resolve()):
            return RunFiles.open(folder)
    raise UsageError(
        f"{run.path / SWEEP} has no knee", hint="give the folder of one of its runs"
    )


def _of_killed(run: RunFiles, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary of a run that was killed, as far as it came.

    Every request of its schedule is accounted for where that can be drawn again; where
    not, such as without the trace that it replayed, the rows are summed up alone.
    """
    from loadgen.recovery import recover  # noqa: PLC0415 - gevent, for this alone

    settings = plan["plan"]
    why = "it was a simulation"
    if settings.get("hosts"):
        try:
            # No environment: whose machine this is must not change a report.
            return recover(run.path.resolve(), {})
        except UsageError as gone:
            why = gone.message
    return {
        "run": run.name,
        "scenario": settings.get("scenario"),
        "model": settings.get("model"),
        "plan_hash": plan["plan_hash"],
        "complete": False,
        **summarize(run.rows()),
        "instrument": {
            "notes": [f"what was planned and has no row is not counted: {why}"]
        },
    }


def _optional(run: RunFiles, name: str) -> dict[str, Any] | None:
    path = run.path / name
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as wrong:
        raise UsageError(f"cannot read {path}: {wrong}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is not a JSON object")
    return content


def _server_series(run: RunFiles) -> Iterator[ServerSeries]:
    """Read what was scraped from the server; half a last line is left out."""
    path = run.path / SERVER_METRICS
    if not path.is_file():
        return
    series: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith("\n"):
                break
            try:
                scrape = json.loads(line)
                at, source = float(scrape["t"]), str(scrape["source"])
                for name, value in scrape["values"].items():
                    key = source, str(name)
                    if key in series or len(series) < _SERIES:
                        series.setdefault(key, []).append((at, float(value)))
            except (ValueError, TypeError, KeyError, AttributeError) as wrong:
                raise UsageError(
                    f"{path}: line {number} is not a scrape: {wrong}"
                ) from None
    for (source, name), points in series.items():
        yield ServerSeries(source, name, tuple(points))
