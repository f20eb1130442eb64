"""A run cut by scenario, tenant and stage: what each part asked for and got."""

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from ..units import Seconds, Tokens
from .answers import Answers
from .intervals import share_interval
from .record import Outcome, RequestRecord

KEYS: Final = ("scenario", "tenant", "stage")
LATENCIES: Final = ("ttft_s", "e2e_s")
LOST: Final = (Outcome.FAILED, Outcome.THROTTLED, Outcome.INCOMPLETE)
"""Outcomes of requests that an adjusted percentile counts as infinitely slow. What we
cancelled ourselves says nothing of the server."""


class Slice:
    """One part of a run."""

    def __init__(self, key: tuple[str, ...], number: int) -> None:
        self.key = key
        self.number = number
        self.lost = 0
        self._outcomes: Counter[Outcome] = Counter()
        self._output: Tokens = 0

    def __repr__(self) -> str:
        return f"<Slice {self.key}>"

    def add(self, row: RequestRecord, *, measured: bool) -> None:
        """Count a row; `measured` ones are those that percentiles are over."""
        self._outcomes[row.outcome] += 1
        self.lost += measured and row.outcome in LOST
        if row.ok:
            self._output += row.output_tokens

    def summary(self, answers: Answers, order: Sequence[int]) -> dict[str, Any]:
        """Return its line of `summary.json`, but for its attainment."""
        return {
            **dict(zip(KEYS, self.key, strict=True)),
            "requests": {
                "sent": self._outcomes.total(),
                **{outcome.value: self._outcomes[outcome] for outcome in Outcome},
            },
            "output_tokens": self._output,
            **answers.blocks(order, lost=self.lost, names=LATENCIES),
        }


class Slices:
    """All parts of a run, in the order in which their first rows came."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, ...], Slice] = {}

    def __repr__(self) -> str:
        return f"<Slices n={len(self._by_key)}>"

    def of(self, row: RequestRecord) -> Slice:
        """Return the part that a row belongs to."""
        key = row.scenario, row.tenant, row.stage
        found = self._by_key.get(key)
        if found is None:
            found = self._by_key[key] = Slice(key, len(self._by_key))
        return found

    def summary(
        self, answers: Answers, order: Sequence[int], met: "Attained"
    ) -> list[dict[str, Any]]:
        """Return the table, ordered by its keys."""
        orders, mets = answers.by_part(order), met.by_part()
        return [
            part.summary(answers, orders.get(part.number, ()))
            | {"goodput": attainment(mets.get(part.number, []))}
            for _, part in sorted(self._by_key.items())
        ]


class Attained:
    """Which of the judged requests met every objective: 13 bytes each."""

    def __init__(self) -> None:
        self._due, self._parts = array("d"), array("I")
        self._met = bytearray()

    def __repr__(self) -> str:
        return f"<Attained {sum(self._met)} of {len(self._met)}>"

    def add(self, due: Seconds, part: int, *, met: bool) -> None:
        """Note a request that is judged."""
        self._due.append(due)
        self._parts.append(part)
        self._met.append(met)

    def in_order(self) -> list[int]:
        """Return 0 or 1 of each request in the order in which they were due."""
        order = sorted(range(len(self._due)), key=self._due.__getitem__)
        return [self._met[i] for i in order]

    def by_part(self) -> dict[int, list[int]]:
        """Return the same of each slice, by its number."""
        parts: dict[int, list[int]] = {}
        for i in sorted(range(len(self._due)), key=self._due.__getitem__):
            parts.setdefault(self._parts[i], []).append(self._met[i])
        return parts


def attainment(met: Sequence[int], dropped: int = 0) -> dict[str, Any] | None:
    """Return how many met every objective, of those asked; None where nobody judged."""
    total = len(met) + dropped
    if not total:
        return None
    return {
        "met": sum(met),
        "of": total,
        "share": sum(met) / total,
        "share_interval": list(share_interval(met, dropped)),
    }
