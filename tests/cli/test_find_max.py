"""`loadstone simulate --find-max`: found, never met, always met, not sustained."""

import json
from pathlib import Path

import pytest
from simulated import SLO, Ran, Simulate


def search(simulate: Simulate, *args: str) -> Ran:
    """Search on one small engine set, briefly."""
    brief = ("--duration", "20s", "--warmup", "5s", "--tolerance", "0.1")
    few = ("--max-num-seqs", "64", "--repeats", "1")
    return simulate("--find-max", *args, *few, *brief)


def test_highest_rate_is_found(simulate: Simulate) -> None:
    """Each probe is kept, and the answer is what they say; a seed finds it again."""
    ran = search(simulate, "--recipe", "mlperf-server")
    found = ran.document
    assert ran.code == 0
    assert json.loads((ran.folder / "search.json").read_text()) == found
    answer = found["answer"]
    met = [probe["rate"] for probe in found["probes"] if probe["met"]]
    missed = [probe["rate"] for probe in found["probes"] if not probe["met"]]
    assert answer["end"] == "found"
    assert answer["met"] == max(met) < min(missed) == answer["missed"]
    assert answer["missed"] / answer["met"] <= 1.1 * (1 + 1e-9)
    assert all(p["requests"]["sent"] > 10_000 for p in found["probes"] if p["met"])
    for probe in found["probes"]:
        first, last = probe["backlog"]
        grows = last - first > 3 * (last + first) ** 0.5
        assert probe["met"] is not (probe["cut_short"] or grows)
    assert f"{answer['met']:.2f} requests/s" in found["notes"][0]
    assert "MLPerf-like, not an MLPerf result" in " ".join(found["notes"])
    for told in found["probes"]:
        assert f"{told['rate']:,.2f} requests/s" in ran.err
    # 256 places over about five seconds an answer.
    assert 30 < answer["met"] < 60
    assert found["at_answer"]["throughput"]["steady_output_tok_s"] == pytest.approx(
        answer["met"] * 273, rel=0.1
    )


def test_a_rate_that_nothing_sustains_is_not_found(
    simulate: Simulate, tmp_path: Path
) -> None:
    """Twice the capacity meets any limit on TPOT; the backlog gives it away."""
    slo = tmp_path / "slo.toml"
    slo.write_text(SLO.format(0.2))
    ran = search(simulate, "--slo", str(slo), "--scenario", "mlperf")
    offline = simulate("--offline", "8000", "--max-num-seqs", "64", "--no-rows")
    capacity = offline.document["throughput"]["steady_output_tok_s"] / 273
    assert 0.85 * capacity < ran.document["answer"]["met"] < 1.05 * capacity
    assert "backlog grows from" in ran.err


def test_unreachable_and_trivial_objectives_are_said(
    simulate: Simulate, tmp_path: Path
) -> None:
    """Below one step's time at any rate: 3. Met up to --max-rate: 0, and it says so."""
    slo = tmp_path / "slo.toml"
    slo.write_text(SLO.format(0.001))
    never = search(simulate, "--slo", str(slo), "--max-rate", "200")
    assert never.code == 3
    assert "not met at any rate down to" in never.document["notes"][0]
    slo.write_text(SLO.format(0.5))
    always = search(simulate, "--slo", str(slo), "--max-rate", "10")
    assert always.code == 0
    assert always.document["answer"]["met"] == 10.0
    assert "met up to the highest rate that was tried" in always.document["notes"][0]
