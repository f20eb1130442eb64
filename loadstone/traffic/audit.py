"""The accounts of a run: what was intended, what became of it, and who says so.

Each request that the plan intended ends in exactly one outcome, or was never sent and
is counted as dropped. The rows are the books; the plan, drawn again, says what must be
in them; the summary, the metrics, Locust's own statistics and the mock each counted
with other code and must agree with them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any, Final

from ..units import Seconds
from .accounts import Fate, Pulse, account
from .record import Outcome, RequestRecord
from .request import Request
from .served import Sent, Served, differences

NAMED: Final = 5
"""Of all that is wrong, so many are told in words; the rest is counted."""
_STAMP_S: Final[Seconds] = 2e-6
"""Stamps are written to the microsecond."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold: what was found against it; None: it could not be told.

    `why` says why it could not be told.
    """

    name: str
    holds: str
    found: tuple[str, ...] | None = ()
    wrong: int = 0
    why: str = ""

    @property
    def state(self) -> str:
        """`ok`, `wrong`, or `not_checked`."""
        if self.found is None:
            return "not_checked"
        return "wrong" if self.wrong else "ok"

    def to_json(self) -> dict[str, Any]:
        """Return the check as a JSON-ready object."""
        return {
            "check": self.name, "holds": self.holds, "state": self.state,
            "wrong": self.wrong, "found": list(self.found or ()), "why": self.why,
        }  # fmt: skip


class Findings:
    """What is wrong, the first few in words."""

    def __init__(self) -> None:
        self.count = 0
        self.told: list[str] = []

    def __repr__(self) -> str:
        return f"<Findings {self.count}>"

    def add(self, text: str) -> None:
        """Note one."""
        self.count += 1
        if len(self.told) < NAMED:
            self.told.append(text)

    def check(self, name: str, holds: str) -> Check:
        """Return them as a check's."""
        return Check(name, holds, tuple(self.told), self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """All there is of a run, besides its rows.

    `planned` are the requests of its plan drawn again, None where only the answers say
    what is asked next (closed loop); `why_not` says why else there are none. `metrics`
    are the values of its last exposition by name and outcome, see `metric_key`.
    """

    planned: Sequence[Request] | None = None
    why_not: str = ""
    duration_s: Seconds = inf
    """For so long arrivals came: a turn that would be due later is not owed."""
    pulses: Sequence[Pulse] = ()
    workers: int = 1
    hash_planned: str | None = None
    hash_drawn: str | None = None
    summary: Mapping[str, Any] | None = None
    metrics: Mapping[str, float] | None = None
    served: Served | str = "no server's counts were kept: it was not the mock"
    """What its servers counted, or why that is not known."""


def metric_key(name: str, outcome: str = "") -> str:
    """Return the key of a counter, summed over everything but the outcome."""
    return f"{name}/{outcome}" if outcome else name


def audit(rows: Iterable[RequestRecord], books: Books) -> list[Check]:
    """Check a run's accounts; one pass over its rows, and an entry for each is kept."""
    ledger = _Ledger(books.planned)
    for row in rows:
        ledger.add(row)
    return [
        *ledger.checks(books.why_not),
        _same_plan(books),
        _none_lost(ledger, books),
        _agrees(
            "summary", "summary.json counts what the rows say", books.summary,
            lambda summary: _of_summary(ledger, summary), "there is no summary.json",
        ),
        _agrees(
            "metrics", "metrics.prom counts what the rows say", books.metrics,
            lambda metrics: _of_metrics(ledger, metrics, books.summary or {}),
            "there is no metrics.prom",
        ),
        _agrees(
            "locust", "Locust's own statistics count what the rows say",
            _with_locust(books.summary),
            lambda instrument: _of_locust(ledger, instrument),
            "it says nothing of Locust",
        ),
        _as_served(ledger, books),
    ]  # fmt: skip


def _with_locust(summary: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    instrument: Mapping[str, Any] = (summary or {}).get("instrument", {})
    return instrument if "locust" in instrument else None


class _Ledger:
    """Counts rows, and crosses off what was planned."""

    def __init__(self, planned: Iterable[Request] | None) -> None:
        self.planned = None if planned is None else {r.id: r for r in planned}
        self.ended: dict[str, Seconds] = {}
        """When each request ended that has a row."""
        self.outcomes: Counter[str] = Counter()
        self.input = self.output = 0
        self.sent = Sent()
        self._twice, self._order = Findings(), Findings()
        self._unplanned, self._other = Findings(), Findings()

    def add(self, row: RequestRecord) -> None:
        if row.id in self.ended:
            self._twice.add(f"request {row.id} has two rows")
        elif self.planned is not None:
            self._compare(row, self.planned)
        self.ended[row.id] = row.end_s
        self.outcomes[row.outcome.value] += 1
        if row.ok:
            self.input += row.input_tokens
            self.output += row.output_tokens
        self.sent.add(row)
        for what in _out_of_order(row):
            self._order.add(f"request {row.id}: {what}")

    def _compare(self, row: RequestRecord, planned: Mapping[str, Request]) -> None:
        request = planned.get(row.id)
        if request is None:
            # A flow may ask more than its plan says, in the name of what it says.
            if row.id.partition("-")[0] not in planned:
                self._unplanned.add(f"request {row.id} is not in the plan")
            return
        asked = (row.asked_input_tokens, row.asked_output_tokens)
        # In virtual time a row says what was declared, where that is more.
        declared = request.max_output_tokens or request.output_tokens
        wanted = (request.input_tokens, request.output_tokens)
        may_be = (wanted, (request.input_tokens, declared))
        # A later turn is due when the answer before it says.
        if not request.turn and abs(row.intended_s - request.intended_s) > _STAMP_S:
            self._other.add(
                f"request {row.id} was due at {request.intended_s:.6f} s,"
                f" its row says {row.intended_s:.6f} s"
            )
        # What a flow asks is made of what it found.
        elif not request.flow and asked not in may_be:
            self._other.add(
                f"request {row.id} was to have {wanted[0]} and {wanted[1]} tokens,"
                f" its row says {asked[0]} and {asked[1]}"
            )

    def checks(self, why_not: str) -> Iterator[Check]:
        yield self._twice.check("one_outcome", "no request has two rows")
        yield self._order.check("in_order", "sent, first token, last token, end")
        name, holds = "as_planned", "each row is of a request that the plan intends"
        if self.planned is None:
            yield Check(name, holds, None, why=why_not)
            return
        self._unplanned.count += self._other.count
        self._unplanned.told = [*self._unplanned.told, *self._other.told][:NAMED]
        yield self._unplanned.check(name, holds)


def _out_of_order(row: RequestRecord) -> Iterator[str]:
    """Say which stamps cannot be, and what an answer must have and has not."""
    stamps = [
        ("intended", row.intended_s), ("sent", row.sent_s),
        ("first token", row.first_s), ("last token", row.last_s), ("end", row.end_s),
    ]  # fmt: skip
    known = [(name, at) for name, at in stamps if at is not None]
    for (before, early), (after, late) in pairwise(known):
        if late < early - _STAMP_S:
            yield f"{after} at {late:.6f} s, before {before} at {early:.6f} s"
    if row.outcome is Outcome.OK and row.error:
        yield f"ended ok with the error {row.error!r}"
    if row.outcome is Outcome.FAILED and not row.error:
        yield "failed without a word why"


def _same_plan(books: Books) -> Check:
    name, holds = "plan_hash", "the plan, drawn again, is the one that was run"
    if books.hash_drawn is None or books.hash_planned is None:
        return Check(name, holds, None, why=books.why_not or "plan.toml has no hash")
    findings = Findings()
    if books.hash_drawn != books.hash_planned:
        findings.add(
            f"plan.toml says {books.hash_planned[:12]}, drawn now it is"
            f" {books.hash_drawn[:12]}"
        )
    return findings.check(name, holds)


def _none_lost(ledger: _Ledger, books: Books) -> Check:
    name = "none_lost"
    holds = "what was planned has a row, or is counted as never sent"
    if books.planned is None:
        return Check(name, holds, None, why=books.why_not)
    fates = Counter[Fate]()
    lost: list[str] = []
    for request, _, fate in account(
        books.planned, ledger.ended, books.pulses,
        workers=books.workers, until=books.duration_s,
    ):  # fmt: skip
        fates[fate] += 1
        if fate in {Fate.DROPPED, Fate.UNKNOWN} and len(lost) < NAMED:
            lost.append(request.id)
    if books.summary is None:
        told = ", ".join(f"{n} {fate.value}" for fate, n in fates.items())
        return Check(name, holds, None, why=f"the run was killed: {told}")
    requests, findings = books.summary["requests"], Findings()
    missing = fates[Fate.DROPPED] + fates[Fate.UNKNOWN]
    known = requests["dropped"] + requests.get("unknown", 0)
    # One that was stopped owes nothing that was due later.
    if known > missing or (known < missing and books.summary.get("complete", True)):
        findings.add(
            f"{missing} planned requests have no row, the summary knows of {known}:"
            f" {', '.join(lost)}"
        )
    return findings.check(name, holds)


def _as_served(ledger: _Ledger, books: Books) -> Check:
    name, holds = "server", "the mock counts what the rows say"
    if isinstance(books.served, str):
        return Check(name, holds, None, why=books.served)
    if books.summary is None:
        return Check(name, holds, None, why="the run was killed, the server went on")
    findings = Findings()
    unknown = books.summary["requests"].get("unknown", 0)
    for text in differences(ledger.sent, books.served, unknown):
        findings.add(text)
    return findings.check(name, holds)


def _agrees(
    name: str,
    holds: str,
    other: Any,
    compare: Callable[[Any], Iterator[tuple[str, float, float | None]]],
    absent: str,
) -> Check:
    """Compare the rows' figures with another's; `compare` yields name and both."""
    if other is None:
        return Check(name, holds, None, why=absent)
    findings = Findings()
    for what, ours, theirs in compare(other):
        if theirs is not None and ours != theirs:
            findings.add(f"{what}: the rows have {ours:g}, it says {theirs:g}")
    return findings.check(name, holds)


_Pairs = Iterator[tuple[str, float, float | None]]


def _of_summary(ledger: _Ledger, summary: Mapping[str, Any]) -> _Pairs:
    requests, tokens = summary["requests"], summary["tokens"]
    yield "sent", ledger.outcomes.total(), requests["sent"]
    for outcome in Outcome:
        yield outcome.value, ledger.outcomes[outcome.value], requests[outcome.value]
    yield "input tokens", ledger.input, tokens["input"]
    yield "output tokens", ledger.output, tokens["output"]


def _of_metrics(
    ledger: _Ledger, metrics: Mapping[str, float], summary: Mapping[str, Any]
) -> _Pairs:
    for outcome in Outcome:
        key = metric_key("loadstone_requests_total", outcome.value)
        yield outcome.value, ledger.outcomes[outcome.value], metrics.get(key)
    for what, ours in (("input", ledger.input), ("output", ledger.output)):
        yield f"{what} tokens", ours, metrics.get(f"loadstone_{what}_tokens_total")
    scheduled = metrics.get("loadstone_requests_scheduled_total")
    dropped = metrics.get("loadstone_requests_dropped_total")
    if scheduled is not None and dropped is not None and ledger.planned is not None:
        unknown = summary.get("requests", {}).get("unknown", 0)
        sent = ledger.outcomes.total() + unknown
        yield "sent, or may have been", sent, scheduled - dropped


def _of_locust(ledger: _Ledger, instrument: Mapping[str, Any]) -> _Pairs:
    sent, locust = ledger.outcomes.total(), instrument["locust"]
    failed = sent - ledger.outcomes[Outcome.OK.value]
    workers = instrument.get("workers", {"expected": 1, "reported": 1})
    # NOTE: what a worker did between its last report and its death is in its rows only.
    lost = workers["reported"] < workers["expected"]
    for name, ours in (("requests", sent), ("failures", failed)):
        theirs = locust[name]
        yield name, ours, None if lost and theirs < ours else theirs
