"""What servers counted of a run's requests, held against its rows.

A server sees a request's end from its own side: one that the client gave up on may have
been answered, and one that never arrived is unknown to it. So each count has a least
and a most. Where every row is `ok` and nothing was sent twice they are the same.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, Self

from ..units import Tokens
from .record import Outcome, RequestRecord, TokensSource

_OK: Final = 200
_WENT_AWAY: Final = 499
"""What the mock counts where the client was gone before the end of its answer."""


@dataclass(frozen=True, slots=True)
class Served:
    """The counts of all servers of a run together."""

    statuses: Mapping[int, int]
    unfinished: int
    input_tokens: Tokens
    output_tokens: Tokens

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self | str:
        """Read `server_counts.json`; a text says why the counts are not the run's."""
        statuses: Counter[int] = Counter()
        sums = dict.fromkeys(("unfinished", "input_tokens", "output_tokens"), 0)
        for server in told["servers"]:
            before, after = server["before"], server["after"]
            why = _not_whole(before, after)
            if why:
                return f"{server['url']} {why}"
            statuses.update({int(s): n for s, n in after["statuses"].items()})
            for name in sums:
                sums[name] += after[name]
        return cls(statuses, **sums)


def _not_whole(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    for when, told in (("before the run", before), ("after the run", after)):
        if "server" not in told:
            return f"did not tell {when}: {told.get('error') or 'not the mock'}"
    if before["server"] != after["server"]:
        return "is another process than at the start: it was restarted"
    if before["forgotten"] != after["forgotten"]:
        return "let go of the counts of some runs: there were too many"
    return ""


@dataclass(slots=True)
class Sent:
    """What the rows say of what servers must have seen."""

    ok: int = 0
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    counted_there: bool = True
    """Whether all of those tokens are the server's own counts."""
    refused: Counter[int] = field(default_factory=Counter)
    """Rows that are not ok, by the status they were answered with."""
    repeats: int = 0
    """Attempts before the last: each had its answer."""
    unsure: int = 0
    """Those of which a server may know another end, or none at all."""
    given_up: int = 0
    """Those of them that we ended: what came before on their behalf is not known."""

    def add(self, row: RequestRecord) -> None:
        """Count a row."""
        self.repeats += row.retries
        # The first attempt may have arrived, whatever became of its connection.
        self.unsure += row.reconnects
        if row.outcome is Outcome.OK:
            self.ok += 1
            self.input_tokens += row.input_tokens
            self.output_tokens += row.output_tokens
            source = row.tokens_source
            self.counted_there &= source is TokensSource.USAGE
        elif row.status is None or row.status < 400:
            self.unsure += 1
            self.given_up += row.outcome in {Outcome.CANCELLED, Outcome.INCOMPLETE}
        else:
            self.refused[row.status] += 1


def differences(sent: Sent, served: Served, unknown: int) -> Iterator[str]:
    """Say which counts cannot be, with `unknown` requests sent that have no row."""
    unsure = sent.unsure + unknown
    seen = served.statuses
    repeats = inf if sent.given_up or unknown else sent.repeats
    bounds = [
        (f"answered with {_OK}", seen.get(_OK, 0), sent.ok, sent.ok + unsure),
        (
            "left by their client",
            seen.get(_WENT_AWAY, 0) + served.unfinished,
            0,
            unsure,
        ),
        *(
            (
                f"answered with {status}",
                seen.get(status, 0),
                sent.refused[status],
                sent.refused[status] + repeats + unsure,
            )
            for status in sorted({*seen, *sent.refused} - {_OK, _WENT_AWAY})
        ),
    ]
    refused = sum(n for status, n in seen.items() if status not in {_OK, _WENT_AWAY})
    least = sent.refused.total() + sent.repeats
    bounds.append(("refused in all", refused, least, least + repeats + unsure))
    for what, theirs, least, most in bounds:
        if not least <= theirs <= most:
            yield f"requests {what}: it has {theirs}, the rows {_span(least, most)}"
    yield from _tokens(sent, served)


def _tokens(sent: Sent, served: Served) -> Iterator[str]:
    if not sent.counted_there:
        return
    exact = served.statuses.get(_OK, 0) == sent.ok
    for what, theirs, ours in (
        ("input", served.input_tokens, sent.input_tokens),
        ("output", served.output_tokens, sent.output_tokens),
    ):
        if theirs < ours or (exact and theirs != ours):
            yield f"{what} tokens: it has {theirs}, the rows {ours}"


def _span(least: float, most: float) -> str:
    return f"{least:g}" if most == least else f"{least:g} to {most:g}"
