"""Claims by name, a user's own, and what was published beside them."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..errors import CatalogError, UsageError
from ..toml_lines import line_of, parse
from ..units import MS, is_number, is_whole
from ..verify.claim import Baseline, Claim
from ..verify.judgement import Beside
from ..verify.measured import Measured
from .facts import entry, read_table
from .gpus import read_gpu
from .models import model_name
from .points import PublishedPoint, load_points, load_rack_spreads

_LIMITS: Final = {"ttft_p99_ms": "ttft_p99_s", "tpot_p99_ms": "tpot_p99_s"}
_NEEDED: Final = (
    "metric", "value", "unit", "model", "scenario", "gpus", "source", "date",
)  # fmt: skip
_KNOWN: Final = (
    *_NEEDED, "title", "precision", "accelerator", "vms", "input_tokens_mean",
    "output_tokens_mean", "ttft_p99_ms", "tpot_p99_ms", "tolerance", "verified", "note",
    "baseline_tok_s_per_gpu", "baseline_gpus", "baseline_title",
)  # fmt: skip
_TEXTS: Final = frozenset({
    "metric", "unit", "model", "scenario", "source", "date", "title", "precision",
    "accelerator", "note", "baseline_title",
})  # fmt: skip
_WHOLE: Final = frozenset({"gpus", "vms"})
_BESIDE: Final = ("server", "interactive")
EXAMPLE: Final = "loadstone verify --list names the claims there are"


def claim_names() -> list[str]:
    """Return the names of the claims that have one of their own."""
    return sorted(read_table("claims"))


def load_claim(name: str) -> Claim:
    """Load a claim of the catalog: by name, or a published point by its id.

    Raises `CatalogError` for one that is neither.
    """
    if name not in read_table("claims"):
        points = {point.id: point for point in load_points()}
        if name in points:
            return _of_point(points[name], name, {})
    table = entry("claims", name)
    return _of_point(_point(table["point"]), name, table)


def _point(name: str) -> PublishedPoint:
    return next(point for point in load_points() if point.id == name)


def _of_point(point: PublishedPoint, name: str, table: Mapping[str, Any]) -> Claim:
    """Make a claim of a point's conditions and, where it has one, of its own figure."""
    baseline = None
    if "baseline" in table:
        other = _point(table["baseline"])
        baseline = Baseline(
            title=other.id,
            output_tok_s_per_gpu=other.tokens_per_s_per_gpu,
            source=other.source,
            gpus=other.n_gpus,
        )
    return Claim(
        name=name,
        title=table.get("title", name),
        metric=table.get("metric", "output_tok_s"),
        value=table.get("value", point.tokens_per_s_system),
        unit=table.get("unit", "token/s"),
        model=_model(point.model),
        precision=point.precision,
        scenario=point.scenario,
        accelerator=point.accelerator,
        gpus=point.n_gpus,
        vms=table.get("vms"),
        input_tokens_mean=point.input_tokens_mean,
        output_tokens_mean=point.output_tokens_mean,
        limits=_limits(_model(point.model), point.scenario),
        baseline=baseline,
        source=table.get("source", point.source),
        date=table.get("date", point.source_date),
        verified=table.get("confidence", point.confidence) == "official",
        note=point.note,
    )


def _model(name: str) -> str:
    """Return the catalog's name of a model, or the name itself where it has none."""
    try:
        return model_name(name)
    except CatalogError:
        return name


def _limits(model: str, scenario: str) -> dict[str, float]:
    table = read_table("slos").get(model, {}).get(scenario, {})
    return {ours: table[ms] * MS for ms, ours in _LIMITS.items() if ms in table}


# --------------------------------------------------------------------- a user's own


def read_claim(text: str, name: str) -> Claim:
    """Read a user's claim (TOML); raises `UsageError` naming file, line and key."""
    table = parse(text, name)
    for key, value in table.items():
        if key not in _KNOWN:
            raise _wrong(
                text, name, key, "is unknown", f"there is: {', '.join(_KNOWN)}"
            )
        if not _is_a(key, value):
            raise _wrong(text, name, key, f"cannot be {value!r}")
    missing = [key for key in _NEEDED if key not in table]
    if missing:
        raise UsageError(
            f"{name}: no {missing[0]}", hint=f"it needs {', '.join(_NEEDED)}"
        )
    try:
        return _own(table, name)
    except ValueError as wrong:
        key = str(wrong).split()[0]
        raise _wrong(text, name, key, str(wrong).removeprefix(key).strip()) from None


def _own(table: Mapping[str, Any], name: str) -> Claim:
    own = dict(table)
    limits = {ours: own.pop(ms) * MS for ms, ours in _LIMITS.items() if ms in own}
    rate = own.pop("baseline_tok_s_per_gpu", None)
    gpus, title = own.pop("baseline_gpus", 1), own.pop("baseline_title", "the baseline")
    baseline = None
    if rate is not None:
        baseline = Baseline(
            title=title, output_tok_s_per_gpu=rate, source=name, gpus=gpus
        )
    own["model"] = _model(own["model"])
    return Claim(
        **{
            "name": name,
            "title": name,
            "verified": False,
            "limits": limits,
            "baseline": baseline,
            **own,
        }
    )


def _is_a(key: str, value: Any) -> bool:
    if key in _TEXTS:
        return isinstance(value, str) and bool(value)
    if key == "verified":
        return isinstance(value, bool)
    return is_whole(value) if key in _WHOLE else is_number(value)


def _wrong(text: str, name: str, key: str, why: str, hint: str = "") -> UsageError:
    return UsageError(f"{name}, line {line_of(text, key)}: {key} {why}", hint=hint)


# ---------------------------------------------------------------- published beside it


def beside(claim: Claim) -> Iterator[Beside]:
    """Yield the Server and the Interactive figure published for a claim's model.

    Each is the best per GPU of its accelerator, else of another of the same family.
    """
    for scenario in _BESIDE:
        points = [
            point
            for point in load_points()
            if point.scenario == scenario and _model(point.model) == claim.model
        ]
        same = [p for p in points if p.accelerator == claim.accelerator]
        kin = [p for p in points if _related(p.accelerator, claim.accelerator)]
        for point in _best(same or kin):
            limits = _limits(claim.model, scenario).items()
            yield Beside(
                title=point.id,
                scenario=scenario,
                accelerator=point.accelerator,
                gpus=point.n_gpus,
                output_tok_s_per_gpu=point.tokens_per_s_per_gpu,
                limits=", ".join(
                    f"{name.removesuffix('_s')} {value / MS:g} ms"
                    for name, value in limits
                ),
                verified=point.confidence == "official",
                source=point.source,
            )


def spread(claim: Claim, run: Measured) -> Iterator[str]:
    """Say how far VMs of such a rack lay apart, where a run had fewer of them."""
    if not run.vms or claim.vms is None or run.vms >= claim.vms:
        return
    for rack in load_rack_spreads():
        if (rack.accelerator, _model(rack.model)) == (claim.accelerator, claim.model):
            yield (
                f"of the {rack.n_vms} VMs of the published rack the slowest gave"
                f" {rack.min_over_mean_pct:+.1f} % and the fastest"
                f" {rack.max_over_mean_pct:+.1f} % of the mean: so far may {run.vms:g}"
                " VM be from it"
            )


def _best(points: list[PublishedPoint]) -> list[PublishedPoint]:
    return sorted(points, key=lambda point: -point.tokens_per_s_per_gpu)[:1]


def _related(one: str, other: str) -> bool:
    try:
        return bool(read_gpu(one)[0]["family"] == read_gpu(other)[0]["family"])
    except CatalogError:
        return False
