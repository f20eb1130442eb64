"""What a run intends: settings, and the schedule drawn from them before it starts.

Arrivals and lengths come from generators of their own, both seeded by the plan, so that
changing one does not shift the other. The schedule is hashed with the settings: two
runs with the same hash sent the same requests at the same intended times.
"""

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from heapq import merge
from itertools import count
from random import Random
from struct import Struct
from typing import Any, Final, Literal

from ..errors import UsageError
from ..units import Seconds, Tokens
from .arrivals import Arrivals
from .classes import TrafficClass
from .journey import Journey
from .mix import Mix, Stream, whole_stream
from .profile import Profile
from .request import Request
from .tenants import Tenant
from .trace import TraceRow

Loop = Literal["open", "closed", "trace", "offline"]

DEFAULT_SCENARIO: Final = "azure-chat"
DEFAULT_CAP: Final = 512
"""Requests in flight under open loop unless `users` says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything needed to run it again. Times in seconds, `rate` in requests/s.

    With a `trace` its arrivals and lengths are replayed, `speedup` times as fast.
    Otherwise with a `rate` the load is open: arrivals come whatever the answers do, at
    the rate times the `profile`, and `users` caps what is in flight. Without either it
    is closed: `users` each ask, wait for the answer, think for `think_s` on average and
    ask again.
    """

    scenario: str = DEFAULT_SCENARIO
    hosts: tuple[str, ...] = ()
    model: str = ""
    rate: float | None = None
    arrivals: str = "poisson"
    profile: str = "flat"
    trace: str | None = None
    trace_sha256: str | None = None
    trace_from_s: Seconds = 0.0
    trace_to_s: Seconds | None = None
    trace_sample: float | None = None
    skip_bad_rows: bool = False
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
    salt: str = ""
    classes: tuple[TrafficClass, ...] = ()
    """What arrives; empty: what the catalog's plan of the scenario's name says."""
    tenants: tuple[Tenant, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be run; raises `UsageError` naming the setting."""
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
        if self.rate is None and any(each.profile for each in self.classes):
            raise UsageError("the profile of a class is for an open loop: give a rate")
        if self.trace_sample is not None and self.trace_sample > 1:
            raise UsageError("the sample of a trace is a share of it, at most 1")
        if self.trace_to_s is not None and self.trace_to_s <= self.trace_from_s:
            raise UsageError("the part of the trace ends before it begins")
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

    def to_toml(self) -> dict[str, Any]:
        """Return the settings that are set, as TOML-ready values."""
        table: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in _TABLES:
                value = [row.to_toml() for row in value] or None
            if value is not None and not (each.name == "salt" and not value):
                table[each.name] = list(value) if isinstance(value, tuple) else value
        return table

    @classmethod
    def from_toml(cls, table: Mapping[str, Any]) -> "Plan":
        """Read what `to_toml` wrote; raises `UsageError` for a setting there is not."""
        unknown = sorted(set(table) - set(cls.__dataclass_fields__))
        if unknown:
            raise UsageError(f"a plan has no setting {unknown[0]!r}")
        rows = {
            name: tuple(read(row) for row in table.get(name, ()))
            for name, read in _TABLES.items()
        }
        return cls(**{**table, **rows, "hosts": tuple(table.get("hosts", ()))})

    def retargeted(self, **changes: Any) -> "Plan":
        """Return the plan with some settings replaced."""
        return replace(self, **changes)


_LEAST: Final[dict[str, float]] = {
    "rate": 1e-9, "speedup": 1e-9, "users": 1, "think_s": 0, "duration_s": 1e-3,
    "drain_s": 0, "warmup_s": 0, "vms": 1, "offline": 1, "max_tokens": 1,
    "trace_from_s": 0, "trace_to_s": 1e-3, "trace_sample": 1e-9,
}  # fmt: skip


_TABLES: Final = {"classes": TrafficClass.from_toml, "tenants": Tenant.from_toml}


def schedule(
    plan: Plan, mix: Mix, trace: Sequence[TraceRow] | None = None
) -> list[Request]:
    """Draw the requests of a plan that has a schedule, in order of intended time.

    Raises `UsageError` for a closed loop, and when no arrival falls into the duration.
    """
    return list(in_turn(plan, mix, trace))


def in_turn(
    plan: Plan, mix: Mix, trace: Sequence[TraceRow] | None = None
) -> Iterator[Request]:
    """Draw the same one by one, as they are asked for, and keep none.

    `mix` is of the plan's classes; `trace` the rows of the plan's trace. Requests of
    one conversation follow each other.
    """
    if plan.loop == "closed":
        raise UsageError(
            "a closed loop has no schedule: its users ask when they are ready"
        )
    drawn = (
        _from_trace(plan, trace or ()) if plan.loop == "trace" else _drawn(plan, mix)
    )
    first = next(drawn, None)
    if first is None:
        raise UsageError(
            f"no request arrives within {plan.duration_s:g} s",
            hint="raise --rate or --duration",
        )
    yield first
    yield from drawn


def _drawn(plan: Plan, mix: Mix) -> Iterator[Request]:
    lengths, picks = Random(f"{plan.seed}/lengths/0"), Random(f"{plan.seed}/classes/0")
    for index, (due, stream) in enumerate(_arrivals(plan, mix)):
        yield from stream.pick(picks).journey(lengths, due, index)


def _arrivals(plan: Plan, mix: Mix) -> Iterator[tuple[Seconds, Stream]]:
    """Yield when the journeys of an offline or open-loop plan begin, and of what."""
    if plan.rate is None:
        stream = whole_stream(mix)
        yield from ((0.0, stream) for _ in range(plan.offline or 0))
        return
    streams = mix.streams()
    yield from merge(
        *(_times(plan, stream, i) for i, stream in enumerate(streams)),
        key=lambda arrival: arrival[0],
    )


def _times(plan: Plan, stream: Stream, i: int) -> Iterator[tuple[Seconds, Stream]]:
    assert plan.rate is not None
    times = Arrivals.parse(plan.arrivals).times(
        plan.rate * stream.share,
        plan.duration_s,
        Random(f"{plan.seed}/arrivals" + (f"/{i}" if i else "")),
        Profile.parse(stream.course or plan.profile),
    )
    return ((due, stream) for due in times)


def journeys(
    plan: Plan, mix: Mix, rank: int = 0, workers: int = 1
) -> Iterator[Journey]:
    """Draw journeys without end; each worker of a closed loop has its own."""
    lengths = Random(f"{plan.seed}/lengths/{rank}")
    picks = Random(f"{plan.seed}/classes/{rank}")
    stream = whole_stream(mix)
    for index in count(rank, workers):
        yield stream.pick(picks).journey(lengths, 0.0, index)


def _from_trace(plan: Plan, rows: Iterable[TraceRow]) -> Iterator[Request]:
    limit = plan.max_tokens
    for i, row in enumerate(rows):
        due = row.at_s / plan.speedup
        if due >= plan.duration_s:
            return
        n_out = row.output_tokens
        yield Request(
            i, due, row.input_tokens, n_out if limit is None else min(n_out, limit),
            plan.scenario, max_output_tokens=limit, priority=row.priority,
            prefix=row.prefix, tenant=row.tenant, slice=row.slice,
        )  # fmt: skip


_HASHED: Final = Struct("<dqqqqqq")
"""Due time, input, output, declared maximum, priority, blocks of a prefix and their
size."""


def plan_hash(plan: Plan, requests: Iterable[Request]) -> str:
    """Hash what decides the load: traffic settings and schedule; not the target."""
    settings = plan.to_toml()
    for target in ("hosts", "model", "price", "vms", "trace", "tenants"):
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
        if r.conversation or r.messages:
            said = [(m.role, m.spans) for m in r.messages]
            rest = (r.conversation, r.turn, r.think_s, r.stage, r.slice, said)
            digest.update(json.dumps(rest).encode())
    return digest.hexdigest()
