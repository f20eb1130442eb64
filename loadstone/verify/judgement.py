"""How far a run reproduces a claim, and everything that was not the same.

The figure is put on the claim's footing per GPU and multiplied up to its number of
GPUs. That is no measurement of a rack: racks have slower and faster VMs, and shared
parts, so the factor is one of the differences that are named.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from ..errors import ExitCode, NotValidError
from .claim import Baseline, Claim
from .measured import Measured

LENGTHS_ALIKE: Final = 0.02
"""Relative difference of mean lengths that is let pass as the same."""
_OFFLINE: Final = "all requests at once, no latency limit: they may wait for minutes"


@dataclass(frozen=True, slots=True)
class Difference:
    """A condition on both sides; `same` is None where one side does not say."""

    condition: str
    claimed: str
    measured: str
    same: bool | None

    @property
    def text(self) -> str:
        """What the run had; and of what cannot be compared, what the claim says."""
        beside = f" (claim: {self.claimed})" if self.same is None else ""
        return f"{self.condition}: {self.measured}{beside}"


@dataclass(frozen=True, slots=True)
class Beside:
    """Another published figure of the same model, to see the claim in its light."""

    title: str
    scenario: str
    accelerator: str
    gpus: int
    output_tok_s_per_gpu: float
    limits: str
    verified: bool
    source: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A claim against a run; `share` is measured over claimed."""

    claim: Claim
    measured: Measured
    share: float
    scaled: float
    """What was measured, in the claim's own unit and on its number of GPUs."""
    met: bool
    not_valid: tuple[str, ...]
    broken_limits: tuple[str, ...]
    differences: tuple[Difference, ...]
    beside: tuple[Beside, ...]
    notes: tuple[str, ...]
    """What else is known that bears on the comparison."""

    @property
    def exit_code(self) -> ExitCode:
        """0 reproduced, 3 not, 4 nothing can be said."""
        if self.not_valid:
            return ExitCode.NOT_VALID
        return ExitCode.DONE if self.met else ExitCode.NOT_MET

    @property
    def outcome(self) -> str:
        """The same in a word."""
        return {
            ExitCode.DONE: "reproduced",
            ExitCode.NOT_MET: "not reproduced",
            ExitCode.NOT_VALID: "not valid",
        }[self.exit_code]

    def text(self) -> str:
        """Say it in a sentence: how far, and under which other conditions."""
        other = [d for d in self.differences if d.same is not True]
        under = "; ".join(d.text for d in other)
        begin = {ExitCode.DONE: "reproduced"}.get(self.exit_code, f"{self.outcome}:")
        return (
            f"{begin} {self.share:.1%} of {self.claim.text()}"
            f" ({self.claim.standing()})"
            + (f" under {under}" if under else " under the same conditions")
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "outcome": self.outcome,
            "exit_code": int(self.exit_code),
            "text": self.text(),
            "share": self.share,
            "scaled": self.scaled,
            "claim": {**asdict(self.claim), "text": self.claim.text()},
            "measured": {**asdict(self.measured), "per_gpu": self.measured.per_gpu},
            "not_valid": list(self.not_valid),
            "broken_limits": list(self.broken_limits),
            "differences": [asdict(d) for d in self.differences],
            "beside": [asdict(b) for b in self.beside],
            "notes": list(self.notes),
        }


def judge_claim(
    claim: Claim,
    run: Measured,
    *,
    baseline: Measured | None = None,
    beside: Sequence[Beside] = (),
    notes: Sequence[str] = (),
) -> Judgement:
    """Hold a run against a claim.

    `baseline` is a run of what a comparison is with; without it the published figure
    stands for it. Raises `ValueError` for a baseline where nothing is compared, and
    `NotValidError` for one that gave no token.
    """
    invalid = list(run.not_valid())
    base = claim.baseline
    if baseline is not None:
        if base is None:
            raise ValueError(f"{claim.name} compares with nothing")
        invalid += [f"the baseline: {why}" for why in baseline.not_valid()]
        base = measured_baseline(baseline)
    scaled = _scaled(claim, run, base)
    share = scaled / claim.value
    broken = tuple(_broken(claim, run))
    return Judgement(
        claim=claim,
        measured=run,
        share=share,
        scaled=scaled,
        met=share >= 1 - claim.tolerance and not broken,
        not_valid=tuple(invalid),
        broken_limits=broken,
        differences=tuple(_differences(claim, run, base)),
        beside=tuple(beside),
        notes=tuple(notes),
    )


def measured_baseline(run: Measured) -> Baseline:
    """Return a run as what another is compared with.

    Raises `NotValidError` for one that gave no token.
    """
    if run.per_gpu <= 0:
        raise NotValidError(f"the baseline, run {run.run}, gave no output token")
    return Baseline(
        title=f"run {run.run}",
        output_tok_s_per_gpu=run.per_gpu,
        source="measured",
        gpus=run.gpus,
    )


def _scaled(claim: Claim, run: Measured, base: Baseline | None) -> float:
    if claim.metric == "output_tok_s":
        return run.per_gpu * claim.gpus
    return run.per_gpu / (base.output_tok_s_per_gpu if base else 1.0)


def _broken(claim: Claim, run: Measured) -> Iterator[str]:
    for name, limit in claim.limits.items():
        value = getattr(run, name)
        if value is None or value > limit:
            said = "unknown" if value is None else f"{value * 1e3:,.0f} ms"
            yield f"{name.removesuffix('_s')} {said}, limit {limit * 1e3:,.0f} ms"


# ------------------------------------------------------------------- the conditions


def _differences(
    claim: Claim, run: Measured, base: Baseline | None
) -> Iterator[Difference]:
    yield _named("model", claim.model, run.model)
    yield _named("precision", claim.precision, run.precision)
    yield _named("accelerator", claim.accelerator, run.accelerator)
    yield _arrivals(claim, run)
    yield _limit(claim, run)
    for side in ("input", "output"):
        field = f"{side}_tokens_mean"
        yield _length(side, getattr(claim, field), getattr(run, field))
    yield _size(claim, run)
    if base is not None and claim.baseline is not None:
        said = f"{base.title}, {base.output_tok_s_per_gpu:,.0f} tokens/s/GPU"
        yield Difference("baseline", claim.baseline.title, said, base == claim.baseline)
    if claim.verified:
        reviewed = "verified by MLCommons"
        yield Difference("verification", reviewed, "unverified", same=False)
    machine = (
        "emulated: a model fitted to published figures" if run.emulated else "real"
    )
    yield Difference("machine", "real", machine, not run.emulated)
    clock = "virtual time" if run.virtual else "live"
    if run.slowdown != 1:
        clock += f", slowed {run.slowdown:g} times and scaled back"
    yield Difference("clock", "live", clock, not run.virtual and run.slowdown == 1)


def _named(condition: str, claimed: str, measured: str) -> Difference:
    known = bool(claimed and measured)
    return Difference(
        condition,
        claimed or "not stated",
        measured or "not known",
        claimed == measured if known else None,
    )


_ARRIVALS: Final = {
    "offline": "Offline: all requests at once",
    "throughput": "all requests at once, fixed lengths",
    "server": "Server: Poisson arrivals",
    "interactive": "Interactive: Poisson arrivals",
}
_LOOPS: Final = {
    "offline": "offline: all requests at once",
    "open": "open loop at a rate",
    "trace": "a recorded trace",
    "closed": "closed loop of users",
}
_ALIKE: Final = {
    "offline": "offline", "throughput": "offline", "server": "open",
    "interactive": "open",
}  # fmt: skip


def _arrivals(claim: Claim, run: Measured) -> Difference:
    return Difference(
        "scenario",
        _ARRIVALS[claim.scenario],
        _LOOPS.get(run.loop, run.loop),
        _ALIKE[claim.scenario] == run.loop,
    )


def _limit(claim: Claim, run: Measured) -> Difference:
    p99 = f"p99 TTFT {_ms(run.ttft_p99_s)}, TPOT {_ms(run.tpot_p99_s)}"
    if not claim.limits:
        return Difference(
            "latency limit", f"none; {_OFFLINE}", f"none; {p99}", same=True
        )
    limits = ", ".join(
        f"{name.removesuffix('_s').replace('_', ' ').upper()} {_ms(limit)}"
        for name, limit in claim.limits.items()
    )
    broken = bool(list(_broken(claim, run)))
    return Difference(
        "latency limit", limits, f"{'broken' if broken else 'kept'}: {p99}", not broken
    )


def _ms(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds * 1e3:,.0f} ms"


def _length(side: str, claimed: float | None, measured: float | None) -> Difference:
    alike = None
    if claimed is not None and measured is not None:
        alike = abs(measured / claimed - 1) <= LENGTHS_ALIKE
    return Difference(
        f"{side} tokens",
        "not stated" if claimed is None else f"{claimed:,.1f} on average",
        "not known" if measured is None else f"{measured:,.1f} on average",
        alike,
    )


def _size(claim: Claim, run: Measured) -> Difference:
    size = f"{run.gpus:g} GPUs" + (f" ({run.vms:g} VM)" if run.vms else "")
    if run.gpus != claim.gpus and claim.metric == "output_tok_s":
        size += f", scaled by {claim.gpus / run.gpus:g}"
    claimed = f"{claim.gpus} GPUs" + (f" ({claim.vms} VM)" if claim.vms else "")
    return Difference("size", claimed, size, run.gpus == claim.gpus)
