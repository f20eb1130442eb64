"""Options that say which machine serves what: shared by `serve` and `simulate`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import click

from mock_server.share import Share

from ..catalog.gpus import load_accelerator
from ..catalog.presets import Preset
from ..engine.disaggregated import Disaggregated, build_disaggregated
from ..engine.fleet import ROUTERS, Fleet, build_fleet
from ..engine.order import ORDERS
from ..engine.policy import POLICIES
from ..errors import NotModelledError, UsageError
from ..physics.speculation import PLAIN, Speculation
from ..physics.transfer import KvTransfer
from .machine_options import MACHINE_OPTIONS, load_machine

_OPTIONS = (
    *MACHINE_OPTIONS,
    click.option("--vms", type=click.IntRange(1), metavar="N",
                 help="how many such VMs  [default: 1]"),
    click.option("--racks", type=click.IntRange(1), metavar="N",
                 help="how many whole racks of them, instead of --vms"),
    click.option("--vm-spread/--no-vm-spread", default=True, show_default=True,
                 help="let the VMs of a rack lie as far apart as published ones"),
    click.option("--router", type=click.Choice(list(ROUTERS)), default="least_loaded",
                 show_default=True, help="how requests are spread over the engines"),
    click.option("--scheduling-policy", type=click.Choice(list(ORDERS)),
                 default="fcfs", show_default=True,
                 help="whom an engine admits first; priorities come with the requests,"
                 " fair shares need the tenants of `serve`"),
    click.option("--enable-prefix-caching/--no-enable-prefix-caching",
                 "prefix_caching", default=True, show_default=True,
                 help="keep KV blocks for prompts that begin alike"),
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
    click.option("--num-speculative-tokens", type=click.IntRange(1), metavar="K",
                 help="speculative decoding: draft tokens of a step"),
    click.option("--speculative-acceptance", type=float, metavar="L",
                 help="tokens that a step then gives each sequence, on average:"
                 " 1 to 1 + K"),
    click.option("--prefill-gpus", type=click.IntRange(1), metavar="N",
                 help="disaggregated serving: GPUs that prefill"),
    click.option("--decode-gpus", type=click.IntRange(1), metavar="N",
                 help="and GPUs that decode"),
)  # fmt: skip


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a click command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class Built(NamedTuple):
    """What the options describe."""

    machine: Preset
    cluster: Fleet | Disaggregated
    vms: int


def build(*, share: Share | None = None, **options: Any) -> Built:
    """Build what the options describe, or a share of it.

    Raises `UsageError` for what cannot be.
    """
    setup = _Setup(**options)
    machine = load_machine(
        setup.preset,
        setup.model,
        precision=setup.precision,
        tensor_parallel_size=setup.tensor_parallel_size,
        expert_parallel_size=setup.expert_parallel_size,
    ).with_limits(
        max_num_seqs=setup.max_num_seqs,
        max_num_batched_tokens=setup.max_num_batched_tokens,
        max_model_len=setup.max_model_len,
    )
    machine = machine.slowed(setup.slowdown) if setup.slowdown != 1.0 else machine
    vms = setup.size(machine)
    common: dict[str, Any] = {
        "seed": setup.seed,
        "router": setup.router,
        "policy": setup.policy,
        "scheduling_policy": setup.scheduling_policy,
        "prefix_caching": setup.prefix_caching,
        "speculation": setup.speculation(),
        "pipeline": machine.pipeline,
    }
    limits, law = machine.limits, machine.law
    if setup.prefill_gpus is None or setup.decode_gpus is None:
        speeds = machine.speeds(vms, setup.seed) if setup.vm_spread else ()
        first, vms = 0, share.vms if share else vms
        engines = machine.engines(vms)
        if share and share.first_vm:
            first = machine.engines(share.first_vm)
        fleet = build_fleet(
            limits, law, engines=engines, first=first,
            speeds=speeds[first : first + engines], **common,
        )  # fmt: skip
        return Built(machine, fleet, vms)
    pools = build_disaggregated(
        limits, law, transfer_of(machine),
        prefill=_engines_of(setup.prefill_gpus, machine, "prefill"),
        decode=_engines_of(setup.decode_gpus, machine, "decode"),
        **common,
    )  # fmt: skip
    return Built(machine, pools, vms)


def _engines_of(gpus: int, machine: Preset, phase: str) -> int:
    """Return how many engines a pool has; raises `UsageError` for a part of one."""
    engines, rest = divmod(gpus, machine.tensor_parallel)
    if rest:
        who = f"1 GPU that {phase}s" if gpus == 1 else f"{gpus} GPUs that {phase}"
        raise UsageError(
            f"{who} cannot be shared out to engines of {machine.tensor_parallel} GPUs",
            hint=f"a multiple for --{phase}-gpus, or another --tensor-parallel-size",
        )
    return engines


def build_live(
    *, share: Share | None = None, **options: Any
) -> tuple[Preset, Fleet, int]:
    """Build what the live server can serve, or a share of it.

    Raises `NotModelledError` for the rest.
    """
    if options.get("prefill_gpus") or options.get("decode_gpus"):
        raise NotModelledError(
            "disaggregated serving is not modelled by the live server yet",
            hint="simulate it: loadstone simulate --prefill-gpus N --decode-gpus N",
        )
    machine, fleet, vms = build(share=share, **options)
    assert isinstance(fleet, Fleet)
    return machine, fleet, vms


def transfer_of(machine: Preset) -> KvTransfer:
    """Return how long a prompt's KV takes from one engine of a rack to another."""
    # Each GPU has a link of its own and sends its part.
    link = load_accelerator(machine.gpu).link_bytes_per_s
    return KvTransfer(
        kv_bytes_per_token=machine.memory.kv_bytes_per_token,
        bytes_per_s=link * machine.tensor_parallel,
    )


@dataclass(frozen=True, kw_only=True)
class _Setup:
    """The options by name."""

    preset: str
    model: str | None
    vms: int | None
    router: str
    policy: str
    seed: int
    precision: str | None = None
    tensor_parallel_size: int | None = None
    expert_parallel_size: int | None = None
    racks: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    num_speculative_tokens: int | None = None
    speculative_acceptance: float | None = None
    prefill_gpus: int | None = None
    decode_gpus: int | None = None
    scheduling_policy: str = "fcfs"
    prefix_caching: bool = True
    vm_spread: bool = True
    slowdown: float = 1.0

    def size(self, machine: Preset) -> int:
        """Return how many VMs there are."""
        if self.vms is not None and self.racks is not None:
            raise UsageError("say how large it is once: --vms N or --racks N")
        said = self.vms if self.racks is None else self.racks * machine.vms_per_rack
        if self.prefill_gpus is None and self.decode_gpus is None:
            return said or 1
        if self.prefill_gpus is None or self.decode_gpus is None:
            raise UsageError("--prefill-gpus and --decode-gpus belong together")
        gpus = self.prefill_gpus + self.decode_gpus
        vms, rest = divmod(gpus, machine.gpus_per_vm)
        if rest or said not in (None, vms):
            raise UsageError(
                f"{self.prefill_gpus} + {self.decode_gpus} GPUs are not"
                f" {'whole' if said is None else said} VMs of {machine.gpus_per_vm}"
            )
        return vms

    def speculation(self) -> Speculation:
        """Return what a step verifies and keeps."""
        drafts, accepted = self.num_speculative_tokens, self.speculative_acceptance
        if drafts is None and accepted is None:
            return PLAIN
        if drafts is None or accepted is None:
            raise UsageError(
                "--num-speculative-tokens and --speculative-acceptance belong together"
            )
        return Speculation(accepted, drafts)
