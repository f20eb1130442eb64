"""Faults: what goes wrong, for whom, from when to when. A table, and a plan over it.

A fault strikes in one of three places. At the door a request gets an error instead of
an answer. On the wire its answer is computed as any other and what the client reads is
spoilt (`broken`). In the rack engines are lost or slowed (`outages`), whoever they
serve.

A request is struck by one fault at most: the first of the table that applies. Whether
one with a probability does is drawn from the server's seed, the fault's number and the
request's number, so a run with the same requests in the same order has the same faults.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import ceil, inf, isfinite
from random import Random
from typing import Any, Final, NamedTuple

from loadstone.errors import UsageError
from loadstone.units import Seconds, is_number, is_whole
from loadstone.wire.openai_error import ApiError

PATHS: Final = ("/chat/completions", "/completions", "/responses")
"""Of the endpoints that faults strike: those that generate text."""


class Place(Enum):
    """Where a fault strikes."""

    DOOR = "door"
    WIRE = "wire"
    RACK = "rack"


class Number(NamedTuple):
    """A parameter that is a number; without a default it must be given."""

    least: float
    most: float = inf
    default: float | None = None
    whole: bool = False

    def read(self, name: str, value: object) -> float:
        """Return the value; raises `UsageError`."""
        if (is_whole(value) or (is_number(value) and not self.whole)) and (
            isfinite(value) and self.least <= value <= self.most
        ):
            return value
        most = f" to {self.most:g}" if self.most < inf else " or more"
        what = "a whole number" if self.whole else "a number"
        raise UsageError(f"{name} must be {what}, {self.least:g}{most}: {value!r}")


class Choice(NamedTuple):
    """A parameter that is one of some words, the first by default."""

    words: tuple[str, ...]

    @property
    def default(self) -> str:
        """The word that is meant if none is given."""
        return self.words[0]

    def read(self, name: str, value: object) -> str:
        """Return the value; raises `UsageError`."""
        if not isinstance(value, str) or value not in self.words:
            raise UsageError(f"{name} must be {' or '.join(self.words)}: {value!r}")
        return value


Value = float | str


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to fail: where, what can be set, and which answers it can spoil."""

    place: Place
    fields: Mapping[str, Number | Choice] = field(default_factory=dict)
    bodies: bool = True
    """Whether answers in one body can have it; streams can have all."""


_AFTER: Final = Number(0, 1e9, default=2, whole=True)
"""Events that go out before it, the one with the role and [DONE] counted too."""
_VM: Final = Number(0, 1e6, default=0, whole=True)
_DELAY: Final = Number(0)
_FATE: Final = Choice(("retry", "fail", "migrate"))
"""Of the requests on a lost engine; `outages` says what the words mean."""

KINDS: Final[dict[str, Kind]] = {
    "error": Kind(Place.DOOR, {"status": Number(400, 599, 500, whole=True)}),
    "throttle": Kind(Place.DOOR, {"retry_after": Number(1, default=1, whole=True)}),
    "slow_first_token": Kind(Place.WIRE, {"delay": _DELAY}),
    "stall": Kind(Place.WIRE, {"delay": _DELAY, "after": _AFTER}, bodies=False),
    "truncate": Kind(Place.WIRE, {"after": _AFTER}),
    "reset": Kind(Place.WIRE, {"after": _AFTER}),
    "malformed_json": Kind(Place.WIRE, {"after": _AFTER}),
    "malformed_sse": Kind(Place.WIRE, {"after": _AFTER}, bodies=False),
    "buffer": Kind(Place.WIRE, bodies=False),
    "no_usage": Kind(Place.WIRE),
    "vm_lost": Kind(Place.RACK, {"vm": _VM, "requests": _FATE}),
    "gpu_lost": Kind(
        Place.RACK, {"engine": Number(0, 1e6, whole=True), "requests": _FATE}
    ),
    "cold_start": Kind(
        Place.RACK,
        {
            "vm": _VM,
            "load": _DELAY,
            "slowdown": Number(1, default=1.0),
            "requests": _FATE,
        },
    ),
    "power_cap": Kind(Place.RACK, {"vm": _VM, "slowdown": Number(1)}),
}
"""Every kind of fault there is, by its name."""

_ALWAYS: Final = ("kind", "from", "until")
_WHOM: Final = ("probability", "tenant", "path", "model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row of the table. Times are in seconds since the table took effect.

    `tenant`, `path` and `model` say whose requests it strikes; None: anybody's.
    """

    kind: str
    values: Mapping[str, Value]
    from_s: Seconds = 0.0
    until_s: Seconds = inf
    probability: float = 1.0
    tenant: str | None = None
    path: str | None = None
    model: str | None = None

    @property
    def place(self) -> Place:
        """Where it strikes."""
        return KINDS[self.kind].place

    def number(self, name: str) -> float:
        """Return a parameter that is a number."""
        return float(self.values[name])

    def fields(self) -> dict[str, Any]:
        """Return it as it may be written, without what says nothing."""
        own = {
            "from": self.from_s,
            "until": None if self.until_s == inf else self.until_s,
            "probability": self.probability if self.probability < 1 else None,
            "tenant": self.tenant,
            "path": self.path,
            "model": self.model,
        }
        said = {name: value for name, value in own.items() if value is not None}
        return {"kind": self.kind} | dict(self.values) | said


class FaultError(UsageError):
    """A row that cannot be; `key` is the field at fault, for those who know lines."""

    def __init__(self, key: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, code="bad_fault")
        self.key = key


def read_fault(row: Mapping[str, object]) -> Fault:
    """Read a row of the table; raises `FaultError` for what it cannot say."""
    kind = row.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise FaultError(
            "kind", f"no kind of fault {kind!r}", hint=f"one of {', '.join(KINDS)}"
        )
    form = KINDS[kind]
    known = (*_ALWAYS, *form.fields, *(() if form.place is Place.RACK else _WHOM))
    for key in row:
        if key not in known:
            raise FaultError(
                key, f"{kind} has no {key!r}", hint=f"it has {', '.join(known[1:])}"
            )
    values: dict[str, Value] = {}
    for name, parameter in form.fields.items():
        value = row.get(name, parameter.default)
        if value is None:
            raise FaultError("kind", f"{kind} needs {name!r}")
        values[name] = _read(parameter, name, value)
    fault = Fault(
        kind=kind,
        values=values,
        from_s=float(_read(Number(0), "from", row.get("from", 0.0))),
        until_s=float(_read(Number(0), "until", row["until"]))
        if "until" in row
        else inf,
        probability=float(
            _read(Number(0, 1), "probability", row.get("probability", 1.0))
        ),
        tenant=_word(row, "tenant"),
        path=_word(row, "path"),
        model=_word(row, "model"),
    )
    if fault.until_s <= fault.from_s:
        raise FaultError("until", f"until {fault.until_s:g} is not after its start")
    if kind == "cold_start" and fault.until_s < fault.from_s + fault.number("load"):
        raise FaultError("until", "until is before it has loaded")
    if fault.path is not None and fault.path not in PATHS:
        raise FaultError(
            "path", f"no faults on {fault.path!r}", hint=f"one of {', '.join(PATHS)}"
        )
    return fault


def parse_header(text: str) -> Fault:
    """Read what a request asks to be struck by, as `stall;after=3;delay=0.5`.

    Raises `FaultError`, also for a fault of the rack: those are nobody's own.
    """
    kind, *pairs = (part.strip() for part in text.split(";"))
    row: dict[str, object] = {"kind": kind}
    for pair in pairs:
        name, _, value = pair.partition("=")
        row[name.strip()] = _number(value.strip())
    fault = read_fault(row)
    spare = next((name for name in row if name in (*_ALWAYS[1:], *_WHOM)), None)
    if spare or fault.place is Place.RACK:
        raise FaultError(
            spare or "kind",
            f"a request cannot ask for {spare or kind!r}",
            hint="a header names a fault of the door or the wire and its parameters",
        )
    return fault


def _number(text: str) -> object:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _read(parameter: Number | Choice, name: str, value: object) -> Value:
    try:
        return parameter.read(name, value)
    except UsageError as bad:
        raise FaultError(name, bad.message) from None


def _word(row: Mapping[str, object], key: str) -> str | None:
    value = row.get(key)
    if value is not None and not (isinstance(value, str) and value):
        raise FaultError(key, f"{key} must be a word, not {value!r}")
    return value


class Facts(NamedTuple):
    """What a fault may look at to choose a request; `number` counts requests."""

    number: int
    path: str
    model: str
    tenant: str
    stream: bool


@dataclass(slots=True)
class Planned:
    """A fault that is in effect from `from_s` to `until_s`, in engine time."""

    number: int
    fault: Fault
    from_s: Seconds
    until_s: Seconds

    def applies(self, facts: Facts, now: Seconds) -> bool:
        """Say whether it may strike such a request now."""
        fault = self.fault
        return (
            self.from_s <= now < self.until_s
            and fault.tenant in (None, facts.tenant)
            and fault.path in (None, facts.path)
            and fault.model in (None, facts.model)
            and fits(fault, stream=facts.stream)
        )


def fits(fault: Fault, *, stream: bool) -> bool:
    """Say whether an answer of this form can be spoilt so."""
    kind = KINDS[fault.kind]
    return kind.place is not Place.RACK and (stream or kind.bodies)


class FaultPlan:
    """The faults in force, by number, and the dice."""

    def __init__(
        self, seed: int, *, tenants: Sequence[str] = (), models: Sequence[str] = ()
    ) -> None:
        """`tenants` and `models` are those that there are."""
        self._seed = seed
        self._known = {"tenant": tenants, "model": models}
        self._planned: dict[int, Planned] = {}
        self._last = 0

    def __repr__(self) -> str:
        return f"<FaultPlan {[p.fault.kind for p in self._planned.values()]}>"

    def __iter__(self) -> Iterator[Planned]:
        return iter(self._planned.values())

    def check(self, fault: Fault) -> None:
        """Raise `FaultError` for a fault that would strike nobody."""
        for key, asked in (("tenant", fault.tenant), ("model", fault.model)):
            known = self._known[key]
            if asked is not None and asked not in known:
                raise FaultError(
                    key,
                    f"there is no {key} {asked!r}",
                    hint=f"known: {', '.join(known)}",
                )

    def add(self, fault: Fault, now: Seconds) -> Planned:
        """Let a fault's times count from `now`."""
        self._last += 1
        planned = Planned(self._last, fault, now + fault.from_s, now + fault.until_s)
        self._planned[planned.number] = planned
        return planned

    def remove(self, number: int) -> Planned | None:
        """Take a fault out; None if there is none of that number."""
        return self._planned.pop(number, None)

    def strike(self, facts: Facts, now: Seconds) -> Planned | None:
        """Return the fault that strikes a request, None if it is spared."""
        for planned in self._planned.values():
            if planned.applies(facts, now) and self._falls(planned, facts.number):
                return planned
        return None

    def _falls(self, planned: Planned, request: int) -> bool:
        chance = planned.fault.probability
        if chance >= 1:
            return True
        dice = Random(f"{self._seed}/fault/{planned.number}/{request}")
        return dice.random() < chance


def refusal(fault: Fault, left_s: Seconds = inf) -> ApiError:
    """Return the error of a fault of the door; the storm lasts `left_s` longer.

    A throttled client is told to come back when the storm is over, where that is known.
    """
    if fault.kind == "throttle":
        wait = ceil(fault.number("retry_after") if left_s == inf else max(1.0, left_s))
        return ApiError(
            f"Rate limit reached (an injected fault). Please try again in {wait}s.",
            status=429,
            code="rate_limit_exceeded",
            kind="rate_limit_exceeded",
            retry_after_s=wait,
        )
    status = int(fault.number("status"))
    return ApiError(
        "The server failed on purpose (an injected fault).",
        status=status,
        code="injected_fault",
        kind="server_error" if status >= 500 else "invalid_request_error",
    )
