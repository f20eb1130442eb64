"""The bill of a window: what was spent, on what, and who has to pay for it.

Machines are paid for by the second, busy or idle, so no request has a price of its own;
this is the rule by which each gets one. **Busy time is shared by work**: output tokens,
and input tokens that no cache had at the tariff's `prefill_weight`. A token then costs
the same whenever it was made, whoever asked: a request does not pay for having been
alone, nor save by having been crowded; the idle time that loneliness leaves is a line
of its own. What is priced by use (tokens of a price list, bytes, retrievals) is each
request's exactly. So

    bill = answered + failed + idle      to the cent, under any tariff

*Fully loaded* figures divide all of it by what was answered: idle time and failures are
paid for by the requests that were worth something.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ..traffic.record import RequestRecord
from ..units import GB, MILLION, Seconds, Usd
from .rates import Rates, rates_of, whole
from .terms import Tariff
from .usage import Counts, Sum, Usage, counts_of, kind_of

DEFAULT_PREFILL_WEIGHT: Final = 1.0
"""Where a tariff has none: every token alike."""

Amounts = Counts | Sum


@dataclass(frozen=True, slots=True)
class Busy:
    """For how much of the window the fleet was busy, in fleet-seconds; who says so."""

    seconds: Seconds
    source: str


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that was used and has no price, or that nobody measured."""

    what: str
    amount: float | None
    """None where nobody can tell."""
    unit: str
    why: str

    def __str__(self) -> str:
        much = "" if self.amount is None else f" of {self.amount:,.0f} {self.unit}"
        return f"{self.what}{much} is not reckoned: {self.why}"


@dataclass(frozen=True, slots=True)
class Pricing:
    """A tariff laid over a usage: knows what any request of it cost.

    `usd_per_work` is what a unit of work takes of the busy time's bill.
    """

    tariff: Tariff
    usd_per_work: Usd

    def work(self, used: Amounts) -> float:
        """Return the machine time that requests took, in output tokens' worth."""
        weight = self.tariff.value("prefill_weight")
        weight = DEFAULT_PREFILL_WEIGHT if weight is None else weight
        return used.output + weight * max(0, used.input - used.cached)

    def priced(self, used: Amounts, *, counted: bool) -> bool:
        """Whether all that a request used has a price, and somebody counted it."""
        return self.tariff.by_time or (
            counted
            and (not used.cached or self._has("cached"))
            and (not used.reasoning or self._has("reasoning"))
        )

    def usd(self, used: Amounts) -> Usd:
        """Return what requests that are `priced` cost, idle time left out."""
        return self.usd_per_work * self.work(used) + sum(self.by_use(used).values())

    def usd_of(self, row: RequestRecord) -> Usd | None:
        """Return what one request cost; None where something it used has no price."""
        counts = counts_of(row)
        counted = kind_of(row, counts).counted
        return self.usd(counts) if self.priced(counts, counted=counted) else None

    def by_use(self, used: Amounts) -> dict[str, Usd]:
        """Return what is priced by use, by what it was for; only what has a price."""
        amounts = {
            "egress": (used.wire_bytes / GB, "usd_per_gb_egress"),
            "retrieval": (used.retrievals / MILLION, "usd_per_million_retrievals"),
        }
        if not self.tariff.by_time:
            tokens = {
                "input": used.input - used.cached,
                "cached": used.cached,
                "output": used.output - used.reasoning,
                "reasoning": used.reasoning,
            }
            amounts |= {
                side: (n / MILLION, f"usd_per_million_{side}_tokens")
                for side, n in tokens.items()
            }
        return {
            name: amount * self.tariff[term]
            for name, (amount, term) in amounts.items()
            if amount and term in self.tariff.facts
        }

    def _has(self, side: str) -> bool:
        return f"usd_per_million_{side}_tokens" in self.tariff.facts


@dataclass(frozen=True, slots=True)
class Bill:
    """What a window cost; `answered`, `failed` and `idle` add up to it, as `parts`."""

    window_s: Seconds
    busy: Busy
    pricing: Pricing
    rates: Mapping[str, Rates]
    answered: Usd
    failed: Usd
    idle: Usd
    parts: Mapping[str, Usd]
    missing: tuple[Missing, ...]
    unpriced: int
    """Requests that are in no figure: something they used has no price."""

    @property
    def total(self) -> Usd:
        """All of it."""
        return self.answered + self.failed + self.idle


def bill_of(
    usage: Usage, tariff: Tariff, *, vms: float, window_s: Seconds, busy: Busy
) -> Bill:
    """Reckon what a window of a fleet cost and share it out."""
    rates = rates_of(tariff, vms)
    busy = Busy(min(max(busy.seconds, 0.0), window_s), busy.source)
    pricing = Pricing(tariff, 0.0)
    work = sum(pricing.work(found) for found in usage.sums.values())
    if not work:
        # Nobody took the time that something was in flight, so it was idle.
        busy = Busy(0.0, busy.source)
    together, idle_s = whole(rates), window_s - busy.seconds
    if work:
        pricing = Pricing(tariff, together.total(busy.seconds, 0.0) / work)
    spent = {True: 0.0, False: 0.0}
    parts = {name: rate.total(busy.seconds, idle_s) for name, rate in rates.items()}
    unpriced = 0
    for kind, found in usage.sums.items():
        if not pricing.priced(found, counted=kind.counted):
            unpriced += found.requests
            continue
        spent[kind.answered] += pricing.usd(found)
        for name, usd in pricing.by_use(found).items():
            parts[name] = parts.get(name, 0.0) + usd
    return Bill(
        window_s=window_s,
        busy=busy,
        pricing=pricing,
        rates=rates,
        answered=spent[True],
        failed=spent[False],
        idle=together.total(0.0, idle_s),
        parts=parts,
        missing=tuple(_missing(usage, pricing)),
        unpriced=unpriced,
    )


def _missing(usage: Usage, pricing: Pricing) -> Iterator[Missing]:
    tariff = pricing.tariff
    if not tariff.by_time:
        uncounted = sum(s.requests for k, s in usage.sums.items() if not k.counted)
        if uncounted:
            yield Missing("tokens", uncounted, "requests", "nobody counted theirs")
        for side in ("cached", "reasoning"):
            term = f"usd_per_million_{side}_tokens"
            if (tokens := usage.count(side)) and term not in tariff.facts:
                yield Missing(f"{side} tokens", tokens, "tokens", _no(term))
    sent, received = usage.count("requests"), usage.count("wire_bytes")
    unweighed = usage.count("unweighed", answered=True)
    if "usd_per_gb_egress" not in tariff.facts:
        if received:
            yield Missing("egress", received, "bytes", _no("usd_per_gb_egress"))
        elif sent:
            yield Missing("egress", sent, "requests", "no bytes counted, and no price")
    elif unweighed:
        why = "the bytes of their answers were not counted"
        yield Missing("egress", unweighed, "requests", why)
    retrievals = usage.count("retrievals")
    if retrievals and "usd_per_million_retrievals" not in tariff.facts:
        why = _no("usd_per_million_retrievals")
        yield Missing("retrieval", retrievals, "retrievals", why)


def _no(term: str) -> str:
    return f"the price list has no {term}"
