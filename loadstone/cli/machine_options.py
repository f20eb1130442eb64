"""Options that say which machine serves which model, and how it is laid out."""

from collections.abc import Callable
from typing import Any

import click

from loadgen.files import read_text

from ..catalog.models import model_name, model_names
from ..catalog.own_preset import SUFFIX, read_own_preset
from ..catalog.presets import Preset, load_preset, preset_names
from ..errors import UsageError
from ..physics.accelerator import PRECISIONS
from .completing import one_of

DEFAULT_PRESET = "azure-nd-gb300-v6"
DEFAULT_MODEL = "llama-2-70b"

MACHINE_OPTIONS = (
    click.option("--preset", default=DEFAULT_PRESET, show_default=True,
                 metavar="NAME|FILE.toml",
                 shell_complete=one_of(preset_names, or_file=True),
                 help=f"kind of VM: {', '.join(preset_names())}; or a file that"
                 " `loadstone fit` wrote"),
    click.option("--model", metavar="NAME", shell_complete=one_of(model_names),
                 help=f"model it serves, or its Hugging Face id:"
                 f" {', '.join(model_names())}  [default: {DEFAULT_MODEL}, or the"
                 " file's]"),
    click.option("--precision", type=click.Choice(PRECISIONS),
                 help="of the weights  [default: the lowest that the GPU computes in]"),
    click.option("--tensor-parallel-size", type=click.IntRange(1), metavar="N",
                 help="GPUs of an engine  [default: the fewest whose memory the"
                 " weights fill by half]"),
    click.option("--expert-parallel-size", type=click.IntRange(1), metavar="N",
                 help="GPUs that share a layer's experts: 1, or all of the engine's"
                 "  [default: all]"),
)  # fmt: skip


def machine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a click command."""
    for option in reversed(MACHINE_OPTIONS):
        command = option(command)
    return command


def load_machine(
    preset: str,
    model: str | None,
    *,
    precision: str | None,
    tensor_parallel_size: int | None,
    expert_parallel_size: int | None,
) -> Preset:
    """Load the machine that the options name: the catalog's, or that of a file.

    Raises `UsageError` for a layout that is not the one a file was fitted with.
    """
    if not preset.endswith(SUFFIX):
        return load_preset(
            preset,
            model or DEFAULT_MODEL,
            precision=precision,
            tensor_parallel=tensor_parallel_size,
            expert_parallel=expert_parallel_size,
        )
    machine = read_own_preset(read_text(preset, "preset"), preset)
    for option, wanted, fitted in (
        ("--model", model and model_name(model), machine.model),
        ("--precision", precision, machine.precision),
        ("--tensor-parallel-size", tensor_parallel_size, machine.tensor_parallel),
        ("--expert-parallel-size", expert_parallel_size, machine.expert_parallel),
    ):
        if wanted not in (None, fitted):
            raise UsageError(
                f"{preset} was fitted with {option} {fitted}, not {wanted}",
                hint="its constants hold for that alone",
            )
    return machine
