"""Options that say which machine serves what: shared by `serve` and `simulate`."""

from collections.abc import Callable
from typing import Any

import click

from ..catalog.presets import Preset
from ..engine.fleet import ROUTERS, Fleet, build_fleet
from ..engine.policy import POLICIES
from .machine_options import MACHINE_OPTIONS, load_machine

_PLAIN_ROUTERS = [name for name in ROUTERS if name != "prefix_affine"]
"""Neither verb gives its requests prefix ids yet: to offer the other would be idle."""

_OPTIONS = (
    *MACHINE_OPTIONS,
    click.option("--vms", type=click.IntRange(1), default=1, show_default=True,
                 metavar="N", help="how many such VMs"),
    click.option("--router", type=click.Choice(_PLAIN_ROUTERS), default="least_loaded",
                 show_default=True, help="how requests are spread over the engines"),
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


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a click command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def build(
    *,
    preset: str,
    model: str | None,
    precision: str | None,
    tensor_parallel_size: int | None,
    expert_parallel_size: int | None,
    vms: int,
    router: str,
    policy: str,
    seed: int,
    max_num_seqs: int | None,
    max_num_batched_tokens: int | None,
    max_model_len: int | None,
) -> tuple[Preset, Fleet]:
    """Build what the options describe; raises `UsageError` for what cannot be."""
    machine = load_machine(
        preset,
        model,
        precision=precision,
        tensor_parallel_size=tensor_parallel_size,
        expert_parallel_size=expert_parallel_size,
    ).with_limits(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_model_len=max_model_len,
    )
    engines = machine.engines(vms)
    return machine, build_fleet(
        machine.limits,
        machine.law,
        engines=engines,
        seed=seed,
        router=router,
        policy=policy,
    )
