"""`loadstone simulate --find-max`: found, never met, always met, not sustained."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from simulated import SLO, Ran, Simulate

from loadstone.cli.trials import Trial
from loadstone.cli.virtual_site import VirtualSite

BRIEF = (
    "--duration", "60s", "--warmup", "5s", "--tolerance", "0.1",
    "--max-num-seqs", "64",
)  # fmt: skip


def search(simulate: Simulate, *args: str) -> Ran:
    """Search on one small engine set, briefly."""
    return simulate("--find-max", *BRIEF, *args)


def test_highest_rate_is_found(simulate: Simulate) -> None:
    """Each probe is kept, and the answer is what they say."""
    ran = search(simulate, "--recipe", "mlperf-server")
    found = ran.document
    assert ran.code == 0
    assert json.loads((ran.folder / "search.json").read_text()) == found
    answer, probes = found["answer"], found["probes"]
    assert answer["end"] == "found"
    assert len(probes) == answer["probes"] <= 12
    met = [probe["rate"] for probe in probes if probe["standing"] == "met"]
    missed = [p["rate"] for p in probes if p["rate"] > answer["met"]]
    assert answer["met"] == max(met)
    assert answer["missed"] == min(missed)
    assert answer["missed"] / answer["met"] <= 1.1 * (1 + 1e-9)
    for probe in probes:
        over = any(t["limit"] < share(t) for t in probe["look"]["tallies"])
        assert probe["met"] is not (over or probe["grows"])
    assert f"{answer['met']:.2f} requests/s" in found["notes"][0]
    assert "MLPerf-like, not an MLPerf result" in " ".join(found["notes"])
    for told in probes:
        assert f"{told['rate']:,.2f} requests/s" in ran.err
    # 256 places over about five seconds an answer.
    assert 30 < answer["met"] < 60
    assert found["at_answer"]["throughput"]["steady_output_tok_s"] == pytest.approx(
        answer["met"] * 273, rel=0.1
    )


def share(tally: dict[str, Any]) -> float:
    """Return which share of the requests was over."""
    pairs = tally["stretches"]
    return sum(over for _, over in pairs) / sum(n for n, _ in pairs)


def test_a_probe_is_a_run_that_can_be_made_again(simulate: Simulate) -> None:
    """From its own plan, with the same figures."""
    ran = search(simulate, "--recipe", "mlperf-server", "--max-probes", "1")
    folder = ran.folder / ran.document["probes"][0]["folder"]
    assert folder == ran.folder / "probes/01"
    kept = json.loads((folder / "summary.json").read_text())
    again = simulate(str(folder / "plan.toml"), "--no-rows").document
    same = ("plan_hash", "requests", "slo", "ttft_s", "cost")
    assert {k: again[k] for k in same} == {k: kept[k] for k in same}


def test_a_search_goes_on_where_it_was(simulate: Simulate, tmp_path: Path) -> None:
    """Stopped after any probe: what was seen is used, the answer is the same."""
    whole = search(simulate, "--recipe", "mlperf-server").document
    cut = search(simulate, "--recipe", "mlperf-server", "--max-probes", "12")
    path = cut.folder / "search.json"
    half = cut.document | {"probes": whole["probes"][:3], "answer": None}
    path.write_text(json.dumps(half))
    ran = search(simulate, "--recipe", "mlperf-server", "--resume", str(cut.folder))
    assert ran.document["answer"] == whole["answer"]
    assert ran.document["probes"][:3] == whole["probes"][:3]
    assert [p["rate"] for p in ran.document["probes"]] == [
        p["rate"] for p in whole["probes"]
    ]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--tolerance", "0.2"), "precision 0.1 became 0.2"),
        (("--seed", "1"), "seed 0 became 1"),
        (("--max-num-seqs", "32"), "max_num_seqs 64 became 32"),
    ],
)
def test_another_search_is_not_gone_on_with(
    simulate: Simulate, more: tuple[str, str], why: str
) -> None:
    """Usage, and what differs; more probes are no difference."""
    cut = search(simulate, "--recipe", "mlperf-server", "--max-probes", "1")
    assert (cut.code, cut.document["answer"]["end"]) == (4, "unsettled")
    resumed = ("--recipe", "mlperf-server", "--resume", str(cut.folder))
    refused = search(simulate, *resumed, *more)
    assert refused.code == 2
    assert why in refused.document["error"]["message"]
    allowed = search(simulate, *resumed, "--max-probes", "2")
    assert [p["seconds"] for p in allowed.document["probes"]][:1] == [
        p["seconds"] for p in cut.document["probes"]
    ]
    assert len(allowed.document["probes"]) == 2


def test_ctrl_c_leaves_what_was_seen_and_says_how_to_go_on(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial that was on is dropped."""
    tries = iter(range(9))
    whole = VirtualSite.try_load

    def interrupted(*args: Any) -> Trial | None:
        if next(tries) == 2:
            signal.raise_signal(signal.SIGINT)
        return whole(*args)

    monkeypatch.setattr(VirtualSite, "try_load", interrupted)
    ran = search(simulate, "--recipe", "mlperf-server")
    assert ran.code == 4
    assert ran.document["complete"] is False
    assert len(ran.document["probes"]) == 2
    assert json.loads((ran.folder / "search.json").read_text()) == ran.document
    assert f"--resume {ran.folder.parent}" in ran.err


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


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--find-max",), "needs objectives"),
        (("--find-max", "--recipe", "mlperf-server", "--rate", "5"), "leave --rate"),
        (("--find-max", "--recipe", "mlperf-server", "--users", "5"), "leave --users"),
        (("--find-max", "--recipe", "mlperf-server", "--window", "1s:"),
         "leave --window out"),
        (("--find-max", "--recipe", "mlperf-offline"), "has no rate"),
        (("--rate", "5", "--tolerance", "0.1"), "--tolerance is for a search"),
        (("--find-max", "--recipe", "mlperf-server", "--start-rate", "5000"),
         "a search from 5000 requests/s needs"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused(
    simulate: Simulate, args: tuple[str, ...], why: str
) -> None:
    """As wrong usage, and before there is a folder."""
    ran = simulate(*args)
    assert ran.code == 2
    assert why in ran.document["error"]["message"]
    assert not ran.folder.exists()
