"""Options that say which machine serves what: shared by `serve` and `simulate`."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import click

from ..catalog.presets import Preset, load_preset, preset_names
from ..engine.fleet import ROUTERS, Fleet, build_fleet
from ..engine.order import ORDERS
from ..engine.policy import POLICIES
from ..errors import UsageError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

DEFAULT_PRESET = "azure-nd-gb300-v6"
DEFAULT_MODEL = "llama-2-70b"

_OPTIONS = (
    click.option("--preset", default=DEFAULT_PRESET, show_default=True,
                 metavar="NAME", help=f"kind of VM: {', '.join(preset_names())}"),
    click.option("--model", default=DEFAULT_MODEL, show_default=True, metavar="NAME",
                 help="model it serves"),
    click.option("--vms", type=click.IntRange(1), metavar="N",
                 help="how many such VMs  [default: 1]"),
    click.option("--racks", type=click.IntRange(1), metavar="N",
                 help="how many whole racks of them, instead of --vms"),
    click.option("--policy", type=click.Choice(list(POLICIES)), default="vllm",
                 show_default=True, help="how requests are admitted and KV is held"),
    click.option("--seed", type=int, default=0, show_default=True, metavar="N",
                 help="of everything that is random"),
    click.option("--max-num-seqs", type=click.IntRange(1), metavar="N",
                 help="largest batch of an engine (default: the preset's)"),
    click.option("--max-num-batched-tokens", type=click.IntRange(1), metavar="N",
                 help="token budget of a step (default: the preset's)"),
    click.option("--max-model-len", type=click.IntRange(1), metavar="N",
                 help="most tokens of prompt plus answer (default: the preset's)"),
)  # fmt: skip


def _router(names: Iterable[str]) -> Decorator:
    return click.option(
        "--router", type=click.Choice(list(names)), default="least_loaded",
        show_default=True, help="how requests are spread over the engines",
    )  # fmt: skip


_LIVE = (_router(name for name in ROUTERS if name != "prefix_affine"),)
"""The live server's requests have no prefix ids and no priorities yet: to offer more
would be idle."""
_VIRTUAL = (
    _router(ROUTERS),
    click.option("--scheduling-policy", type=click.Choice(list(ORDERS)),
                 default="fcfs", show_default=True,
                 help="whom an engine admits first; priorities come from the trace"),
    click.option("--enable-prefix-caching/--no-enable-prefix-caching",
                 "prefix_caching", default=True, show_default=True,
                 help="keep KV blocks for prompts that begin alike (as a trace says)"),
)  # fmt: skip


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a live server's engines to a click command."""
    return _added(command, (*_OPTIONS, *_LIVE))


def virtual_engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of engines in virtual time."""
    return _added(command, (*_OPTIONS, *_VIRTUAL))


def _added(
    command: Callable[..., Any], options: tuple[Decorator, ...]
) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


class Built(NamedTuple):
    """What the options describe."""

    machine: Preset
    fleet: Fleet
    vms: int


def build(
    *,
    preset: str,
    model: str,
    vms: int | None,
    racks: int | None,
    router: str,
    policy: str,
    seed: int,
    max_num_seqs: int | None,
    max_num_batched_tokens: int | None,
    max_model_len: int | None,
    scheduling_policy: str = "fcfs",
    prefix_caching: bool = True,
) -> Built:
    """Build what the options describe; raises `UsageError` for what cannot be."""
    if vms is not None and racks is not None:
        raise UsageError("say how large it is once: --vms N or --racks N")
    machine = load_preset(preset, model).with_limits(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_model_len=max_model_len,
    )
    vms = racks * machine.vms_per_rack if racks is not None else vms or 1
    fleet = build_fleet(
        machine.limits,
        machine.law,
        engines=vms * machine.engines_per_vm,
        seed=seed,
        router=router,
        policy=policy,
        scheduling_policy=scheduling_policy,
        prefix_caching=prefix_caching,
    )
    return Built(machine, fleet, vms)
