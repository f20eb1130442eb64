"""Our part of Locust's web UI: an LLM tab, its CSV, and a page with live charts.

Locust's extended tabs hold tables only, so the charts are on a page of our own, at
`/llm`. Nothing of Locust's front end is patched: its page is rendered from
`template_args`, which are extended, and its `/stats/requests` gets a field more.
"""

import csv
from collections.abc import Callable
from io import StringIO
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from ..coordinator import Run
from .guard import keep_other_sites_out
from .table import COLUMNS, KEYS, rows_of, shown

TAB: Final = "llm"
_LINKS: Final = (
    {"href": "./llm", "title": "LLM live charts"},
    {"href": "./llm/table.csv", "title": "Download LLM CSV"},
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def attach(
    web_ui: Any, run_of: Callable[[], Run | None], on_stop: Callable[[], None]
) -> None:
    """Add tab, CSV and page to `web_ui`, for the run that `run_of` returns.

    `on_stop` is called when somebody asks Locust to stop, whatever it is doing.
    """
    _extend_template(web_ui)
    app = web_ui.app
    keep_other_sites_out(app)
    pages = _pages(web_ui.auth_required_if_enabled, run_of)
    base = web_ui.environment.parsed_options.web_base_path
    app.register_blueprint(pages, url_prefix=base or None)

    @app.before_request
    def note_stop() -> None:
        if request.method == "POST" and request.path.endswith("/stop"):
            on_stop()

    @app.after_request
    def add_rows(response: Response) -> Response:
        if request.path.endswith("/stats/requests") and response.is_json:
            report = response.get_json()
            report["extended_stats"] = [{"key": TAB, "data": _cells(run_of())}]
            response.set_data(jsonify(report).get_data())
        return response


def _extend_template(web_ui: Any) -> None:
    """Have each rendering of Locust's page know the tab: `/` calls this every time."""
    update = web_ui.update_template_args

    def extended() -> None:
        update()
        structure = [{"key": c.key, "title": c.title} for c in COLUMNS]
        web_ui.template_args |= {
            "extended_tabs": [{"title": "LLM", "key": TAB}],
            "extended_tables": [{"key": TAB, "structure": structure}],
            "extended_csv_files": list(_LINKS),
        }

    web_ui.update_template_args = extended


def _cells(run: Run | None) -> list[dict[str, str]]:
    return [{c.key: shown(c, row) for c in COLUMNS} for row in rows_of(run)]


def _pages(guard: Any, run_of: Callable[[], Run | None]) -> Blueprint:
    pages = Blueprint(
        "llm", __name__, static_folder="static", static_url_path="/llm/static"
    )

    @pages.route("/llm")
    @guard
    def page() -> Response:
        return pages.send_static_file("llm.html")

    @pages.route("/llm/data")
    @guard
    def data() -> Response:
        run = run_of()
        return jsonify(
            {
                "run": run and run.folder.path.name,
                "columns": run.series.columns() if run else {},
                "titles": [[c.key, c.title] for c in COLUMNS],
                "rows": _cells(run),
                "verdict": run.verdict_now() if run else None,
            }
        )

    @pages.route("/llm/table.csv")
    @guard
    def table() -> Response:
        out = StringIO()
        writer = csv.writer(out)
        writer.writerow(KEYS)
        for row in rows_of(run_of()):
            writer.writerow([_harmless(row[key]) for key in KEYS])
        headers = {"Content-Disposition": "attachment; filename=llm.csv"}
        return Response(out.getvalue(), mimetype="text/csv", headers=headers)

    return pages


def _harmless(value: object) -> object:
    """Keep a spreadsheet from taking a name for a formula."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
