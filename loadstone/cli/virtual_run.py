"""A plan on emulated engines in virtual time: its rows, and what they add up to."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from statistics import fmean
from types import FrameType
from typing import Any

from loadgen.flows import flows_of
from loadgen.rag import virtual
from loadgen.workload import lengths_of, mix_of, skipped_of, stream_of

from ..catalog.presets import Preset
from ..catalog.recipes import Recipe
from ..cost.bill import Busy
from ..cost.block import Fleet, cost_block
from ..cost.usage import Usage
from ..engine.disaggregated import Disaggregated
from ..engine.simulation import Simulation
from ..engine.virtual import rare_collections
from ..errors import UsageError
from ..report.table import number
from ..traffic.coursing import Coursing
from ..traffic.isolation import Isolation
from ..traffic.plan import Plan, journeys
from ..traffic.record import RequestRecord
from ..traffic.slo import Slo
from ..traffic.source import Scheduled, Source, Users
from ..traffic.summary import Fold, describe
from ..traffic.survey import Survey, survey, survey_of_users
from ..traffic.verdict import Evidence, judge
from ..traffic.window import EVER, Window
from ..verify.measured import MIN_BATCHES
from .engine_options import Built, build

Seen = Callable[[Simulation, Fold], None]


@dataclass(frozen=True, kw_only=True)
class VirtualRun:
    """A plan, the engines it is for, and what it is judged by."""

    plan: Plan
    engine: Mapping[str, Any]
    """The engines' options, by name."""
    fleet: Fleet
    slos: tuple[Slo, ...] = ()
    recipe: Recipe | None = None
    window: Window = EVER

    def survey(self) -> Survey:
        """See all that will be asked; raises `UsageError` for what could not be served.

        Draws the schedule once, as `run` will again: that takes some 5 us of CPU for a
        request, and no memory.
        """
        plan, machine = self.plan, build(**self.engine).machine
        if plan.loop == "closed":
            seen = survey_of_users(plan, lengths_of(plan))
        else:
            seen = survey(plan, stream_of(plan)())
        seen.refuse_beyond(machine.limits.max_model_len)
        self._refuse_idle(seen)
        return seen

    @property
    def _offline(self) -> bool:
        return self.plan.loop == "offline"

    def _refuse_idle(self, seen: Survey) -> None:
        """Refuse options that this load would leave without effect."""
        policy = self.engine["scheduling_policy"]
        if policy == "fair" and not seen.tenants:
            raise UsageError(
                "fair scheduling: all requests of the plan are one tenant's",
                hint="noisy-neighbour is a plan with two",
            )
        if policy == "priority" and not seen.priorities:
            raise UsageError(
                "scheduling by priority: no request has a priority",
                hint='give a class a priority, or a --trace of JSON lines "priority"',
            )
        prefixes = seen.prefixes and self.engine["prefix_caching"]
        if not prefixes and self.engine["router"] == "prefix_affine":
            raise UsageError(
                "router prefix_affine: no prefix is cached",
                hint='give a --trace of JSON lines with "hash_ids",'
                " and leave prefix caching on",
            )

    def run(
        self,
        *,
        on_row: Callable[[RequestRecord], object] = lambda _: None,
        on_progress: Seen = lambda *_: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:
        """Run it and return its summary; each row is shown as it ends, and not kept."""
        built = build(**self.engine)
        simulation = Simulation(
            self.plan,
            built.cluster,
            source := _source(self.plan),
            block_size=built.machine.limits.block_size,
            stopping=stopping,
        )
        fold, usage = Fold(self.slos, self.window), Usage(self.slos)
        isolation = Isolation(self.slos, self.plan.duration_s)
        several = len(self.plan.tenants) > 1
        with rare_collections():
            for row in simulation.rows():
                fold.add(row)
                usage.add(row)
                if several:
                    isolation.add(row)
                on_row(row)
                if fold.sent % 1024 == 0:
                    on_progress(simulation, fold)
        figures = fold.summary(icl=simulation.icl)
        figures["requests"]["undue"] = source.undue
        if several:
            figures["isolation"] = isolation.summary()
        return self._summary(built, figures, usage, complete=not stopping())

    def _summary(
        self, built: Built, figures: dict[str, Any], usage: Usage, *, complete: bool
    ) -> dict[str, Any]:
        machine, window_s = built.machine, figures["makespan_s"]
        return {
            "scenario": self.plan.scenario,
            "loop": self.plan.loop,
            "host": None,
            "model": machine.model,
            "preset": machine.name,
            "vms": built.vms,
            **({"recipe": self.recipe.name} if self.recipe else {}),
            "complete": complete,
            **figures,
            **(self._of_offline(built) if self._offline else {}),
            "cost": cost_block(
                usage, self.fleet, window_s=window_s, busy=busy_of(built)
            ),
            **skipped_of(self.plan),
            "assumptions": list(machine.assumptions()),
            "instrument": self._instrument(built, figures),
        }

    def _of_offline(self, built: Built) -> dict[str, Any]:
        return {
            "vm_output_tok_s": vm_rates(built),
            "batches": batches_of(built, self.plan.offline or 0),
        }

    def _instrument(self, built: Built, figures: dict[str, Any]) -> dict[str, Any]:
        sent = figures["requests"]["sent"]
        scheduled = None if self.plan.loop == "closed" else sent
        verdict, reasons = judge(
            Evidence(samples=figures["ttft_s"]["n"], scheduled=scheduled, sent=sent)
        )
        nothing = describe(())
        return {
            "verdict": verdict.value,
            "reasons": reasons,
            "scheduled": scheduled,
            "ttft_error_s": nothing,
            "loop_lag_s": nothing,
            "worst_gc_pause_s": None,
            "mock_lag_s": nothing,
            "workers": {"expected": 1, "reported": 1},
            "virtual": True,
            "notes": list(self._notes(built, figures)),
        }

    def _notes(self, built: Built, figures: dict[str, Any]) -> Iterator[str]:
        yield "virtual time: no client and no network, so nothing here can be late"
        if self.recipe is not None:
            yield from self.recipe.notes()
        if self._offline and figures["requests"]["ok"]:
            yield from _offline_notes(built, self.plan.offline or 0, figures)
        if isinstance(built.cluster, Disaggregated):
            yield (
                "decode engines have the step law of engines that also prefill: slower"
                " than decode-only ones that use CUDA graphs"
            )
            if built.vms > 1 and self.engine["vm_spread"]:
                yield "the VMs are all alike: pools have no spread between VMs"
        cached = self._cached(built)
        if cached:
            yield cached
        yield "timing assumes: " + "; ".join(built.machine.assumptions(short=True))

    @staticmethod
    def _cached(built: Built) -> str | None:
        engines = built.cluster.engines
        queries = sum(engine.prefix_cache_queries for engine in engines)
        hits = sum(engine.prefix_cache_hits for engine in engines)
        if not hits:
            return None
        return f"prefix cache: {hits / queries:.1%} of the prompt tokens were in it"


def _source(plan: Plan) -> Source:
    """Return what the plan asks; its flows are followed where it has any."""
    flows = flows_of(plan, virtual(plan))
    source: Source
    if plan.loop == "closed":
        source = Users(plan, journeys(plan, mix_of(plan)))
    else:
        offline = plan.loop == "offline"
        source = Scheduled(stream_of(plan)(), inf if offline else plan.duration_s)
    return Coursing(source, flows) if flows else source


def busy_of(built: Built) -> Busy:
    """Return for how long the mean engine was inside steps: the fleet's busy time."""
    engines = list(built.cluster.engines)
    return Busy(fmean(engine.busy_s(inf) for engine in engines), "the engines' steps")


def vm_rates(built: Built) -> list[float]:
    """Return the output tokens/s of each VM, over its own time; offline runs only.

    An engine whose requests were all there at once was never idle, so its time inside
    steps is how long it took; a VM takes as long as its last engine.
    """
    engines = list(built.cluster.engines)
    if isinstance(built.cluster, Disaggregated) or len(engines) % built.vms:
        return []
    of_vm = len(engines) // built.vms
    groups = (engines[i : i + of_vm] for i in range(0, len(engines), of_vm))
    return [
        sum(engine.generated_tokens for engine in group)
        / max(engine.busy_s(inf) for engine in group)
        for group in groups
    ]


def batches_of(built: Built, requests: int) -> float:
    """Return how many times the engines' batch an offline run's requests are."""
    return requests / (built.machine.limits.max_num_seqs * len(built.cluster.engines))


def _beside_published(machine: Preset, rates: Sequence[float]) -> str:
    low, mean, high = (
        machine.facts[f"published_vm_{k}"] for k in ("min", "mean", "max")
    )
    published = f"{number(low.value, 0)} to {number(high.value, 0)}"
    if len(rates) == 1:
        inside = "inside" if low.value <= rates[0] <= high.value else "outside"
        return (
            f"{number(rates[0], 0)} output tokens/s of the VM is {inside} the published"
            f" {published} ({low.source})"
        )
    return (
        f"{len(rates)} VMs, each over its own time: {number(min(rates), 0)} to"
        f" {number(max(rates), 0)} output tokens/s, {number(fmean(rates), 0)} on"
        f" average, {number(sum(rates), 0)} together; published {published},"
        f" {number(mean.value, 0)} on average ({mean.source})"
    )


def _offline_notes(built: Built, n: int, figures: Mapping[str, Any]) -> Iterator[str]:
    machine: Preset = built.machine
    rates = figures["throughput"]
    if "published_vm_min" in machine.facts and vm_rates(built):
        yield _beside_published(machine, vm_rates(built))
    batches = batches_of(built, n)
    share = 1 - rates["output_tok_s"] / rates["steady_output_tok_s"]
    yield (
        "offline, no latency limit:"
        f" requests wait up to {number(figures['makespan_s'], 0)} s;"
        f" {batches:.1f} times the batch, ramp and drain cost {share:.1%}"
        + ("" if batches >= MIN_BATCHES else ": too short, mostly ramp and drain")
    )


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C only be noted, and give what asks for it."""
    asked = False

    def note(_: int, __: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
