"""`loadstone validate`: published figures point by point; a document that is true."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from loadstone.calibration.constants_file import constants_text, fit_of, pairs_of
from loadstone.calibration.fitting import Laws, fit
from loadstone.calibration.runs import Run as ModelledRun
from loadstone.calibration.runs import runs_of
from loadstone.calibration.simulation import Ttft, simulate_ttft
from loadstone.calibration.targets import judged_targets
from loadstone.calibration.validation import Validation, leave_out, untold, weigh
from loadstone.catalog.laws import constants_of, load_constants
from loadstone.catalog.points import load_points
from loadstone.cli import validate as verb
from loadstone.cli.main import main
from loadstone.cli.validate import held, machines
from loadstone.errors import CatalogError
from loadstone.physics.steplaw import StepLaw
from loadstone.report.calibration import (
    DOCUMENT,
    FIRST_TOKENS,
    LEFT_OUT,
    PREDICTED,
    document,
    plots,
)

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]
AS_COMMITTED = held(load_constants())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs the verb and returns exit code and outputs.

    What the catalog's constants give is computed once for all tests.
    """
    monkeypatch.setattr(verb, "held", lambda _: AS_COMMITTED)

    def call(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["validate", *args])
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return call


def test_primary_set_point_by_point(run: Run) -> None:
    """Each with error and interval; the exit code is that of the targets."""
    code, out, _ = run("--json")
    found = json.loads(out)
    met = [target["met"] for target in found["targets"]]
    assert code == (0 if all(met) else 3)
    assert found["points"] / found["constants"] >= 4
    rows = found["rows"]
    assert len(rows) == len(AS_COMMITTED.primary) + len(AS_COMMITTED.primary_outliers)
    for row in rows:
        assert row["error"] == pytest.approx(row["predicted"] / row["published"] - 1)
        assert row["low"] < row["predicted"] < row["high"]
        assert row["status"] in ("fitted", "outlier")


def test_table_says_constants_and_points(run: Run) -> None:
    """How many constants on how many points, and whether each target is met."""
    _, out, _ = run()
    fitted = AS_COMMITTED.fit
    said = f"fitted {len(fitted.constants)} constants on {len(fitted.runs)} points"
    assert said in out
    assert "points per constant" in out
    for target in judged_targets(AS_COMMITTED):
        assert f"{'met' if target.met else 'NOT MET'}: {target.name}" in out


def test_wider_sets(run: Run) -> None:
    """`wide` has all that are modelled, `all` the others too, with the reason."""
    wide, everything = (
        json.loads(run("--set", name, "--json")[1]) for name in ("wide", "all")
    )
    assert len(wide["rows"]) == wide["points"]
    assert wide["not_judged"] == {}
    refused = everything["not_judged"]
    assert len(everything["rows"]) + len(refused) == len(load_points())
    assert all(refused.values())
    _, out, _ = run("--set", "all")
    assert "not judged: " in out


def test_what_is_left_out_is_named(run: Run) -> None:
    """Neither accelerator nor model: wrong usage, with a list."""
    code, _, err = run("--leave-out", "abacus")
    assert (code, "no accelerator and no model 'abacus'" in err) == (2, True)
    assert "h100" in err
    code, _, err = run("--leave-out", "llama-3-70b-of-mars")
    assert code == 2
    code, _, err = run("--leave-out", "h100", "--write")
    assert (code, "--write is about all points" in err) == (2, True)


def test_left_out_points_are_predicted_without_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H100: their status is `left out`, one target is theirs, the fit knows none."""
    fold = leave_out(AS_COMMITTED.fit, "accelerator", "h100")
    assert "h100" not in {w.run.gpu.name for w in fold.fit.runs}
    assert {run_.gpu.name for run_ in fold.runs} == {"h100"}
    monkeypatch.setattr(Validation, "folds", (fold,))
    code, out, _ = run("--leave-out", "H100", "--json")
    found = json.loads(out)
    assert found["points"] == len(fold.fit.runs)
    (target,) = found["targets"]
    errors_ = [abs(row["error"]) for row in found["rows"]]
    assert target["met"] == (sum(errors_) / len(errors_) <= 0.2)
    assert code == (0 if target["met"] else 3)
    assert {row["status"] for row in found["rows"]} == {"left out"}
    assert {row["accelerator"] for row in found["rows"]} == {"h100"}
    assert len(found["rows"]) == len(fold.runs)
    assert found["points"] == len(AS_COMMITTED.runs) - len(fold.runs)
    errors = {row["point"]: row["error"] for row in found["rows"]}
    fitted = {r.run.point.id: r.error for r in AS_COMMITTED.rows}
    assert any(abs(errors[id_] - fitted[id_]) > 0.005 for id_ in errors)


def test_models_without_a_point_cannot_be_left_out(run: Run) -> None:
    """There is nothing to predict; Llama-3.1-70B has no row of its own."""
    code, _, err = run("--leave-out", "meta-llama/Llama-3.1-70B-Instruct")
    assert (code, "no point that is modelled has the model" in err) == (2, True)


def test_times_to_first_token_are_held_against_the_published(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each run that has them, under the law that predicted the row."""
    laws = Laws(AS_COMMITTED.fit.efficiencies)

    def simulated(run: ModelledRun, law: StepLaw) -> Ttft | None:
        assert law == laws.of(run)
        known = run.point.ttft_p50_ms is not None
        return Ttft(run=run, rate=1.0, p50_s=0.1, p99_s=0.2) if known else None

    monkeypatch.setattr(verb, "simulate_ttft", simulated)
    found = json.loads(run("--simulate", "--json")[1])["ttft"]
    points = {p.id: p for p in load_points()}
    assert len(found) == sum(
        row.run.point.ttft_p50_ms is not None for row in AS_COMMITTED.primary
    )
    for row in found:
        published = points[row["point"]].ttft_p50_ms
        assert published is not None
        assert row["p50_error"] == pytest.approx(100 / published - 1)
    _, out, _ = run("--simulate")
    assert "TTFT p50, published" in out
    assert "100 ms" in out


# ------------------------------------------------------------------ what is committed


def close(ours: str, theirs: str) -> bool:
    """Whether texts differ by no more than the last digit of their numbers."""
    number = re.compile(r"\d[\d,]*(?:\.\d+)?")
    if number.sub("#", ours) != number.sub("#", theirs):
        return False
    for a, b in zip(number.findall(ours), number.findall(theirs), strict=True):
        digits = [len(text.partition(".")[2]) for text in (a, b)]
        apart = abs(float(a.replace(",", "")) - float(b.replace(",", "")))
        if digits[0] != digits[1] or apart > 1.5 * 10.0 ** -digits[0]:
            return False
    return True


def test_closeness_is_seen() -> None:
    """The last digit may differ by one, a word or another digit may not."""
    assert close("a 1.2 % of 1,034", "a 1.3 % of 1,035")
    assert not close("a 1.2 %", "a 1.4 %")
    assert not close("a 1.2 %", "b 1.2 %")
    assert not close("a 1.2 %", "a 1.23 %")


def test_document_is_what_the_code_makes() -> None:
    """But for folds and simulations: else `loadstone validate --write`."""
    before, _, rest = (ROOT / DOCUMENT).read_text("utf-8").partition(f"{LEFT_OUT}\n")
    _, _, rest = rest.partition(f"{FIRST_TOKENS}\n")
    after = rest[rest.index("\n## ") + 1 :]
    fresh = document(
        AS_COMMITTED, machines(pairs_of(AS_COMMITTED.fit)), folds=False
    ).splitlines()
    stale = [
        (ours, theirs)
        for ours, theirs in zip(fresh, (before + after).splitlines(), strict=True)
        if not close(ours, theirs)
    ]
    assert not stale, "run `loadstone validate --write`"


def test_first_tokens_of_the_document_are_true() -> None:
    """One run, simulated again: its errors are those that the document says."""
    laws = Laws(AS_COMMITTED.fit.efficiencies)
    of = "mlperf-6.0-0089-b300-8gpu-deepseek-r1-server"
    (run,) = (run for run in AS_COMMITTED.runs if run.point.id == of)
    ttft = simulate_ttft(run, laws.of(run))
    assert ttft is not None
    _, _, rest = (ROOT / DOCUMENT).read_text("utf-8").partition(f"{FIRST_TOKENS}\n")
    (line,) = (text for text in rest.splitlines() if text.startswith(f"| {of} | 3"))
    said = [cell.strip() for cell in line.strip("| ").split("|")]
    for mine, cell in zip(ttft.errors, (said[3], said[6]), strict=True):
        assert float(cell.split()[0]) == pytest.approx(100 * mine, abs=2)


def test_left_out_figures_of_the_document_are_true() -> None:
    """One fit without H100 points gives the errors that the document says."""
    fold = leave_out(AS_COMMITTED.fit, "accelerator", "h100")
    alone = Validation(AS_COMMITTED.fit, {})
    object.__setattr__(alone, "folds", (fold,))
    rows = alone.left_out["accelerator", "h100"]
    _, _, rest = (ROOT / DOCUMENT).read_text("utf-8").partition(f"{LEFT_OUT}\n")
    (line,) = (text for text in rest.splitlines() if text.startswith("| h100 |"))
    _, _, points, mean, largest, *_, said, told, _ = (
        cell.strip() for cell in line.split("|")
    )
    assert int(points) == len(rows)
    assert float(mean.split()[0]) == pytest.approx(
        100 * sum(abs(row.error) for row in rows) / len(rows), abs=0.3
    )
    worst = max((row.error for row in rows), key=abs)
    assert float(largest.split()[0]) == pytest.approx(100 * worst, abs=1.0)
    assert said == ("met" if float(mean.split()[0]) <= 20 else "**not met**")
    lost = untold(AS_COMMITTED.fit, fold.fit)
    assert told == ", ".join(f"`{name}`" for name in lost)


def test_plot_is_what_the_code_makes() -> None:
    """A circle for each point, where it belongs."""
    fresh = scatter_of(PREDICTED)
    stale = [
        (ours, theirs)
        for ours, theirs in zip(
            fresh.splitlines(),
            (ROOT / PREDICTED).read_text("utf-8").splitlines(),
            strict=True,
        )
        if not close(ours, theirs)
    ]
    assert not stale, "run `loadstone validate --write`"


def scatter_of(name: str) -> str:
    """Return a plot without what takes the folds."""
    alone = Validation(AS_COMMITTED.fit, {})
    object.__setattr__(alone, "folds", ())
    return plots(alone)[name]


def test_constants_are_those_of_a_fit() -> None:
    """A fit to the published points, from the start, gives the catalog's constants."""
    fresh = fit(weigh(runs_of(load_points())))
    for name, fact in load_constants().facts.items():
        assert fresh.efficiencies.values[name] == pytest.approx(fact.value, rel=0.02)
        assert fact.low is not None
        assert fact.high is not None
        low, high = fresh.low_high(name, 1.2816)
        assert (low, high) == (
            pytest.approx(fact.low, rel=0.03),
            pytest.approx(fact.high, rel=0.03),
        )


def test_what_was_written_is_read_back() -> None:
    """Constants as text and from it: the same fit to five digits."""
    import tomllib

    intervals = {"fitted": 0.1, "transferred": 0.2}
    text = constants_text(AS_COMMITTED.fit, intervals)
    table = tomllib.loads(text)
    assert constants_of(table).intervals["transferred"].value == 0.2
    assert table["fit"]["points"] == len(AS_COMMITTED.runs)
    for name, value in AS_COMMITTED.fit.efficiencies.values.items():
        assert table["constants"][name]["value"] == pytest.approx(value, rel=1e-4)


# --------------------------------------------------------------- nothing knows a point


def test_row_that_changes_moves_its_own_residual_alone() -> None:
    """With the constants as they are, no other prediction and no law changes."""
    points = list(load_points())
    index = next(
        i for i, p in enumerate(points) if p.id == AS_COMMITTED.primary[0].run.point.id
    )
    figure = 1.1 * points[index].tokens_per_s_per_gpu
    points[index] = replace(points[index], tokens_per_s_per_gpu=figure)
    runs = weigh(runs_of(points))
    changed = Validation(fit_of(load_constants(), runs), {})
    for ours, theirs in zip(AS_COMMITTED.rows, changed.rows, strict=True):
        assert ours.judged.predicted == theirs.judged.predicted
        moved = ours.run.point.id == points[index].id
        assert (ours.error != theirs.error) == moved


def test_points_that_call_for_other_constants_ask_for_a_fit() -> None:
    """Without the points of a chip there is nothing to say of its factor."""
    points = [p for p in load_points() if p.accelerator != "mi355x"]
    with pytest.raises(CatalogError, match="does not belong to these points") as asked:
        fit_of(load_constants(), weigh(runs_of(points)))
    assert "--refit" in asked.value.hint
