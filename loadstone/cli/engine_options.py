"""Options that say which machine serves what: shared by `serve` and `simulate`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import click

from mock_server.share import Share

from ..catalog.presets import Preset, load_preset, preset_names
from ..engine.disaggregated import Disaggregated, build_disaggregated
from ..engine.fleet import ROUTERS, Fleet, build_fleet
from ..engine.order import ORDERS
from ..engine.policy import POLICIES
from ..errors import NotModelledError, UsageError
from ..physics.speculation import PLAIN, Speculation
from ..physics.transfer import KvTransfer

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
    cluster: Fleet | Disaggregated
    vms: int


def build(*, share: Share | None = None, **options: Any) -> Built:
    """Build what the options describe, or a share of it.

    Raises `UsageError` for what cannot be.
    """
    setup = _Setup(**options)
    machine = load_preset(setup.preset, setup.model).with_limits(
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
    }
    limits, law = machine.limits, machine.law
    if setup.prefill_gpus is None or setup.decode_gpus is None:
        first_vm, vms = (share.first_vm, share.vms) if share else (0, vms)
        common |= {"first": first_vm * machine.engines_per_vm}
        engines = vms * machine.engines_per_vm
        return Built(machine, build_fleet(limits, law, engines=engines, **common), vms)
    pools = build_disaggregated(
        limits, law, transfer_of(machine),
        prefill=setup.prefill_gpus // machine.tensor_parallel,
        decode=setup.decode_gpus // machine.tensor_parallel,
        **common,
    )  # fmt: skip
    return Built(machine, pools, vms)


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
    return KvTransfer(
        kv_bytes_per_token=machine.facts["kv_bytes_per_token_fp8"].value,
        bytes_per_s=machine.facts["kv_transfer_bytes_per_s"].value,
    )


@dataclass(frozen=True, kw_only=True)
class _Setup:
    """The options by name."""

    preset: str
    model: str
    vms: int | None
    router: str
    policy: str
    seed: int
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
