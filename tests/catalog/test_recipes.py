"""Recipes: MLCommons' limits, and what has no lengths is refused."""

import csv
from pathlib import Path

import pytest

from loadstone.catalog import facts, recipes
from loadstone.catalog.facts import read_table
from loadstone.catalog.plans import load_plan, plan_names
from loadstone.catalog.recipes import RECIPES, load_recipe
from loadstone.catalog.workloads import load_lengths
from loadstone.errors import CatalogError, NotModelledError, UsageError
from loadstone.traffic.slo import Slo

CALIBRATION = Path(__file__).parents[3] / "shared" / "calibration"
PUBLISHED = CALIBRATION / "slo_limits.csv"
NAMES = {
    "llama2-70b": "llama-2-70b",
    "llama3.1-8b": "llama-3.1-8b",
    "llama3.1-405b": "llama-3.1-405b",
}
"""What the published table calls otherwise."""


@pytest.mark.parametrize(
    ("name", "slos"),
    [
        ("mlperf-offline", ()),
        (
            "mlperf-server",
            (Slo("ttft_intended_s", "p99", 2.0), Slo("tpot_s", "p99", 0.2)),
        ),
        (
            "mlperf-interactive",
            (Slo("ttft_intended_s", "p99", 0.45), Slo("tpot_s", "p99", 0.04)),
        ),
    ],
)
def test_recipes_of_llama_2_by_hand(name: str, slos: tuple[Slo, ...]) -> None:
    """The limits, the data set's size and its longest answer."""
    recipe = load_recipe(name, "llama-2-70b")
    assert recipe.slos == slos
    assert recipe.offline is (slos == ())
    assert (recipe.samples, recipe.max_output_tokens) == (24_576, 1024)
    assert recipe.scenario in plan_names()
    assert all(fact.confidence == "official" for fact in recipe.limits.values())
    notes = " ".join(recipe.notes())
    assert "MLPerf-like, not an MLPerf result" in notes
    assert ("MLCommons" in notes) is bool(slos)


def test_lengths_of_the_405b_data_set_have_the_published_means() -> None:
    """From four percentiles, and the minimum that the mean leaves."""
    recipe = load_recipe("mlperf-server", "llama-3.1-405b")
    assert (recipe.samples, recipe.max_output_tokens) == (8313, None)
    (scenario,) = load_plan(recipe.scenario).classes
    assert isinstance(scenario.input, str)
    assert isinstance(scenario.output, str)
    prompts, answers = map(load_lengths, (scenario.input, scenario.output))
    assert prompts.mean == pytest.approx(9428.6, rel=1e-3)
    assert 630 <= answers.mean <= 656
    assert [prompts.at(q) for q in (0.5, 0.9, 0.99)] == [10_112, 14_156, 18_956]


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published table is not here")
def test_table_is_the_published_one() -> None:
    """Every model, scenario and number, with source, date and confidence."""

    def number(text: str) -> int | None:
        return int(text) if text else None

    with PUBLISHED.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    table = read_table("slos")
    assert sum(map(len, table.values())) == len(rows) == 17
    for row in rows:
        entry = table[NAMES.get(row["model"], row["model"])][row["scenario"]]
        assert entry["samples"] == number(row["n_samples"])
        assert entry.get("max_output_tokens") == number(row["max_output_tokens"])
        assert entry.get("ttft_p99_ms") == number(row["ttft_p99_limit_ms"])
        assert entry.get("tpot_p99_ms") == number(row["tpot_p99_limit_ms"])
        birth = entry["source"], entry["date"], entry["confidence"]
        assert birth == (row["source"], row["source_date"], row["confidence"])


@pytest.mark.parametrize(
    ("name", "model", "error", "why"),
    [
        ("mlperf-edge", "llama-2-70b", UsageError, "no recipe 'mlperf-edge'"),
        ("mlperf-server", "gpt-5", CatalogError, "no recipe mlperf-server for gpt-5"),
        ("mlperf-interactive", "mixtral-8x7b", CatalogError, "for mixtral-8x7b"),
        ("mlperf-server", "gpt-oss-120b", NotModelledError, "AIME25, GPQA Diamond"),
        ("mlperf-offline", "deepseek-r1", NotModelledError, "no lengths of its data"),
    ],
)
def test_what_cannot_be_run_is_refused(
    name: str, model: str, error: type[Exception], why: str
) -> None:
    """An unknown name, a scenario that a model has not, lengths that are not known."""
    with pytest.raises(error, match=why):
        load_recipe(name, model)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"ttft_p90_ms": 5}, "unknown field 'ttft_p90_ms'"),
        ({"confidence": "sure"}, "confidence 'sure' is none of"),
        ({"source": ""}, "needs a unit, a source and a date"),
    ],
)
def test_entries_are_read_strictly(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, object], why: str
) -> None:
    """A misspelt limit would be no limit."""
    good = facts.read_table("slos")["llama-2-70b"]["server"]
    table = {"llama-2-70b": {"server": good | change}}
    monkeypatch.setattr(recipes, "read_table", lambda _: table)
    with pytest.raises(CatalogError, match=r"slos\.toml \[llama-2-70b\.server\].*"):
        load_recipe("mlperf-server", "llama-2-70b")
    with pytest.raises(CatalogError, match=why):
        load_recipe("mlperf-server", "llama-2-70b")


def test_every_recipe_name_is_offered() -> None:
    """The verb's choices are the scenarios of the table."""
    scenarios = {s for model in read_table("slos").values() for s in model}
    assert {f"mlperf-{scenario}" for scenario in scenarios} == set(RECIPES)
