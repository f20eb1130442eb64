"""What a run means for whoever has to decide, in words that need no glossary.

Nothing is judged anew here: the verdict, the objectives and the cost are those of the
summary. What could make a reader believe more than was measured is a caveat, and every
caveat that applies is said.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..traffic.verdict import (
    MAX_LOOP_LAG_S,
    MAX_RECV_LAG_S,
    MAX_SEND_LAG_S,
    MAX_TTFT_ERROR_S,
    MIN_DELIVERED,
    MIN_SAMPLES,
    Verdict,
)
from .escaping import shortened
from .table import duration, number, usd

METRICS: Final = {
    "ttft_s": "time to first token, from sending",
    "ttft_intended_s": "time to first token, from when it was due",
    "ttfo_s": "time to first visible token, from sending",
    "tpot_s": "time per output token",
    "icl_s": "gap between pieces of an answer",
    "e2e_s": "whole answer, from sending",
    "response_time_s": "whole answer, from when it was due",
    "send_lag_s": "lateness of sending",
}
"""What a latency is, in plain words."""
_VERDICTS: Final[Mapping[str, str]] = {
    Verdict.OK: "The measuring side kept up: what is reported is the server.",
    Verdict.CLIENT_LIMITED: (
        "The measuring machine was a bottleneck itself. Latencies here are partly its"
        " own and must not be held against the server."
    ),
    Verdict.RATE_NOT_DELIVERED: (
        "The load that was asked for was not the load that was sent. Figures belong to"
        " a lighter, or later, load than the plan says."
    ),
    Verdict.TOO_FEW_SAMPLES: (
        "There are too few answers to speak of tails. Averages may serve as a hint, the"
        " slowest hundredth is not known."
    ),
}
_FEW_FAILURES: Final = 0.001


@dataclass(frozen=True, slots=True)
class Figure:
    """A number for the first page, its unit and what it is."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective and how it went; `met` is None where nothing was measured."""

    text: str
    limit: str
    value: str
    met: bool | None


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at to see whether the instrument can be believed."""

    text: str
    value: str
    limit: str
    passed: bool | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The first page."""

    status: str
    """`met`, `not_met`, `not_valid`, `incomplete` or `measured`."""
    headline: str
    figures: tuple[Figure, ...]
    objectives: tuple[Objective, ...]
    verdict: str
    validity: str
    checks: tuple[Check, ...]
    caveats: tuple[str, ...]


def decide(
    summary: Mapping[str, Any],
    *,
    plan: Mapping[str, Any],
    environment: Mapping[str, Any],
    complete: bool,
    rows: int,
) -> Decision:
    """Say what a summary means. Whatever an older run has not is left out."""
    instrument = summary.get("instrument", {})
    verdict = str(instrument.get("verdict", "unknown"))
    objectives = tuple(map(_objective, summary.get("slo", ())))
    status = _status(verdict, objectives, complete=complete)
    return Decision(
        status=status,
        headline=_headline(status, objectives),
        figures=tuple(_figures(summary)),
        objectives=objectives,
        verdict=verdict,
        validity=_VERDICTS.get(
            verdict, "The run left no verdict on itself: its instrument is not known."
        ),
        checks=tuple(_checks(summary)),
        caveats=tuple(
            _caveats(summary, plan, environment, complete=complete, rows=rows)
        ),
    )


def _status(verdict: str, objectives: tuple[Objective, ...], *, complete: bool) -> str:
    """Worst first: what was cut off, or cannot be believed, decides nothing."""
    if not complete:
        return "incomplete"
    if verdict != Verdict.OK:
        return "not_valid"
    if any(o.met is False for o in objectives):
        return "not_met"
    return "met" if any(o.met for o in objectives) else "measured"


def _headline(status: str, objectives: tuple[Objective, ...]) -> str:
    missed = [o for o in objectives if o.met is False]
    n = len(objectives)
    so_far = f"{n - len(missed)} of {n} objectives met" if n else "no objectives set"
    return {
        "incomplete": f"Incomplete: the run was cut short; {so_far} so far",
        "not_valid": f"Not a valid measurement; {so_far}",
        "not_met": (
            f"{len(missed)} of {n} objectives missed"
            if n > 1
            else "The objective was missed"
        ),
        "met": f"All {n} objectives met" if n > 1 else "The objective was met",
        "measured": "Measured; no objectives were set to judge by",
    }[status]


def _objective(slo: Mapping[str, Any]) -> Objective:
    stat, metric = str(slo["stat"]), str(slo["metric"])
    which = "on average" if stat == "mean" else f"for {stat[1:]} % of requests"
    met, value = slo["met"], slo["value_s"]
    broken = met is False and value is None
    return Objective(
        text=f"{METRICS.get(metric, metric)}, {which}",
        limit=duration(slo["max_s"]),
        value="not answered" if broken else duration(value),
        met=met,
    )


def _figures(summary: Mapping[str, Any]) -> Iterator[Figure]:
    rates, requests = summary["throughput"], summary["requests"]
    steady, whole = rates["steady_output_tok_s"], rates["output_tok_s"]
    yield Figure(
        "Output tokens per second",
        number(whole if steady is None else steady, 0),
        f"{number(whole, 0)} over the whole run, ramp and drain included",
    )
    for label, name in (
        ("Time to first token", "ttft_intended_s"),
        ("Time per output token", "tpot_s"),
    ):
        stats = summary[name]
        yield Figure(label, duration(stats["p50"]), f"typical; {_slowest(stats)}")
    cost = summary.get("cost", {})
    yield Figure(
        "Cost per request",
        usd(cost.get("usd_per_request")),
        f"{usd(cost.get('usd_per_million_output_tokens'))} per million output tokens"
        if cost.get("usd_per_request") is not None
        else "no price was given",
    )
    sent = requests["sent"] - requests["cancelled"]
    yield Figure(
        "Requests answered",
        f"{100 * requests['ok'] / sent:.4g} %" if sent else "-",
        f"{requests['ok']:,} of {sent:,}",
    )
    yield _rate(summary)


def _slowest(stats: Mapping[str, Any]) -> str:
    """Say a p99 in words, with how far it is known."""
    if stats["p99"] is None:
        return "too few answers to know the slowest hundredth"
    told = f"slowest hundredth {duration(stats['p99'])}"
    span = interval(stats, "p99")
    return f"{told} ({span})" if span else told


def interval(stats: Mapping[str, Any], name: str) -> str:
    """Write a statistic's 95 % interval, or nothing where there is none."""
    low, high = stats.get(f"{name}_interval") or (None, None)
    if low is None and high is None:
        return ""
    if high is None:
        return f"{duration(low)} or more"
    if low is None:
        return f"up to {duration(high)}"
    return f"{duration(low)} to {duration(high)}"


def _rate(summary: Mapping[str, Any]) -> Figure:
    rates, attained = summary["throughput"], summary.get("goodput")
    detail = "answered"
    if attained:
        low, high = (100 * (share or 0.0) for share in attained["share_interval"])
        detail += (
            f"; {100 * attained['share']:.3g} % of all met every objective"
            f" ({low:.3g} to {high:.3g} %)"
        )
    elif rates["goodput_req_s"] is not None:
        detail += f"; {number(rates['goodput_req_s'], 2)} within the objectives"
    return Figure("Requests per second", number(rates["req_s"], 2), detail)


def _checks(summary: Mapping[str, Any]) -> Iterator[Check]:
    instrument = summary.get("instrument", {})
    n = summary["ttft_s"]["n"]
    yield Check("answers measured", f"{n:,}", f"{MIN_SAMPLES}", n >= MIN_SAMPLES)
    scheduled, sent = instrument.get("scheduled"), summary["requests"]["sent"]
    if scheduled:
        share = sent / scheduled
        yield Check(
            "intended requests that were sent",
            f"{100 * share:.4g} %",
            f"{100 * MIN_DELIVERED:g} %",
            share >= MIN_DELIVERED,
        )
    lags = (
        ("requests sent late, slowest hundredth", summary["send_lag_s"],
         MAX_SEND_LAG_S if scheduled else None),
        ("our reading of the first token against the server's own stamp",
         instrument.get("ttft_error_s"), MAX_TTFT_ERROR_S),
        ("our event loop late, slowest hundredth", instrument.get("loop_lag_s"),
         MAX_LOOP_LAG_S),
        ("bytes waiting unread in our kernel, slowest hundredth",
         instrument.get("recv_lag_s"), MAX_RECV_LAG_S),
    )  # fmt: skip
    for text, stats, limit in lags:
        value = (stats or {}).get("p99")
        if value is not None and limit is not None:
            yield Check(text, duration(value), duration(limit), value <= limit)
    workers = instrument.get("workers")
    if workers and workers["expected"] > 1:
        yield Check(
            "load generators that reported",
            f"{workers['reported']}",
            f"{workers['expected']}",
            workers["reported"] == workers["expected"],
        )


def _caveats(
    summary: Mapping[str, Any],
    plan: Mapping[str, Any],
    environment: Mapping[str, Any],
    *,
    complete: bool,
    rows: int,
) -> Iterator[str]:
    """Say everything, the gravest first."""
    instrument = summary.get("instrument", {})
    if not complete:
        yield (
            "Incomplete: the run was ended before its end. The figures are those of"
            f" the {summary['requests']['sent']:,} requests on record; what was in"
            " flight when it was ended, and what was never sent, is not in them."
        )
    yield from map(_sentence, instrument.get("reasons", ()))
    yield from _emulated(instrument, environment)
    yield from _of_window(summary.get("window") or {})
    yield from _of_requests(summary, rows)
    if not summary.get("slo"):
        yield "No objectives were set: nothing here says whether this is good enough."
    for assumption in summary.get("cost", {}).get("assumptions", ()):
        yield f"Cost: {shortened(str(assumption), 300)}."
    if plan.get("plan", {}).get("ignore_eos"):
        yield (
            "Answers had set lengths (the server was told to ignore its own end of"
            " answer), so that runs can be compared."
        )
    yield from map(_sentence, instrument.get("notes", ()))


def _sentence(said: object) -> str:
    text = shortened(str(said), 400)
    return f"{text[:1].upper()}{text[1:]}."


def _of_window(window: Mapping[str, Any]) -> Iterator[str]:
    """Say where no part of the run was steady: its rate is then none to build on."""
    if window.get("start_s") is None and window.get("reason"):
        yield (
            f"No steady stretch was found: {shortened(str(window['reason']), 300)}. The"
            " rate of tokens is that of the middle of the run; one that lasts longer"
            " may settle elsewhere."
        )


def _of_requests(summary: Mapping[str, Any], rows: int) -> Iterator[str]:
    """Say what of the requests is not in the figures, or not here."""
    requests = summary["requests"]
    if not rows:
        yield "No rows are here: there are no charts over time and no distributions."
    elif rows != requests["sent"]:
        yield (
            f"The summary counts {requests['sent']:,} requests and {rows:,} rows are"
            " here: what is drawn shows those only."
        )
    unanswered = requests["sent"] - requests["ok"] - requests["cancelled"]
    if unanswered:
        share = unanswered / max(1, requests["sent"] - requests["cancelled"])
        weight = " Latencies are of the answered ones." if share > _FEW_FAILURES else ""
        yield f"{unanswered:,} requests ({share:.2%}) were not answered.{weight}"
    if requests.get("unknown"):
        yield (
            f"{requests['unknown']:,} requests have no row: they waited, were in flight"
            " or had just ended when the run was cut short."
        )
    if requests.get("dropped"):
        yield f"{requests['dropped']:,} intended requests were never sent."
    if requests.get("warmup"):
        yield (
            f"{requests['warmup']:,} requests of the warm-up are in the counts, not in"
            " the latencies."
        )
    if differs := summary.get("streams", {}).get("usage_differs"):
        yield (
            f"In {differs:,} answers the server billed another number of tokens than"
            " it sent pieces."
        )


def _emulated(
    instrument: Mapping[str, Any], environment: Mapping[str, Any]
) -> Iterator[str]:
    """Say in the first words what stood in for the server, if anything did."""
    mock = environment.get("mock")
    if instrument.get("virtual"):
        yield (
            "Simulated: requests met a model of the server in virtual time. No server,"
            " no network and no GPU was measured."
        )
    elif isinstance(mock, Mapping):
        slow = mock.get("slowdown", 1)
        yield (
            "Emulated: the server was loadstone's own mock of"
            f" {shortened(str(mock.get('preset')))}"
            f" ({mock.get('vms')} VM). Its timing is a model, no GPU was measured."
            + (f" It ran {slow:g} times slower than real." if slow != 1 else "")
        )
