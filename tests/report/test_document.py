"""What a report is made of: whole runs, killed ones, broken ones."""

import csv
import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from run_folders import made_up

from loadstone.cli.main import main
from loadstone.errors import UsageError
from loadstone.report.document import gather
from loadstone.report.html import page
from loadstone.report.rows_csv import COLUMNS, DERIVED
from loadstone.report.written import rendered
from loadstone.runs import RunFiles


@pytest.fixture
def copy(run_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the run, to be spoilt."""
    return made_up(Path(shutil.copytree(run_folder, tmp_path / "run")))


def as_if_live(folder: Path) -> None:
    """Let a run in virtual time have had an endpoint; its schedule is the same."""
    plan = (folder / "plan.toml").read_text()
    assert "hosts = []" in plan
    live = plan.replace("hosts = []", 'hosts = ["http://127.0.0.1:1"]')
    (folder / "plan.toml").write_text(live)


def test_a_killed_run_is_reported_from_its_rows(copy: Path) -> None:
    """Every whole row is counted once, the half one not at all, and it is said."""
    rows = (copy / "requests.jsonl").read_text().splitlines(keepends=True)
    (copy / "requests.jsonl").write_text("".join(rows[:100]) + rows[100][:40])
    (copy / "summary.json").unlink()
    as_if_live(copy)
    document = gather(RunFiles.open(copy))
    assert not document.complete
    assert document.rows == document.summary["requests"]["sent"] == 100
    assert document.decision.status == "incomplete"
    said = page(document).decode()
    assert "Incomplete: the run was cut short" in said
    assert "100 requests on record" in said
    requests = document.summary["requests"]
    assert requests["dropped"] + requests.get("unknown", 0) == len(rows) - 100


def test_a_killed_run_whose_plan_is_gone_is_summed_up_alone(copy: Path) -> None:
    """Then what was planned is not known, which is said."""
    (copy / "summary.json").unlink()
    as_if_live(copy)
    plan = (copy / "plan.toml").read_text()
    (copy / "plan.toml").write_text(plan.replace("seed = 0", "seed = 1", 1))
    document = gather(RunFiles.open(copy))
    assert not document.complete
    assert document.summary["requests"]["sent"] == document.rows > 100
    caveats = document.decision.caveats
    assert any("draws another schedule" in caveat for caveat in caveats)


def test_workers_rows_are_read_together(copy: Path) -> None:
    """Two files give what one gives."""
    whole = gather(RunFiles.open(copy))
    lines = (copy / "requests.jsonl").read_text().splitlines(keepends=True)
    (copy / "requests.jsonl").unlink()
    (copy / "requests.0.jsonl").write_text("".join(lines[::2]))
    (copy / "requests.1.jsonl").write_text("".join(lines[1::2]))
    split = gather(RunFiles.open(copy))
    assert split.rows == whole.rows
    assert split.distributions == whole.distributions


def test_rows_that_are_elsewhere_are_told(copy: Path) -> None:
    """A summary over more than is here says so; without rows there are no charts."""
    lines = (copy / "requests.jsonl").read_text().splitlines(keepends=True)
    (copy / "requests.jsonl").write_text("".join(lines[:10]))
    caveats = gather(RunFiles.open(copy)).decision.caveats
    assert any("10 rows are here" in caveat for caveat in caveats)
    (copy / "requests.jsonl").unlink()
    document = gather(RunFiles.open(copy))
    assert any("No rows are here" in caveat for caveat in document.decision.caveats)
    assert "<svg" not in page(document).decode()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("summary.json", "{}", r"summary\.json is not what .*requests"),
        ("summary.json", '{"requests": 3}', r"\$\.requests"),
        ("plan.toml", "[plan]\nduration_s = 'x'\n", r"plan\.toml is not .*duration_s"),
        ("sweep.json", "[]", r"sweep\.json is not a JSON object"),
        ("server_metrics.jsonl", '{"t": 1}\n', "line 1 is not a scrape"),
        ("requests.jsonl", '{"id": 3}\n', "line 1 is not a row"),
    ],
)
def test_what_is_broken_is_named(copy: Path, name: str, text: str, told: str) -> None:
    """By file, and by key or line; never a traceback."""
    (copy / name).write_text(text)
    with pytest.raises(UsageError, match=told):
        b"".join(rendered(RunFiles.open(copy), "html"))


def test_a_run_without_any_answer_is_a_report_too(copy: Path) -> None:
    """Nothing to divide by anywhere, and everything that failed is told."""
    rows = [
        row | {"outcome": "failed", "error": "connection refused"}
        for line in (copy / "requests.jsonl").read_text().splitlines()
        for row in [json.loads(line)]
    ]
    for row in rows:
        for name in ("first_s", "last_s", "first_output_s", "truth", "output_tokens"):
            row.pop(name, None)
    (copy / "requests.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (copy / "summary.json").unlink()
    document = gather(RunFiles.open(copy))
    said = page(document).decode()
    assert "connection refused" in said
    assert f"{len(rows):,} requests (100.00%) were not answered" in said
    assert 'data-chart="errors"' in said
    assert 'data-chart="cdf_ttft_s"' not in said


def test_an_older_run_lacks_much(copy: Path) -> None:
    """Without notes, streams, cost or instrument there is a report still."""
    summary = json.loads((copy / "summary.json").read_text())
    for key in ("instrument", "cost", "streams", "host", "plan_hash"):
        summary.pop(key)
    (copy / "summary.json").write_text(json.dumps(summary))
    (copy / "environment.json").unlink()
    document = gather(RunFiles.open(copy))
    assert document.decision.verdict == "unknown"
    assert b"</html>" in page(document)


def test_the_csv_has_a_line_for_each_row_and_its_figures(run_folder: Path) -> None:
    """Read back, stamps give the figures beside them."""
    text = b"".join(rendered(RunFiles.open(run_folder), "csv")).decode()
    rows = list(csv.DictReader(StringIO(text)))
    assert len(rows) == gather(RunFiles.open(run_folder)).rows > 100
    assert set(rows[0]) == {*COLUMNS, *DERIVED, "stages"}
    for row in rows:
        ttft = float(row["first_s"]) - float(row["sent_s"])
        assert float(row["ttft_s"]) == pytest.approx(ttft, abs=2e-6)


def test_the_json_has_what_the_page_has(run_folder: Path) -> None:
    """One document, with the summary as it was and the series."""
    document = json.loads(b"".join(rendered(RunFiles.open(run_folder), "json")))
    assert document["summary"] == json.loads((run_folder / "summary.json").read_text())
    assert document["decision"]["status"] == "not_met"
    sent = sum(each["sent"] for each in document["over_time"])
    assert sent == document["rows"] == document["summary"]["requests"]["sent"]


def test_the_verb_writes_each_format_and_says_where(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into the folder, to a file, to stdout; a wrong folder is wrong usage."""

    def ran(*args: str) -> int:
        with pytest.raises(SystemExit) as left:
            main(["report", *args])
        return int(left.value.code or 0)

    out = tmp_path / "r.md"
    assert ran(str(run_folder), "--format", "md", "--out", str(out), "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(out), "format": "md"}
    assert "1 of 2 objectives missed" in out.read_text()
    assert ran(str(run_folder), "--format", "json", "--out", "-") == 0
    assert json.loads(capsys.readouterr().out)["run"] == run_folder.name
    assert ran(str(tmp_path), "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"
    assert ran(str(run_folder), "--out", str(tmp_path / "no" / "x.html")) == 1
    assert "cannot write" in capsys.readouterr().err


def test_a_run_ends_with_its_report(run_folder: Path) -> None:
    """`simulate` left the page in the folder, the very bytes that are made again."""
    kept = (run_folder / "report.html").read_bytes()
    assert kept == b"".join(rendered(RunFiles.open(run_folder), "html"))
