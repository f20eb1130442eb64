"""The report as one page: it opens from a disk without a network, and prints.

There is no script in it and nothing to fetch: charts are inline SVG, styles are inline
and named by their hash in the page's policy (`Content-Security-Policy`), which forbids
everything else. Every value goes through Jinja's escaping or `escaping.escaped`.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import tomli_w
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..traffic.glossary import GLOSSARY, peers_text
from ..traffic.quantiles import QUANTILES
from . import figures
from .decision import interval
from .details import details
from .document import Document
from .escaping import shortened, visible, without_secrets
from .table import duration, number, usd

_STYLE: Final = "report.css"
_PAGE: Final = "report.html.j2"


def page(document: Document) -> bytes:
    """Return the page; the same document gives the same bytes."""
    pages = _pages()
    assert pages.loader is not None
    css, *_ = pages.loader.get_source(pages, _STYLE)
    text = pages.get_template(_PAGE).render(
        document=document,
        decision=document.decision,
        summary=document.summary,
        settings=document.plan.get("plan", {}),
        latencies=list(figures.table_of(document.summary)),
        quantiles=tuple(QUANTILES),
        over_time=list(figures.over_time(document)),
        heat=figures.heat(document),
        distributions=list(figures.distributions(document)),
        stages=figures.stage_waterfall(document),
        server=list(figures.server_charts(document)),
        pareto=figures.pareto(document),
        cost=document.summary.get("cost") or {},
        money=document.money,
        claim=document.claim,
        contract=document.contract,
        slices=document.summary.get("slices") or (),
        glossary=GLOSSARY,
        details=list(details(document.summary)),
        plan=tomli_w.dumps(document.plan),
        environment=json.dumps(document.environment, indent=2),
        style=Markup(css),  # noqa: S704 - ours, from the package
        policy=_policy(css),
    )
    return text.encode("utf-8")


def _policy(css: str) -> str:
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none';"
        " form-action 'none'"
    )


def _shown(value: Any) -> Any:
    """Write out, of every value that is shown, what would not be seen."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value


def _drawn(svg: str) -> Markup:
    """Let a chart through; `charts` has escaped every text in it."""
    return Markup(svg)  # noqa: S704 - drawn by us, its text escaped


@cache
def _pages() -> Environment:
    pages = Environment(
        loader=PackageLoader("loadstone.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters |= {
        "drawn": _drawn,
        "duration": duration,
        "number": number,
        "usd": usd,
        "shortened": shortened,
        "without_secrets": without_secrets,
        "load": _load,
        "count": _count,
        "interval": interval,
        "percent": _percent,
        "figure": _figure,
        "plain": _plain,
        "peers": peers_text,
    }
    return pages


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("usd", "USD").replace("gco2", "gCO2")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"


def _load(settings: Mapping[str, Any]) -> str:
    """Say a plan's load in words."""
    span = f"for {settings.get('duration_s', 0):g} s"
    if (offline := settings.get("offline")) is not None:
        return f"{offline:,} requests, all due at once"
    if settings.get("trace"):
        return f"a recorded trace, {settings.get('speedup', 1):g} times as fast, {span}"
    if (rate := settings.get("rate")) is not None:
        return f"{rate:g} requests per second, whatever the answers do, {span}"
    return f"{settings.get('users', 0):,} users in a closed loop, {span}"
