"""What a run intends: settings, and the schedule drawn from them before it starts.

Arrivals and lengths come from generators of their own, both seeded by the plan, so that
changing one does not shift the other. The schedule is hashed with the settings: two
runs with the same hash sent the same requests at the same intended times.
"""

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any, Final, Literal

from ..errors import UsageError
from ..units import Seconds, Tokens
from .arrivals import Arrivals
from .lengths import Lengths
from .profile import Profile
from .request import Request
from .trace import TraceRow

Loop = Literal["open", "closed", "trace"]

DEFAULT_CAP: Final = 512
"""Requests in flight under open loop unless `users` says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A kind of traffic: the names of its length tables in the catalog."""

    name: str
    text: str
    input_lengths: str
    output_lengths: str


SCENARIOS: Final = {
    "chat": Scenario(
        name="chat",
        text="one question, one answer; lengths of Azure's 2023 conversation trace",
        input_lengths="azure-2023-conversation-input",
        output_lengths="azure-2023-conversation-output",
    ),
    "mlperf": Scenario(
        name="mlperf",
        text=(
            "lengths of MLPerf's Llama2-70B data set,"
            " answers as long as FP4 runs generate"
        ),
        input_lengths="mlperf-llama2-70b-input",
        output_lengths="mlperf-llama2-70b-output",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything needed to run it again. Times in seconds, `rate` in requests/s.

    With a `trace` its arrivals and lengths are replayed, `speedup` times as fast.
    Otherwise with a `rate` the load is open: arrivals come whatever the answers do, at
    the rate times the `profile`, and `users` caps what is in flight. Without either it
    is closed: `users` each ask, wait for the answer, think for `think_s` on average and
    ask again.
    """

    scenario: str = "chat"
    hosts: tuple[str, ...] = ()
    model: str = ""
    rate: float | None = None
    arrivals: str = "poisson"
    profile: str = "flat"
    trace: str | None = None
    trace_sha256: str | None = None
    speedup: float = 1.0
    users: int = DEFAULT_CAP
    think_s: Seconds = 0.0
    duration_s: Seconds = 60.0
    drain_s: Seconds = 60.0
    warmup_s: Seconds = 0.0
    seed: int = 0
    ignore_eos: bool = True
    price: str | None = None
    vms: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be run; raises `UsageError` naming the setting."""
        if self.scenario not in SCENARIOS:
            raise UsageError(
                f"no scenario {self.scenario!r}",
                hint=f"there is: {', '.join(SCENARIOS)}",
            )
        Arrivals.parse(self.arrivals)
        Profile.parse(self.profile)
        if self.rate is not None and self.trace is not None:
            raise UsageError(
                "a trace brings its own arrivals: give --trace or --rate, not both"
            )
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < float("inf"):
                raise UsageError(
                    f"{name.removesuffix('_s')} must be at least {least:g},"
                    f" not {value:g}"
                )
        if self.warmup_s >= self.duration_s:
            raise UsageError(
                f"a warm-up of {self.warmup_s:g} s leaves nothing"
                f" of {self.duration_s:g} s to measure"
            )

    @property
    def loop(self) -> Loop:
        """Which of the three ways of arriving this is."""
        if self.trace is not None:
            return "trace"
        return "closed" if self.rate is None else "open"

    def to_toml(self) -> dict[str, Any]:
        """Return the settings that are set, as TOML-ready values."""
        return {
            k: list(v) if isinstance(v, tuple) else v
            for k, v in asdict(self).items()
            if v is not None
        }

    @classmethod
    def from_toml(cls, table: dict[str, Any]) -> "Plan":
        """Read what `to_toml` wrote; raises `UsageError` for a setting there is not."""
        unknown = sorted(set(table) - set(cls.__dataclass_fields__))
        if unknown:
            raise UsageError(f"a plan has no setting {unknown[0]!r}")
        return cls(**{**table, "hosts": tuple(table.get("hosts", ()))})

    def retargeted(self, **changes: Any) -> "Plan":
        """Return the plan with some settings replaced."""
        return replace(self, **changes)


_LEAST: Final[dict[str, float]] = {
    "rate": 1e-9, "speedup": 1e-9, "users": 1, "think_s": 0, "duration_s": 1e-3,
    "drain_s": 0, "warmup_s": 0, "vms": 1,
}  # fmt: skip


def schedule(
    plan: Plan,
    lengths: tuple[Lengths, Lengths],
    trace: Sequence[TraceRow] | None = None,
) -> list[Request]:
    """Draw the requests of an open-loop or trace plan, in order of intended time.

    `lengths` are the scenario's input and output tables; `trace` the rows of the plan's
    trace. Raises `UsageError` when no arrival falls into the duration.
    """
    if plan.loop == "trace":
        requests = list(_from_trace(plan, trace or ()))
    elif plan.loop == "open" and plan.rate is not None:
        times = Arrivals.parse(plan.arrivals).times(
            plan.rate,
            plan.duration_s,
            Random(f"{plan.seed}/arrivals"),
            Profile.parse(plan.profile),
        )
        requests = [
            Request(i, due, n_in, n_out, plan.scenario)
            for i, (due, (n_in, n_out)) in enumerate(
                zip(times, draw(plan, lengths), strict=False)
            )
        ]
    else:
        raise UsageError(
            "a closed loop has no schedule: its users ask when they are ready"
        )
    if not requests:
        raise UsageError(
            f"no request arrives within {plan.duration_s:g} s",
            hint="raise --rate or --duration",
        )
    return requests


def draw(
    plan: Plan, lengths: tuple[Lengths, Lengths], rank: int = 0
) -> Iterator[tuple[Tokens, Tokens]]:
    """Draw (input, output) lengths without end; each closed-loop worker has its own."""
    rng = Random(f"{plan.seed}/lengths/{rank}")
    while True:
        yield lengths[0].draw(rng), lengths[1].draw(rng)


def _from_trace(plan: Plan, rows: Iterable[TraceRow]) -> Iterator[Request]:
    for i, row in enumerate(rows):
        due = row.at_s / plan.speedup
        if due >= plan.duration_s:
            return
        yield Request(i, due, row.input_tokens, row.output_tokens, plan.scenario)


def plan_hash(plan: Plan, requests: Sequence[Request]) -> str:
    """Hash what decides the load: traffic settings and schedule; not the target."""
    settings = plan.to_toml()
    for target in ("hosts", "model", "price", "vms", "trace"):
        settings.pop(target, None)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(array("d", (r.intended_s for r in requests)).tobytes())
    digest.update(array("q", (r.input_tokens for r in requests)).tobytes())
    digest.update(array("q", (r.output_tokens for r in requests)).tobytes())
    return digest.hexdigest()
