"""A run's folder in the words of claims: what gave how many tokens, under what."""

from collections.abc import Mapping
from typing import Any

from .catalog.models import model_name
from .catalog.presets import load_preset, read_machine
from .errors import CatalogError, LoadstoneError, NotValidError, UsageError
from .runs import RunFiles
from .verify.measured import Measured


def measured_of(run: RunFiles, *, gpus: float | None = None) -> Measured:
    """Return what a run measured; `gpus` where its folder does not say how many.

    Raises `NotValidError` for a run that has no figures and `UsageError` where nobody
    says how many GPUs there were.
    """
    summary = run.summary()
    if summary is None:
        raise NotValidError(
            f"{run.path} has no figures: the run was ended before they were made"
        )
    plan, mock = run.plan(), run.environment().get("mock") or {}
    settings, options = plan.get("plan", {}), plan.get("options", {})
    cost = summary.get("cost", {})
    model = _model(str(summary.get("model") or mock.get("model") or ""))
    preset = summary.get("preset") or mock.get("preset")
    machine = _machine(preset, model, options)
    vms = summary.get("vms") or settings.get("vms") or mock.get("vms")
    gpus = gpus or cost.get("gpus") or (vms or 0) * machine.get("gpus_per_vm", 0)
    if not gpus:
        raise UsageError(
            f"{run.path} does not say how many GPUs answered", hint="give --gpus N"
        )
    tokens, answers = summary["tokens"], summary["requests"]["ok"]
    rate, counted = _rate(summary)
    instrument = summary["instrument"]
    return Measured(
        run=run.name,
        output_tok_s=rate,
        counted=counted,
        gpus=gpus,
        vms=vms,
        accelerator=machine.get("gpu") or (cost.get("tariff") or {}).get("gpu", ""),
        model=model,
        precision=machine.get("precision", ""),
        loop=summary["loop"],
        input_tokens_mean=tokens["input"] / answers if answers else None,
        output_tokens_mean=tokens["output"] / answers if answers else None,
        ttft_p99_s=summary["ttft_intended_s"]["p99"],
        tpot_p99_s=summary["tpot_s"]["p99"],
        batches=summary.get("batches"),
        emulated=preset is not None,
        virtual=bool(instrument.get("virtual")),
        slowdown=float(mock.get("slowdown", 1.0)),
        verdict=instrument["verdict"],
        complete=summary["complete"],
    )


def _rate(summary: Mapping[str, Any]) -> tuple[float, str]:
    """Return output tokens/s as claims of that kind count them, and how that is."""
    rates, of_vms = summary["throughput"], summary.get("vm_output_tok_s")
    if of_vms:
        return sum(of_vms), f"the sum over VMs ({len(of_vms)}), each over its own time"
    if summary["loop"] == "offline":
        return rates["output_tok_s"] or 0.0, "all tokens over the whole run"
    steady = rates["steady_output_tok_s"] or 0.0
    # An older summary does not say how its window was found.
    if summary.get("window", {"how": "unknown"})["how"] is None:
        return steady, "while the middle 80 % of the tokens were given: not steady"
    return steady, "over the steady window: ramp and drain left out"


def _model(name: str) -> str:
    try:
        return model_name(name)
    except CatalogError:
        return name


def _machine(
    preset: str | None, model: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the catalog knows of an emulated machine; nothing of a real one."""
    if preset is None:
        return {}
    try:
        plain, facts = read_machine(preset)
        precision = options.get("precision")
        precision = precision or load_preset(preset, model).layout.precision
    except LoadstoneError:
        return {}
    return {
        "gpu": plain["gpu"],
        "gpus_per_vm": facts["gpus_per_vm"].value,
        "precision": precision,
    }
