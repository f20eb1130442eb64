"""Limits on what a run may spend, and how far it may go beyond them.

A limit closes the arrivals: no request is begun any more, those in flight end by
themselves or with the drain. The number of requests is exact, since each process has
its share of it. Tokens count from when they are asked for, so a run goes beyond by what
it sends until the totals are looked at, and by answers that are longer than asked. Rent
goes on while answers drain; a price by the token is as tokens are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from loadstone.units import Seconds

LOOK_S: Final[Seconds] = 0.1
"""How often a process looks at its own totals."""
_NAMES: Final = ("usd", "requests", "tokens")


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits by name (`usd`, `requests`, `tokens`); those not set are not there."""

    limits: Mapping[str, float]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Budget":
        """Read the options `--max-usd`, `--max-requests` and `--max-tokens`."""
        given = {name: values[f"max_{name}"] for name in _NAMES}
        return cls({name: limit for name, limit in given.items() if limit is not None})

    def reached(self, spent: Mapping[str, float]) -> str | None:
        """Return the option whose limit is reached, None if none is."""
        for name, limit in self.limits.items():
            if spent[name] >= limit:
                return f"max_{name}"
        return None

    def share_of_requests(self, rank: int, workers: int) -> int | None:
        """Return how many requests a process may send; over all ranks it is the limit.

        None where there is no limit.
        """
        if "requests" not in self.limits:
            return None
        whole, rest = divmod(int(self.limits["requests"]), workers)
        return whole + (rank < rest)

    def summary(
        self, spent: Mapping[str, float], workers: int, report_s: Seconds
    ) -> dict[str, Any]:
        """Return what the summary says; `report_s` is how often workers report."""
        late = LOOK_S if workers == 1 else LOOK_S + report_s
        stopped_by = self.reached(spent)
        return {
            "limits": dict(self.limits),
            "spent": {name: spent[name] for name in self.limits},
            "stopped_by": stopped_by,
            "overshoot": f"requests: none; tokens: what is sent within {late:g} s; usd:"
            " the same, and the rent of the drain",
        }
