"""The report in Markdown: the decision, the tables and no charts, for a ticket."""

from collections.abc import Iterable, Iterator, Sequence

from ..traffic.quantiles import QUANTILES
from .document import Document
from .escaping import markdown, without_secrets
from .figures import table_of
from .table import duration

_MET = {True: "met", False: "**missed**", None: "-"}


def text(document: Document) -> str:
    """Return the report as Markdown; every value in it is escaped."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Document) -> Iterator[str]:
    decision, summary = document.decision, document.summary
    model, scenario = summary.get("model"), summary.get("scenario")
    yield f"# {markdown(model)}, {markdown(scenario)} traffic"
    yield ""
    yield f"**{markdown(decision.headline)}.**"
    host = without_secrets(str(summary.get("host") or ""))
    yield f"Run {markdown(document.name)}" + (
        f" against {markdown(host)}." if host else "."
    )
    yield ""
    yield from _table(
        ("Figure", "", ""),
        [(f.label, f.value, f.detail) for f in decision.figures],
    )
    if decision.objectives:
        yield "## Objectives\n"
        yield from _table(
            ("What was to be kept", "limit", "measured", ""),
            [(o.text, o.limit, o.value, _MET[o.met]) for o in decision.objectives],
        )
    yield "## Can these figures be believed?\n"
    yield f"{markdown(decision.validity)}\n"
    yield from _table(
        ("Checked", "found", "limit", ""),
        [(c.text, c.value, c.limit, _MET[c.passed]) for c in decision.checks],
    )
    yield "## Read this before you rely on it\n"
    yield from (f"- {markdown(caveat)}" for caveat in decision.caveats)
    yield ""
    yield "## Latencies\n"
    names = ("mean", *QUANTILES)
    yield from _table(
        ("Latency", *names, "requests"),
        [
            (words, *(duration(stats.get(n)) for n in names), f"{stats['n']:,}")
            for words, stats in table_of(summary)
        ],
    )
    yield "## Requests\n"
    yield from _table(("", ""), [(k, f"{n:,}") for k, n in summary["requests"].items()])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(c if c in _MET.values() else markdown(c) for c in row)} |"
    yield ""
