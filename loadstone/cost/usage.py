"""What was used: a fold over a run's rows that any price list can be laid over.

Requests that a price list treats alike (same slice, same fate, same kinds of tokens)
are summed up, so a bill costs the same for ten rows and for ten million. Of answered
requests the counts are kept too, 40 bytes each: percentiles need every one.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from ..traffic.record import RequestRecord, TokensSource
from ..traffic.slo import Slo, meets_all
from ..units import Seconds, Tokens

RETRIEVE = "retrieve"
"""The stage of a row that reads from storage."""


class Counts(NamedTuple):
    """What one request used; `input` holds the cached, `output` the reasoning ones."""

    input: Tokens
    cached: Tokens
    output: Tokens
    reasoning: Tokens
    wire_bytes: int
    """Of the answer, as read from the wire; 0 where nobody counted."""
    retrievals: int


class Kind(NamedTuple):
    """What a price list tells requests apart by."""

    scenario: str
    tenant: str
    stage: str
    answered: bool
    counted: bool
    """Whether anybody counted its tokens."""
    cached: bool
    reasoning: bool


@dataclass(slots=True)
class Sum:
    """Sums over the requests of a kind; fields as in `Counts`."""

    requests: int = 0
    good: int = 0
    """Of them those that kept every objective."""
    unweighed: int = 0
    """Of them those whose bytes nobody counted."""
    input: Tokens = 0
    cached: Tokens = 0
    output: Tokens = 0
    reasoning: Tokens = 0
    wire_bytes: int = 0
    retrievals: int = 0

    def add(self, counts: Counts, *, good: bool, beside: bool = False) -> None:
        """Count a request, or what one asked `beside` it and is a part of it."""
        self.requests += not beside
        self.good += good
        self.unweighed += not counts.wire_bytes
        self.input += counts.input
        self.cached += counts.cached
        self.output += counts.output
        self.reasoning += counts.reasoning
        self.wire_bytes += counts.wire_bytes
        self.retrievals += counts.retrievals


def counts_of(row: RequestRecord) -> Counts:
    """Return what a request used.

    One that failed amid its answer had its prompt prefilled and gave as many tokens as
    events came, whether or not a server lived to say so.
    """
    began = row.first_s is not None
    return Counts(
        row.input_tokens or (row.asked_input_tokens if began else 0),
        row.cached_tokens,
        row.output_tokens or (row.events if began else 0),
        row.reasoning_tokens,
        row.received_bytes,
        sum(name == RETRIEVE for name, _ in row.stages),
    )


def kind_of(row: RequestRecord, counts: Counts) -> Kind:
    """Return what a price list tells a request by."""
    return Kind(
        row.scenario,
        row.tenant,
        row.stage,
        row.ok,
        not row.ok or row.tokens_source is not TokensSource.NONE,
        counts.cached > 0,
        counts.reasoning > 0,
    )


class Usage:
    """Folds rows one by one, and lets go of them."""

    def __init__(self, slos: tuple[Slo, ...] = ()) -> None:
        self.sums: dict[Kind, Sum] = {}
        self.judged = bool(slos)
        self._slos = slos
        self._first, self._last = inf, -inf
        self._begun, self._ended = array("d"), array("d")
        self._columns = tuple(array(code) for code in "IIIIQI")
        self._counted = array("b")

    def __repr__(self) -> str:
        return f"<Usage of {len(self._begun)} requests, {len(self.sums)} kinds>"

    def add(self, row: RequestRecord) -> None:
        """Count a row."""
        counts = counts_of(row)
        kind = kind_of(row, counts)
        found = self.sums.get(kind)
        if found is None:
            found = self.sums[kind] = Sum()
        found.add(
            counts, good=self.judged and meets_all(row, self._slos), beside=row.beside
        )
        self._first = min(self._first, row.intended_s)
        self._last = max(self._last, row.end_s if row.last_s is None else row.last_s)
        self._begun.append(row.sent_s)
        self._ended.append(row.end_s)
        if row.ok and not row.warmup and not row.beside:
            for column, value in zip(self._columns, counts, strict=True):
                column.append(value)
            self._counted.append(kind.counted)

    def add_total(self, kind: Kind, found: Sum) -> None:
        """Count requests of which only the sum is known, once for each kind."""
        self.sums[kind] = found

    @property
    def window_s(self) -> Seconds:
        """First intended arrival to the last token, as a run's makespan."""
        return self._last - self._first if self._begun else 0.0

    def answers(self) -> Iterator[tuple[Counts, bool]]:
        """Yield the counts of each answer outside the warm-up; and whether it has any.

        "Any": somebody counted its tokens.
        """
        for *values, counted in zip(*self._columns, self._counted, strict=True):
            yield Counts(*values), bool(counted)

    def in_flight_s(self) -> Seconds:
        """Return for how long at least one request was in flight."""
        begun, ended = sorted(self._begun), sorted(self._ended)
        total, running, since, at = 0.0, 0, 0.0, 0
        for end in ended:
            # Who begins the moment another ends leaves no gap.
            while at < len(begun) and begun[at] <= end:
                if not running:
                    since = begun[at]
                running += 1
                at += 1
            running -= 1
            if not running:
                total += end - since
        return total

    def count(self, field: str, *, answered: bool | None = None) -> int:
        """Return the sum of a field of `Sum` over all kinds, or those of one fate."""
        return sum(
            getattr(found, field)
            for kind, found in self.sums.items()
            if answered is None or kind.answered is answered
        )
