"""`loadstone compare` on runs in virtual time: what it finds, says and exits with."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadstone.cli.main import main
from loadstone.report.comparison import bar, conditions, percent

LOAD = ("--rate", "20", "--duration", "90s", "--vms", "1")
Compare = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return run folders: one, another seed's, and the first one 5 % slower."""
    out = tmp_path_factory.mktemp("runs")
    made = {}
    for name, seed in (("one", "1"), ("other", "2"), ("third", "3")):
        with pytest.raises(SystemExit):
            main(["simulate", *LOAD, "--seed", seed, "--out", str(out), "--json"])
        made[name] = (out / "latest").resolve()
    made["slower"] = slowed(made["one"], out / "slower", 1.05)
    return made


def slowed(run: Path, to: Path, factor: float) -> Path:
    """Copy a run with every answer `factor` times as slow from when it was sent."""
    to.mkdir()
    for name in ("plan.toml", "environment.json", "summary.json"):
        (to / name).write_bytes((run / name).read_bytes())
    with (to / "requests.jsonl").open("w") as lines:
        for line in (run / "requests.jsonl").read_text().splitlines():
            row = json.loads(line)
            for stamp in ("first_s", "first_output_s", "last_s", "end_s"):
                row[stamp] = row["sent_s"] + factor * (row[stamp] - row["sent_s"])
            lines.write(json.dumps(row) + "\n")
    return to


@pytest.fixture
def compare(capsys: pytest.CaptureFixture[str]) -> Compare:
    """Return a function that runs the verb: its exit code and what it printed."""

    def run(*args: object) -> tuple[int, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(["compare", *map(str, args)])
        return int(left.value.code or 0), capsys.readouterr().out

    return run


def test_planted_five_per_cent_are_a_regression(
    runs: dict[str, Path], compare: Compare
) -> None:
    """Paired by schedule: every latency is 5 % more, and known to be."""
    code, out = compare(runs["one"], runs["slower"], "--json")
    told = json.loads(out)
    assert (code, told["paired"]) == (3, True)
    figures = {line["figure"]: line for line in told["figures"]}
    for name in ("ttft_s.p50", "tpot_s.p50", "e2e_s.p50", "response_time_s.p50"):
        assert figures[name]["relative"] == pytest.approx(0.05, abs=0.001)
        assert figures[name]["verdict"] == "worse"
        assert name in told["regressions"]
    assert told["conditions"] == []
    assert compare(runs["one"], runs["slower"], "--tolerance", "6%")[0] == 0
    assert compare(runs["slower"], runs["one"])[0] == 0


def test_runs_of_the_same_are_not_told_apart(
    runs: dict[str, Path], compare: Compare
) -> None:
    """Other seeds: not paired, and no difference is shown in any figure."""
    pairs = [("one", "other"), ("other", "third"), ("one", "third")]
    shown: list[str] = []
    for a, b in pairs:
        code, out = compare(runs[a], runs[b], "--json")
        told = json.loads(out)
        assert (code, told["paired"]) == (0, False)
        shown += [
            line["figure"] for line in told["figures"]
            if line["verdict"] != "no difference shown"
        ]  # fmt: skip
        assert [line["name"] for line in told["conditions"]] == ["plan.seed"]
    assert shown == []


def test_table_is_for_people(runs: dict[str, Path], compare: Compare) -> None:
    """Titles, both values, interval, bar; what differs, and what it comes to."""
    code, out = compare(runs["one"], runs["slower"])
    assert code == 3
    assert "the same schedule, paired by time" in out
    (line,) = (row for row in out.splitlines() if row.startswith(" TPOT p50"))
    assert "+5.0 %" in line
    assert line.rstrip().endswith("worse")
    assert "No other condition differs" in out
    assert "REGRESSION: B is worse by more than 2 %, with confidence: TTFT p50" in out
    code, out = compare(runs["one"], runs["other"])
    assert "different schedules, not paired" in out
    assert "plan.seed" in out
    assert "no regression: in no figure is B shown to be worse" in out


def edited(run: Path, to: Path, **changes: Any) -> Path:
    """Copy a run with another summary."""
    slowed(run, to, 1.0)
    summary = json.loads((run / "summary.json").read_text())
    for name, value in changes.items():
        summary[name] = value
    (to / "summary.json").write_text(json.dumps(summary))
    return to


def test_a_run_that_is_not_valid_is_said_and_the_code_is_4(
    runs: dict[str, Path], compare: Compare, tmp_path: Path
) -> None:
    """Before any regression; the figures are there all the same."""
    instrument = {"verdict": "client_limited", "reasons": ["the loop was late"]}
    late = edited(runs["slower"], tmp_path / "late", instrument=instrument)
    code, out = compare(runs["one"], late)
    assert code == 4
    assert "B is not valid: client_limited" in out
    assert "B is not valid: the loop was late" in out
    assert "TPOT p50" in out
    cut = edited(runs["one"], tmp_path / "cut", complete=False)
    assert "A is not valid: it was stopped early" in compare(cut, runs["one"])[1]
    (cut / "summary.json").unlink()
    code, out = compare(cut, runs["one"], "--json")
    told = json.loads(out)
    assert (code, told["b"]["invalid"]) == (4, [])
    assert told["a"]["invalid"] == ["it was ended before its summary was written"]
    assert told["left_out"]["usd_per_request"] == "A: no price"


def test_prices_are_taken_out(
    runs: dict[str, Path], compare: Compare, tmp_path: Path
) -> None:
    """B at twice the price costs twice as much, and the same at A's."""
    cost = json.loads((runs["one"] / "summary.json").read_text())["cost"]
    dear = edited(
        runs["one"], tmp_path / "dear", cost=cost | {"usd_total": 2 * cost["usd_total"]}
    )
    code, out = compare(runs["one"], dear, "--json")
    told = {line["figure"]: line for line in json.loads(out)["figures"]}
    assert code == 3
    assert told["usd_per_request"]["relative"] == pytest.approx(1.0)
    assert told["usd_per_request at A's price"]["relative"] == pytest.approx(0.0)
    # The figure is the summary's, but for ramp and drain.
    a = told["usd_per_million_output_tokens"]["a"]
    assert a == pytest.approx(cost["usd_per_million_output_tokens"], rel=0.15)


def test_goodput_is_compared_where_the_objectives_are_the_same(
    runs: dict[str, Path], compare: Compare, tmp_path: Path
) -> None:
    """They are in the summaries."""
    tpot = json.loads((runs["one"] / "summary.json").read_text())["tpot_s"]["p50"]
    limit = {"metric": "tpot_s", "stat": "p99", "max_s": tpot}
    one = edited(runs["one"], tmp_path / "a", slo=[limit])
    two = edited(runs["slower"], tmp_path / "b", slo=[limit])
    told = json.loads(compare(one, two, "--json")[1])
    (good,) = (f for f in told["figures"] if f["figure"] == "goodput_req_s")
    assert good["verdict"] == "worse"
    told = json.loads(compare(one, runs["slower"], "--json")[1])
    assert "goodput_req_s" not in {f["figure"] for f in told["figures"]}


@pytest.mark.parametrize("tolerance", ["x", "-1", "100", "nan%"])
def test_wrong_tolerance_is_refused(
    runs: dict[str, Path], compare: Compare, tolerance: str
) -> None:
    """With the value that was given."""
    run = runs["one"]
    code, out = compare(run, run, "--tolerance", tolerance, "--json")
    assert code == 2
    assert json.loads(out)["error"]["message"].startswith(f"--tolerance {tolerance}: ")


def test_what_is_no_run_is_refused(
    runs: dict[str, Path], compare: Compare, tmp_path: Path
) -> None:
    """A folder without a plan, and a run without rows."""
    assert compare(runs["one"], tmp_path)[0] == 2
    bare = slowed(runs["one"], tmp_path / "bare", 1.0)
    (bare / "requests.jsonl").unlink()
    code, out = compare(runs["one"], bare, "--json")
    assert code == 2
    assert json.loads(out)["error"]["hint"] == "a run with --no-rows leaves none"


def test_conditions_are_by_dotted_name() -> None:
    """Only what differs; what one does not have is None."""
    a = {"plan": {"rate": 1, "seed": 0}, "run": {"model": "x"}}
    b = {"plan": {"rate": 2, "seed": 0, "vms": 3}, "run": {"model": "x"}}
    assert conditions(a, b) == [("plan.rate", 1, 2), ("plan.vms", None, 3)]


def test_conditions_are_those_of_the_plans_on_disk(runs: dict[str, Path]) -> None:
    """What names a run, or where it is, is none."""
    plans = [
        tomllib.loads((runs[name] / "plan.toml").read_text())
        for name in ("one", "other")
    ]
    assert {name for name, *_ in conditions(*plans)} == {
        "plan_hash", "plan.seed", "options.seed",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("interval", "drawn"),
    [
        ((-1.0, 0.0, 1.0), "----------o----------"),
        ((0.0, 0.0, 0.0), "          o          "),
        ((0.5, 0.6, 1.0), "          |    -o----"),
        ((-0.3, -0.1, 0.1), "       --o|-         "),
        ((-5.0, 2.0, 5.0), "----------|---------o"),
    ],
)
def test_bar_by_hand(interval: tuple[float, float, float], drawn: str) -> None:
    """Ten characters to each side of no difference; what is beyond ends there."""
    assert bar(*interval, scale=1.0) == drawn
    assert bar(0.0, 0.0, 0.0, scale=0.0) == "          o          "


def test_differences_are_written_in_per_cent_or_as_a_factor() -> None:
    """Twice and more."""
    assert percent(0.0512) == "+5.1 %"
    assert percent(-0.5) == "-50.0 %"
    assert percent(1.0) == "x2"
    assert percent(99.0) == "x100"
