"""A search and a sweep against a live mock: killed, gone on with, true to the rows."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import PATIENCE_S, loadstone, mock_server, start, wait_for

from loadstone.runs import RunFiles
from loadstone.traffic.probe import Bearing, Look
from loadstone.traffic.slo import Slo

LIMIT = Slo("ttft_intended_s", "p90", 0.25)
BRIEF = ("--duration", "1.5s", "--warmup", "0.5s", "--drain", "10s")


@pytest.fixture(scope="module")
def mock() -> Iterator[str]:
    """Run a machine that is ten times as fast, with few places: answers take 0.3 s."""
    with mock_server(
        "--slowdown", "0.1", "--max-num-seqs", "2", "--stream-interval", "8"
    ) as url:
        yield url


@pytest.fixture
def slo(tmp_path: Path) -> str:
    """Return a file with a limit on TTFT."""
    path = tmp_path / "slo.toml"
    path.write_text(
        f'[[slo]]\nmetric = "{LIMIT.metric}"\nstat = "{LIMIT.stat}"\n'
        f"max_s = {LIMIT.max_s}\n"
    )
    return str(path)


def read(path: Path) -> dict[str, Any]:
    """Return a document that is there whole."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_killed_search_goes_on_and_its_verdicts_are_of_its_rows(
    mock: str, slo: str, tmp_path: Path
) -> None:
    """After `kill -9` the probe that was done is used; each is a whole run folder."""
    out = tmp_path / "runs"
    args = ("run", "azure-chat", "--find-max", "--host", mock, "--slo", slo, *BRIEF,
            "--start-rate", "8", "--out", str(out))  # fmt: skip
    search = start(*args, "--max-probes", "9")
    document = out / "latest" / "search.json"
    wait_for(document.exists)
    os.kill(search.pid, signal.SIGKILL)
    search.communicate(timeout=PATIENCE_S)
    folder = document.parent.resolve()
    killed = read(document)
    assert (killed["complete"], len(killed["probes"])) == (False, 1)

    done = loadstone(*args, "--max-probes", "2", "--resume", str(folder), "--json")
    found = json.loads(done.stdout)
    assert found == read(document)
    assert found["probes"][0] == killed["probes"][0]
    assert len(found["probes"]) == 2
    # A machine that is busy with something else may spoil both.
    assert done.returncode == 4
    assert found["answer"]["end"] in ("unsettled", "client_limited")
    assert " 1/2 " in done.stderr
    assert " 2/2 " in done.stderr
    for i, probe in enumerate(found["probes"], 1):
        check_probe(folder, probe)
        assert probe["folder"].startswith(f"probes/{i:02}/")


def check_probe(folder: Path, probe: dict[str, Any]) -> None:
    """Count a probe's rows again: they are what its verdict was made of."""
    run = RunFiles.open(folder / probe["folder"])
    plan, rows, summary = run.plan()["plan"], list(run.rows()), run.summary()
    assert summary is not None
    assert plan["rate"] == probe["rate"]
    assert (plan["warmup_s"], plan["seed"]) == (0.5, probe["seed"])
    judged = [row for row in rows if not row.warmup]
    bearing = Bearing(
        [LIMIT], requests=len(judged), warmup_s=0.5, duration_s=plan["duration_s"],
        nats=99.0,
    )  # fmt: skip
    for row in rows:
        bearing.add(row)
    assert summary["requests"]["dropped"] == 0
    told = Look.from_json(probe["look"])
    assert told.tallies == bearing.look().tallies
    assert told.tallies[0].n == len(judged)
    assert (probe["verdict"], told.trust.value) in {
        ("ok", "full"), ("too_few_samples", "full"), ("client_limited", "ceiling"),
        ("rate_not_delivered", "none"),
    }  # fmt: skip
    slow = sum(
        (wait := LIMIT.wait_of(row)) is not None and wait > 0.25 for row in judged
    )
    assert sum(over for _, over in told.tallies[0].stretches) == slow


def test_a_sweep_of_users(mock: str, tmp_path: Path) -> None:
    """Closed loops, one after the other; the mock says how many GPUs there are."""
    done = loadstone(
        "run", "azure-chat", "--sweep", "users=2,8", "--host", mock, *BRIEF,
        "--out", str(tmp_path), "--json",
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert done.returncode in (0, 4), done.stderr
    assert found == read(tmp_path / "latest" / "sweep.json")
    for step, users in zip(found["steps"], (2, 8), strict=True):
        run = RunFiles.open(tmp_path / "latest" / step["folder"])
        summary = run.summary()
        assert summary is not None
        assert (summary["loop"], run.plan()["plan"]["users"]) == ("closed", users)
        steady = summary["throughput"]["steady_output_tok_s"]
        assert (step["gpus"], step["tok_s_per_gpu"]) == (4, steady / 4)
        assert step["tok_s_per_user"] == 1 / summary["tpot_s"]["p50"]
    assert "slowed down 0.1 times" in " ".join(found["notes"])
    assert (tmp_path / "latest" / "pareto.svg").exists()
