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
from struct import Struct
from typing import Any, Final, Literal

from ..errors import UsageError
from ..units import Seconds, Tokens
from .arrivals import Arrivals
from .lengths import Lengths
from .profile import Profile
from .request import Request
from .textfit import OWN_RULE, TextFit
from .trace import TraceRow

Loop = Literal["open", "closed", "trace", "offline"]

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
    "mlperf-llama-3.1-405b": Scenario(
        name="mlperf-llama-3.1-405b",
        text="lengths of MLPerf's Llama3.1-405B data set, from its percentiles",
        input_lengths="mlperf-llama-3.1-405b-input",
        output_lengths="mlperf-llama-3.1-405b-output",
    ),
}


APIS: Final = ("chat", "completions", "responses", "embeddings")
"""OpenAI's endpoints that a plan may be sent to; `wire.api` writes for each."""
ON_429: Final = ("count", "retry")
"""What may be done about a throttled request."""


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
    offline: int | None = None
    max_tokens: Tokens | None = None
    users: int = DEFAULT_CAP
    think_s: Seconds = 0.0
    duration_s: Seconds = 60.0
    drain_s: Seconds = 60.0
    warmup_s: Seconds = 0.0
    seed: int = 0
    ignore_eos: bool = True
    price: str | None = None
    vms: int | None = None
    api: str = "chat"
    on_429: Literal["count", "retry"] = "count"
    max_retries: int = 3
    continuous_usage: bool = False
    refused: tuple[str, ...] = ()
    """Fields that the endpoint was found to refuse; see `wire.api.Dialect`."""
    chars_per_token: float | None = None
    """Of the endpoint's tokenizer, as its first replies say; None: four bytes."""
    template_tokens: float | None = None
    """What the endpoint adds to each prompt."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run; raises `UsageError` naming the setting."""
        if self.scenario not in SCENARIOS:
            raise UsageError(
                f"no scenario {self.scenario!r}",
                hint=f"there is: {', '.join(SCENARIOS)}",
            )
        for name, known in (("api", APIS), ("on_429", ON_429)):
            if getattr(self, name) not in known:
                raise UsageError(
                    f"{name} cannot be {getattr(self, name)!r}",
                    hint=f"there is: {', '.join(known)}",
                )
        Arrivals.parse(self.arrivals)
        Profile.parse(self.profile)
        if self.rate is not None and self.trace is not None:
            raise UsageError(
                "a trace brings its own arrivals: give --trace or --rate, not both"
            )
        if self.offline is not None and (self.rate or self.trace):
            raise UsageError(
                "offline requests are all due at once: no --rate and no --trace"
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
        """Which of the four ways of arriving this is."""
        if self.offline is not None:
            return "offline"
        if self.trace is not None:
            return "trace"
        return "closed" if self.rate is None else "open"

    @property
    def fit(self) -> TextFit:
        """How much text makes how many tokens on the endpoint."""
        if self.chars_per_token is None:
            return OWN_RULE
        return TextFit(self.chars_per_token, self.template_tokens or 0.0)

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
        lists = {k: tuple(v) for k, v in table.items() if isinstance(v, list)}
        return cls(**table | lists)

    def retargeted(self, **changes: Any) -> "Plan":
        """Return the plan with some settings replaced."""
        return replace(self, **changes)


_LEAST: Final[dict[str, float]] = {
    "rate": 1e-9, "speedup": 1e-9, "users": 1, "think_s": 0, "duration_s": 1e-3,
    "drain_s": 0, "warmup_s": 0, "vms": 1, "offline": 1, "max_tokens": 1,
    "max_retries": 0, "chars_per_token": 0.1, "template_tokens": 0,
}  # fmt: skip


def schedule(
    plan: Plan,
    lengths: tuple[Lengths, Lengths],
    trace: Sequence[TraceRow] | None = None,
) -> list[Request]:
    """Draw the requests of a plan that has a schedule, in order of intended time.

    Raises `UsageError` for a closed loop, and when no arrival falls into the duration.
    """
    return list(in_turn(plan, lengths, trace))


def in_turn(
    plan: Plan,
    lengths: tuple[Lengths, Lengths],
    trace: Sequence[TraceRow] | None = None,
) -> Iterator[Request]:
    """Draw the same one by one, as they are asked for, and keep none.

    `lengths` are the scenario's input and output tables; `trace` the rows of the plan's
    trace.
    """
    if plan.loop == "closed":
        raise UsageError(
            "a closed loop has no schedule: its users ask when they are ready"
        )
    drawn = (
        _from_trace(plan, trace or ())
        if plan.loop == "trace"
        else _drawn(plan, lengths)
    )
    first = next(drawn, None)
    if first is None:
        raise UsageError(
            f"no request arrives within {plan.duration_s:g} s",
            hint="raise --rate or --duration",
        )
    yield first
    yield from drawn


def _drawn(plan: Plan, lengths: tuple[Lengths, Lengths]) -> Iterator[Request]:
    times = enumerate(_times(plan))
    for (i, due), of in zip(times, draw(plan, lengths), strict=False):
        yield request_of(plan, i, due, of)


def _times(plan: Plan) -> Iterator[Seconds]:
    """Yield when the requests of an offline or open-loop plan are due."""
    if plan.rate is None:
        yield from (0.0 for _ in range(plan.offline or 0))
    else:
        yield from Arrivals.parse(plan.arrivals).times(
            plan.rate,
            plan.duration_s,
            Random(f"{plan.seed}/arrivals"),
            Profile.parse(plan.profile),
        )


def request_of(
    plan: Plan, index: int, due: Seconds, lengths: tuple[Tokens, Tokens]
) -> Request:
    """Make a request of a drawn (input, output) length, cut at the plan's maximum."""
    n_in, n_out = lengths
    limit = plan.max_tokens
    return Request(
        index, due, n_in, n_out if limit is None else min(n_out, limit), plan.scenario,
        max_output_tokens=limit,
    )  # fmt: skip


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
        plain = request_of(plan, i, due, (row.input_tokens, row.output_tokens))
        yield replace(plain, priority=row.priority, prefix=row.prefix)


_OF_THE_TARGET: Final = (
    "hosts", "model", "price", "vms", "trace", "refused", "chars_per_token",
    "template_tokens",
)  # fmt: skip
_HASHED: Final = Struct("<dqqqqqq")
"""Due time, input, output, declared maximum, priority, blocks of a prefix and their
size."""


def plan_hash(plan: Plan, requests: Iterable[Request]) -> str:
    """Hash what decides the load: traffic settings and schedule; not the target."""
    settings = plan.to_toml()
    for target in _OF_THE_TARGET:
        settings.pop(target, None)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for r in requests:
        size, blocks = r.prefix or (0, ())
        digest.update(
            _HASHED.pack(
                r.intended_s, r.input_tokens, r.output_tokens,
                r.max_output_tokens or 0, r.priority, len(blocks), size,
            )
        )  # fmt: skip
        digest.update(array("q", blocks).tobytes())
    return digest.hexdigest()
