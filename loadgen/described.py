"""What a run found out about its endpoint, for the summary: pure, from its rows."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from loadstone.traffic.plan import Plan
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.serverside import Scrape, describe_server

from .diagnose import code_of_exchange
from .exchange import Exchange
from .findings import FINDINGS
from .probe import Target

_ENDED_BY_IT: Final = (Outcome.FAILED, Outcome.THROTTLED)


def describe_target(
    plan: Plan,
    target: Target,
    rows: Sequence[RequestRecord],
    scrapes: Sequence[Scrape],
    *,
    keyed: bool,
) -> dict[str, Any]:
    """Return the summary's `endpoint`, and its `server` where that was watched."""
    told = {"endpoint": describe_endpoint(plan, target, rows, keyed=keyed)}
    if scrapes:
        last = max((row.intended_s for row in rows), default=plan.duration_s)
        window = (plan.warmup_s, max(last, plan.warmup_s))
        told["server"] = describe_server(scrapes, rows, window)
    return told


def describe_endpoint(
    plan: Plan, target: Target, rows: Iterable[RequestRecord], *, keyed: bool
) -> dict[str, Any]:
    """Return the summary's `endpoint`: what a run found out about what it drove.

    `refused` are fields that were left out, `text` how much text made a token (None:
    the mock's own rule), `tokens_source` who counted how many answers, `retries` how
    often a request was sent again, `findings` what its failures mean. `keyed` says
    whether a key was shown.
    """
    sources: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    retries = 0
    for row in rows:
        retries += row.retries
        if row.ok:
            sources[row.tokens_source.value] += 1
        elif row.outcome in _ENDED_BY_IT and (code := _code_of(row, keyed=keyed)):
            codes[code] += 1
    return {
        "api": plan.api,
        "refused": list(plan.refused),
        "text": target.fit.to_json() if target.fit else None,
        "tokens_source": dict(sources),
        "retries": retries,
        "findings": [
            {
                "code": code,
                "requests": count,
                "cause": FINDINGS[code].cause,
                "remedy": FINDINGS[code].remedy,
            }
            for code, count in codes.most_common()
        ],
    }


def _code_of(row: RequestRecord, *, keyed: bool) -> str | None:
    exchange = Exchange(
        sent=row.sent_s, end=row.end_s, status=row.status, error=row.error,
        cause=row.error, retry_after_s=row.retry_after_s,
    )  # fmt: skip
    return code_of_exchange(exchange, keyed=keyed)
