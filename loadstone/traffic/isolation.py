"""What is left of a tenant's service when others come: isolation, fairness, goodput.

The victim is the tenant that asks first; its requests up to the others' first arrival
are `alone`, those from then on are `beside`. Isolation is the share of its requests
that meet every objective beside, over the same share alone: 1 if the others cost it
nothing.

Fairness is Jain's index, `(sum x)^2 / (n sum x^2)`, of what each tenant was served of
its max-min fair share: of the tokens that were served in all, every tenant gets what it
asks for as long as nobody who asks for more has less (Jain, Chiu and Hawe, 1984).
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, Final, NamedTuple

from ..units import Seconds, Tokens
from .intervals import Interval, share_interval
from .record import RequestRecord
from .slo import Slo, meets_all


class _Seen(NamedTuple):
    tenant: str
    due: Seconds
    end: Seconds
    good: bool
    asked: Tokens
    served: Tokens


class Isolation:
    """Folds the rows of a run with several tenants."""

    def __init__(self, slos: tuple[Slo, ...], until: Seconds) -> None:
        """`until` is when arrivals end."""
        self._slos = slos
        self._until: Final = until
        self._seen: list[_Seen] = []

    def __repr__(self) -> str:
        return f"<Isolation of {len(self._seen)} rows>"

    def add(self, row: RequestRecord) -> None:
        """Note a row; those of the warm-up are left out."""
        if row.warmup:
            return
        asked = row.asked_input_tokens + row.asked_output_tokens
        served = row.input_tokens + row.output_tokens if row.ok else 0
        good = meets_all(row, self._slos)
        self._seen.append(
            _Seen(row.tenant, row.intended_s, row.end_s, good, asked, served)
        )

    def summary(self) -> dict[str, Any] | None:
        """Return `isolation` of `summary.json`; None if nobody was ever alone."""
        seen = sorted(self._seen, key=lambda each: each.due)
        victim = seen[0].tenant if seen else ""
        others = [each.due for each in seen if each.tenant != victim]
        if not others:
            return None
        since = others[0]
        # What was still in flight when the others came was not alone to its end.
        alone = [e for e in seen if e.due < since and e.end <= since]
        beside = [e for e in seen if since <= e.due < self._until]
        own = [e for e in beside if e.tenant == victim]
        return {
            "victim": victim,
            "since_s": since,
            "alone": _attained(alone, since - (seen[0].due if alone else since)),
            "beside": _attained(own, self._until - since),
            **_score([e.good for e in own], [e.good for e in alone], self._slos),
            "fairness": fairness(
                _by_tenant(beside, "asked"),
                _by_tenant([e for e in beside if e.end <= self._until], "served"),
            ),
            "goodput_req_s": {
                tenant: sum(e.good for e in beside if e.tenant == tenant)
                / (self._until - since)
                for tenant in sorted({e.tenant for e in beside})
            },
        }


def _attained(seen: Sequence[_Seen], seconds: Seconds) -> dict[str, Any]:
    good = sum(each.good for each in seen)
    return {
        "requests": len(seen),
        "good": good,
        "share": good / len(seen) if seen else None,
        "goodput_req_s": good / seconds if seconds > 0 else None,
    }


def _score(
    beside: Sequence[int], alone: Sequence[int], slos: Sequence[Slo]
) -> dict[str, Any]:
    if not slos:
        return {"score": None, "absent": "the plan has no objectives to be good by"}
    if not beside or not any(alone):
        return {"score": None, "absent": "no request of the victim was good alone"}
    score, interval = ratio(beside, alone)
    return {"score": score, "score_interval": list(interval)}


def ratio(above: Sequence[int], below: Sequence[int]) -> tuple[float, Interval]:
    """Return the ratio of two shares of 0s and 1s, and its 95 % interval.

    By the method of variance estimates recovery from the intervals of the shares
    (Donner and Zou, 2012, Statistical Methods in Medical Research 21).
    """
    p, q = sum(above) / len(above), sum(below) / len(below)
    (l_p, u_p), (l_q, u_q) = share_interval(above), share_interval(below)
    assert None not in (l_p, u_p, l_q, u_q)
    return p / q, (_limit(p, q, l_p, u_q, -1.0), _limit(p, q, u_p, l_q, 1.0))


def _limit(
    p: float, q: float, of_p: float | None, of_q: float | None, sign: float
) -> float | None:
    """Return a limit of p / q from the limits of both that lie on its side."""
    assert of_p is not None
    assert of_q is not None
    below = of_q * (2 * q - of_q)
    if below <= 0:
        return 0.0 if sign < 0 else None
    inside = (p * q) ** 2 - of_p * (2 * p - of_p) * below
    return max(0.0, (p * q + sign * sqrt(max(0.0, inside))) / below)


def _by_tenant(seen: Sequence[_Seen], what: str) -> dict[str, Tokens]:
    found: dict[str, Tokens] = {}
    for each in seen:
        found[each.tenant] = found.get(each.tenant, 0) + getattr(each, what)
    return found


def fairness(asked: Mapping[str, Tokens], served: Mapping[str, Tokens]) -> float | None:
    """Return Jain's index of what each was served of its max-min fair share."""
    shares = max_min(asked, sum(served.values()))
    parts = [served.get(t, 0) / share for t, share in shares.items() if share > 0]
    if not any(parts):
        return None
    return sum(parts) ** 2 / (len(parts) * sum(part**2 for part in parts))


def max_min(asked: Mapping[str, Tokens], whole: float) -> dict[str, float]:
    """Divide so that nobody has less than another who is not content."""
    shares: dict[str, float] = {}
    left = float(whole)
    waiting = sorted(asked, key=lambda tenant: asked[tenant])
    for i, tenant in enumerate(waiting):
        shares[tenant] = min(asked[tenant], left / (len(waiting) - i))
        left -= shares[tenant]
    return shares


def isolation_of(
    rows: Sequence[RequestRecord], slos: tuple[Slo, ...], until: Seconds
) -> dict[str, Any] | None:
    """Fold rows at once; see `Isolation`."""
    fold = Isolation(slos, until)
    for row in rows:
        fold.add(row)
    return fold.summary()
