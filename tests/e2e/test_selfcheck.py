"""`loadstone selfcheck` for real, and runs that are judged by a profile."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import (
    alive,
    descendants,
    latest,
    loadstone,
    mock_server,
    read_until,
    start,
    wait_for,
)

from loadgen.selfcheck import read_profile, this_machine, write_profile
from loadstone.traffic.machine import (
    EVENTS,
    LIMITS,
    MAX_TPOT_ERROR,
    MAX_TTFT_ERROR_S,
    REQUESTS,
    Bracket,
    Profile,
)
from loadstone.traffic.selfcheck import QUICK


def test_a_selfcheck_tells_what_it_kept(tmp_path: Path) -> None:
    """Every figure is there, verdicts follow from them, and only then it is kept."""
    path = tmp_path / "profile.json"
    began = time.monotonic()
    done = loadstone("selfcheck", "--quick", "--json", "--profile", str(path))
    told = json.loads(done.stdout)
    assert time.monotonic() - began < QUICK.budget_s + 50
    assert {step["limit"] for step in told["steps"]} == set(LIMITS)
    for step in told["steps"]:
        assert step["load"][EVENTS] > step["load"][REQUESTS] > 0
        assert step["ttft_error_s"]["n"] == step["tpot_error"]["n"] > 0
        right = (
            step["ttft_error_s"]["p99"] <= MAX_TTFT_ERROR_S
            and step["tpot_error"]["p99"] <= MAX_TPOT_ERROR
            and step["unanswered"] == 0
        )
        assert right == (not step["faults"])
        assert step["vitals"]["cpu_share"] > 0
    found = all(told["limits"][name]["held"] is not None for name in LIMITS)
    assert (done.returncode, path.exists()) == ((0, True) if found else (4, False))
    if found:
        assert read_profile(str(path)).machine == this_machine()
    assert "events/s" in done.stderr


def test_ctrl_c_leaves_no_process_and_no_profile(tmp_path: Path) -> None:
    """In the middle of a step."""
    path = tmp_path / "profile.json"
    process = start("selfcheck", "--profile", str(path))
    read_until(process, "verdict")
    deadline = time.monotonic() + 60
    while len(descendants(process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    children = descendants(process.pid)
    assert len(children) >= 2
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted" in said
    # They see the end of a pipe, some of them only after their parent is gone.
    wait_for(lambda: not any(alive(pid) for pid in children))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Run a mock for all runs of this module."""
    with mock_server() as url:
        yield url


def run(url: str, folder: Path, *args: str) -> dict[str, Any]:
    """Send 30 short answers a second for two; return the run's `instrument`."""
    trace = folder.parent / "trace.jsonl"
    line = '{"timestamp": %d, "input_length": 8, "output_length": 10}\n'
    trace.write_text("".join(line % (i * 1000 / 30) for i in range(60)))
    loadstone("run", "chat", "--trace", str(trace), "--duration", "2s",
              "--host", url, "--out", str(folder), *args)  # fmt: skip
    instrument: dict[str, Any] = latest(folder).summary["instrument"]
    return instrument


def planted(path: Path, requests_per_s: float) -> Path:
    """Keep a profile of this machine with that limit."""
    limits = {
        EVENTS: Bracket(1e7, 2e7),
        REQUESTS: Bracket(requests_per_s, 2 * requests_per_s),
    }
    profile = Profile(this_machine(), "2026-01-31T12:00:00+00:00", limits)
    write_profile(path, profile.to_json())
    return path


def test_a_run_beyond_the_profile_is_client_limited(url: str, tmp_path: Path) -> None:
    """Whatever else is found; the reason names the load, the limit and the file."""
    path = planted(tmp_path / "tiny.json", 5.0)
    instrument = run(url, tmp_path / "runs", "--selfcheck", str(path))
    assert instrument["verdict"] == "client_limited"
    (reason,) = (r for r in instrument["reasons"] if str(path) in r)
    load = instrument["selfcheck"]["load"]
    assert 5.0 < load[REQUESTS] < 100.0
    assert f"{load[REQUESTS]:,.1f} requests/s" in reason
    assert "5 requests/s" in reason
    assert instrument["selfcheck"]["share"] > 1.0
    assert "notes" not in instrument


def test_a_run_within_the_profile_is_not_stamped_for_it(
    url: str, tmp_path: Path
) -> None:
    """And says what part of the limit it took."""
    path = planted(tmp_path / "ample.json", 1e6)
    instrument = run(url, tmp_path / "runs", "--selfcheck", str(path))
    assert not any(str(path) in reason for reason in instrument["reasons"])
    assert 0.0 < instrument["selfcheck"]["share"] < 0.01
    assert instrument["selfcheck"]["profile"] == str(path)


def test_a_run_without_a_profile_says_so(url: str, tmp_path: Path) -> None:
    """In the summary's notes, with what makes one; it is judged as ever."""
    instrument = run(url, tmp_path / "runs")
    assert instrument["selfcheck"]["profile"] is None
    assert "`loadstone selfcheck` makes one" in instrument["selfcheck"]["absent"]
    assert instrument["notes"] == [instrument["selfcheck"]["absent"]]


def test_a_profile_that_is_not_there_is_wrong_usage(url: str, tmp_path: Path) -> None:
    """Told before anything is sent."""
    out, path = str(tmp_path / "runs"), str(tmp_path / "no.json")
    done = loadstone("run", "chat", "--rate", "5", "--host", url, "--out", out,
                     "--selfcheck", path)  # fmt: skip
    assert done.returncode == 2
    assert "no.json" in done.stderr
    assert not (tmp_path / "runs").exists()
