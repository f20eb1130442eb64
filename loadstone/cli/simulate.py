"""`loadstone simulate`: a workload on the engine in virtual time."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource
from rich.console import Console

from loadgen.folder import RunFolder
from loadgen.options import plan_of, read_options, window_of
from loadgen.plans import find_plan, objectives
from loadgen.pricing import fleet_of
from loadgen.workload import with_trace_located

from ..catalog.plans import plan_names
from ..catalog.recipes import RECIPES, Recipe, load_recipe
from ..cost.block import Fleet
from ..engine.simulation import Simulation
from ..errors import UsageError
from ..report.table import print_summary
from ..report.virtual import VirtualProgress
from ..runs import SUMMARY
from ..traffic.plan import DEFAULT_SCENARIO, Plan
from ..traffic.summary import Fold
from ..traffic.survey import Survey
from ..traffic.verdict import exit_code
from .completing import one_of
from .engine_options import build, engine_options
from .find_max import find
from .load_options import NAMES, is_path, load_options
from .report import end_with_report
from .sections import Sectioned
from .sweep import sweep
from .trials import LOADS, Trials, trial_options
from .virtual_run import VirtualRun, interruptible
from .virtual_site import VirtualSite

_LOAD: Final = frozenset({
    "scenario", "rate", "duration", "trace", "trace_from", "trace_to",
    "trace_sample", "skip_bad_rows", "speedup", "arrivals",
    "rate_profile", "think", "drain", "warmup", "window", "prices", "slo", "out",
})  # fmt: skip
"""Options of `loadstone run` that mean something without an endpoint."""
_ENGINE: Final = frozenset({
    "preset", "model", "precision", "tensor_parallel_size", "expert_parallel_size",
    "vms", "racks", "router", "policy", "seed", "max_num_seqs",
    "max_num_batched_tokens", "max_model_len", "scheduling_policy", "prefix_caching",
    "vm_spread",
    "num_speculative_tokens", "speculative_acceptance", "prefill_gpus", "decode_gpus",
})  # fmt: skip
_TYPED: Final = ParameterSource.COMMANDLINE
_DEFAULTS: Final = {"duration": "10m"}
"""Where time is cheap, a run is longer."""
_SCENARIO: Final = {"scenario": f"{DEFAULT_SCENARIO}; mlperf with --offline"}


def _from_plan(ctx: click.Context, _: click.Parameter, path: str | None) -> None:
    """Let the options of an earlier run be the defaults of this one."""
    if path is None:
        return
    own = {parameter.name for parameter in ctx.command.params if parameter.name}
    options = find_plan(path, known=sorted(own | {"host", *NAMES})).options
    if options.get("ignore_eos", "True").lower() != "true":
        raise UsageError(f"{path}: ignore_eos=false: virtual answers have set lengths")
    kept = {k: v for k, v in options.items() if k in own - {"out"}}
    if kept.keys() & {"rate", "trace"}:
        kept.pop("users", None)  # the cap of a live open loop; nothing waits here
    # A recipe brings its own scenario.
    ctx.default_map = kept | ({} if kept.get("recipe") else {"scenario": path})


@click.command(
    "simulate",
    cls=Sectioned,
    epilog="""\b
Examples:
  loadstone simulate --vms 1 --offline 200000
  loadstone simulate --racks 1 --rate 500 --duration 10m --warmup 1m
  loadstone simulate --users 200 --think 5s --duration 5m
  loadstone simulate --trace mooncake_trace.jsonl --max-model-len 131072 \\
    --router prefix_affine
  loadstone simulate --recipe mlperf-server --rate 150
  loadstone simulate --recipe mlperf-interactive --find-max
  loadstone simulate --sweep users=16:2048:x2 --duration 2m --warmup 30s
  loadstone simulate runs/latest/plan.toml --policy trtllm_max_util""",
)
@click.argument("plan", required=False, is_eager=True, expose_value=False,
                callback=_from_plan,
                shell_complete=one_of(plan_names, or_file=True))  # fmt: skip
@engine_options
@click.option("--offline", type=click.IntRange(1), metavar="N",
              help="N requests, all due at t0")  # fmt: skip
@click.option("--users", type=click.IntRange(1), metavar="N",
              help="closed loop: N users ask, wait, think and ask again")  # fmt: skip
@click.option("--max-tokens", type=click.IntRange(1), metavar="N",
              help="what each request declares as the longest answer it takes"
              "  [default: its true length]")  # fmt: skip
@click.option("--recipe", type=click.Choice(RECIPES),
              help="lengths, maximum and limits of an MLPerf scenario")  # fmt: skip
@load_options(_LOAD, _DEFAULTS | _SCENARIO)
@trial_options
@click.option("--no-rows", is_flag=True, help="write no requests.jsonl")
@click.option("--json", "as_json", is_flag=True, help="print the summary as JSON")
@click.pass_context
def command(
    ctx: click.Context, /, *, no_rows: bool, as_json: bool, trials: Trials,
    **given: Any,
) -> int:  # fmt: skip
    """Run a workload through the emulated engines as fast as the CPU allows.

    Exactly one of --rate, --users, --trace and --offline says how much load there is.
    PLAN is a built-in plan, a plan's file, or the plan.toml of an earlier run, of `run`
    or of `simulate`: its options are used where none is given here.
    """
    asked = Asked(given)
    console = Console(stderr=as_json)
    if trials:
        source = ctx.get_parameter_source
        typed = {k: v for k, v in given.items() if source(k) == _TYPED}
        trials.refuse_loads(typed, "users")
        asked = Asked(given | dict.fromkeys((*LOADS, "users")))
    run = asked.run(searched=bool(trials))
    if trials:
        site = VirtualSite(run, _kept(ctx.params), Console(stderr=True))
        tried = find if trials.find_max else sweep
        return tried(site, trials, asked.given, as_json=as_json)
    seen = run.survey()
    folder = RunFolder.create(asked.out, f"simulate-{run.plan.scenario}")
    folder.write_plan(run.plan, seen.plan_hash, options=_kept(ctx.params))
    folder.write_environment(None, workers=1)
    summary = _simulate(run, seen, folder, rows=not no_rows)
    folder.write_json(SUMMARY, summary)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        print_summary(summary, console)
        console.print(f"[dim]run folder  {folder.path}[/dim]", highlight=False)
    if not no_rows:
        end_with_report(folder.path, console)
    return exit_code(summary)


def _kept(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that make a run what it is, to be given again."""
    kept = {
        name: value
        for name, value in params.items()
        if value is not None and name not in ("out", "as_json", "no_rows")
    }
    return kept | {
        name: str(Path(kept[name]).absolute())
        for name in kept
        if is_path(name, str(kept[name]))
    }


@dataclass(frozen=True)
class Asked:
    """The options as they were given."""

    given: Mapping[str, Any]

    @property
    def out(self) -> Path:
        """Where the run folder goes."""
        return Path(self.given["out"] or "runs")

    def run(self, *, searched: bool) -> VirtualRun:
        """Make a run of them; raises `UsageError` for what cannot be run."""
        given = self.given
        engine = {name: given[name] for name in _ENGINE}
        machine, _, vms = build(**engine)
        recipe = (
            load_recipe(given["recipe"], machine.model) if given["recipe"] else None
        )
        load = dict(given)
        if recipe is not None:
            load |= _of_recipe(recipe, given, searched=searched)
        if searched:
            # Each probe has its own.
            load |= {"rate": "1", "duration": None, "warmup": None}
        kinds = [
            k for k in ("offline", "rate", "trace", "users") if load[k] is not None
        ]
        if len(kinds) != 1:
            raise UsageError(
                "say what load: exactly one of --offline N, --rate REQ/S, --trace FILE,"
                " --users N"
            )
        if kinds == ["offline"]:
            _refuse_times(given)
        else:
            load = {
                k: v if v is not None else _DEFAULTS.get(k) for k, v in load.items()
            }
        values = read_options(
            {n: load.get(n) for n in _LOAD} | {"model": machine.model}
        )
        values["seed"], values["vms"] = engine["seed"], vms
        values["price"] = values["prices"] or machine.price
        values["scenario"] = load["scenario"] or (
            "mlperf" if kinds == ["offline"] else DEFAULT_SCENARIO
        )
        plan = plan_of(
            values | {"prices": values["price"]}, host="", users=load["users"],
            offline=load["offline"], max_tokens=load["max_tokens"],
        ).retargeted(hosts=())  # fmt: skip
        return VirtualRun(
            plan=with_trace_located(plan),
            engine=engine,
            fleet=_fleet(plan),
            slos=recipe.slos
            if recipe
            else objectives(given["slo"] or None, values["scenario"]),
            recipe=recipe,
            window=window_of(values),
        )


def _fleet(plan: Plan) -> Fleet:
    fleet = fleet_of(plan)
    assert fleet is not None  # a preset has its price
    return fleet


def _refuse_times(given: Mapping[str, Any]) -> None:
    """Refuse times of arrivals where all requests are due at once."""
    for name in ("duration", "drain", "warmup", "window"):
        if given[name] is not None:
            raise UsageError(
                f"--{name} has no meaning here: offline requests are all due at once,"
                " and all are answered"
            )


def _of_recipe(
    recipe: Recipe, given: Mapping[str, Any], *, searched: bool
) -> dict[str, Any]:
    """Return what a recipe sets; raises `UsageError` where something else was asked."""
    own = (
        "scenario",
        "trace",
        "users",
        "slo",
        "arrivals",
        "rate_profile",
        "max_tokens",
    )
    for name in own:
        if given[name] is not None:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} and --recipe: {recipe.name} brings its own")
    fixed: dict[str, Any] = {
        "scenario": recipe.scenario,
        "max_tokens": recipe.max_output_tokens,
    }
    if recipe.offline:
        if given["rate"] is not None or searched:
            raise UsageError(
                f"{recipe.name} has no rate: all requests are there at once",
                hint="give --offline N, or another recipe",
            )
        fixed["offline"] = given["offline"] or recipe.samples
    elif given["offline"] is not None or (given["rate"] is None and not searched):
        raise UsageError(
            f"{recipe.name} needs a rate", hint="give --rate REQ/S, or --find-max"
        )
    return fixed


def _simulate(
    run: VirtualRun, seen: Survey, folder: RunFolder, *, rows: bool
) -> dict[str, Any]:
    target = folder.path / "requests.jsonl" if rows else Path("/dev/null")
    console = Console(stderr=True)
    with (
        target.open("w", encoding="utf-8") as lines,
        VirtualProgress(console) as progress,
        interruptible() as stopping,
    ):

        def show(simulation: Simulation, fold: Fold) -> None:
            share = simulation.now / run.plan.duration_s
            done = fold.sent / seen.requests if seen.requests else min(share, 1.0)
            progress.show(done=done, requests=fold.sent, now=simulation.now)

        summary = run.run(
            on_row=(lambda row: lines.write(row.rounded().to_line()))
            if rows
            else lambda _: None,
            on_progress=show,
            stopping=stopping,
        )
        told = progress.last(
            requests=summary["requests"]["sent"], now=summary["makespan_s"]
        )
    console.print(told, highlight=False, soft_wrap=True)
    return {"run": folder.path.name, "plan_hash": seen.plan_hash, **summary}
