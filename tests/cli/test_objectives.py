"""`loadstone simulate` judged: by an SLO file, by a recipe's published limits."""

import tomllib
from pathlib import Path

import pytest
from simulated import SLO, Simulate


@pytest.mark.parametrize(("limit", "code"), [("0.5", 0), ("0.01", 3)])
def test_objectives_are_judged(
    simulate: Simulate, tmp_path: Path, limit: str, code: int
) -> None:
    """From a file, as in `run`: met is 0, missed is 3."""
    slo = tmp_path / "slo.toml"
    slo.write_text(SLO.format(limit))
    ran = simulate("--rate", "30", "--duration", "10s", "--slo", str(slo))
    assert ran.code == code
    assert ran.document["slo"][0]["met"] is (code == 0)


@pytest.mark.parametrize(
    ("recipe", "rate", "code"),
    [("server", "100", 0), ("server", "400", 3), ("interactive", "250", 3)],
)
def test_recipe_judges_by_the_published_limits(
    simulate: Simulate, recipe: str, rate: str, code: int
) -> None:
    """p99 TTFT and TPOT of Llama-2-70B; far below and far above what a VM can do."""
    limits = {"server": (2.0, 0.2), "interactive": (0.45, 0.04)}[recipe]
    ran = simulate(
        "--recipe", f"mlperf-{recipe}", "--rate", rate, "--duration", "1m", "--no-rows"
    )
    assert ran.code == code
    assert [line["max_s"] for line in ran.document["slo"]] == list(limits)
    assert ran.document["recipe"] == f"mlperf-{recipe}"
    assert ran.document["scenario"] == "mlperf"
    assert "MLPerf-like, not an MLPerf result" in ran.notes
    assert "MLCommons" in ran.notes
    plan = tomllib.loads((ran.folder / "plan.toml").read_text())["plan"]
    assert (plan["max_tokens"], plan["arrivals"]) == (1024, "poisson")


def test_offline_recipe_asks_the_whole_data_set(simulate: Simulate) -> None:
    """24,576 samples unless told otherwise; there is no limit to miss."""
    plan = simulate("--recipe", "mlperf-offline", "--offline", "100")
    assert plan.document["requests"]["ok"] == 100
    assert plan.document["slo"] == []
    full = simulate("--recipe", "mlperf-offline", "--vms", "4", "--no-rows")
    assert full.document["requests"]["ok"] == 24_576
