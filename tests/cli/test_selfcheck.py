"""`loadstone selfcheck` around measurements that were planted."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from loadgen.selfcheck import read_profile, this_machine
from loadstone.cli import selfcheck
from loadstone.errors import LoadstoneError
from loadstone.traffic.machine import EVENTS, REQUESTS, Load
from loadstone.traffic.selfcheck import THOROUGH, Axis, Pace, Step

EVENTS_PER_STREAM = 50


def planted(limits: dict[str, float], vitals: dict[str, float]) -> Any:
    """Return a measurement that is right up to those limits, in what is asked."""

    def measure(axis: Axis, asked: float, pace: Pace, url: str, rng: Random) -> Step:
        error = 0.001 if asked <= limits[axis.limit] else 0.004
        stats = {"mean": error, "p50": error, "p99": error, "n": 100}
        load = (
            Load(asked * EVENTS_PER_STREAM, 50)
            if axis.limit == EVENTS
            else Load(4 * asked, asked)
        )
        return Step(
            axis=axis, asked=asked, load=load, ttft_error_s=stats, tpot_error=stats,
            unanswered=0, vitals=vitals, mock_lag_p99_s=0.0,
        )  # fmt: skip

    return measure


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Start no server."""

    @contextmanager
    def nowhere(*_: object) -> Iterator[str]:
        yield "http://127.0.0.1:9"

    monkeypatch.setattr(selfcheck, "mock_server", nowhere)
    return monkeypatch


def run(*args: str) -> Result:
    """Run the verb as the command line does, its exit code that of its answer."""
    return CliRunner().invoke(
        selfcheck.command, list(args), standalone_mode=False, catch_exceptions=False
    )


def test_what_was_found_is_kept_and_told(
    mocked: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The limits that were planted, of this machine, with each step as evidence."""
    limits = {EVENTS: 700.0, REQUESTS: 90.0}
    mocked.setattr(selfcheck, "_try", planted(limits, {"cpu_share": 0.9}))
    path = tmp_path / "new" / "profile.json"
    done = run("--profile", str(path), "--json")
    assert done.return_value == 0
    told = json.loads(done.stdout)
    assert told["profile"] == str(path)
    profile = read_profile(str(path))
    assert profile.machine == this_machine()
    for name, limit in ((EVENTS, 700.0 * EVENTS_PER_STREAM), (REQUESTS, 90.0)):
        one = profile.limits[name]
        assert one.held is not None
        assert one.missed is not None
        assert one.held <= limit < one.missed <= 1.2501 * one.held
        assert told["limits"][name] == {"held": one.held, "missed": one.missed}
    kept = json.loads(path.read_text())
    assert kept["steps"] == told["steps"]
    assert {step["limit"] for step in kept["steps"]} == {EVENTS, REQUESTS}
    assert "TTFT off by 4.0 ms" in done.stderr


def test_a_limit_that_was_not_reached_is_said(
    mocked: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is kept as such, and limits no run."""
    limits = {EVENTS: 1e9, REQUESTS: 90.0}
    mocked.setattr(selfcheck, "_try", planted(limits, {}))
    path = tmp_path / "profile.json"
    done = run("--quick", "--profile", str(path))
    assert done.return_value == 0
    assert "more was not tried" in done.stdout
    profile = read_profile(str(path))
    assert profile.limit(EVENTS) is None
    assert profile.limit(REQUESTS) is not None


def test_what_is_never_right_is_not_kept(
    mocked: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Exit code 4; a profile that was there stays; who took the core is said."""
    mocked.setattr(
        selfcheck,
        "_try",
        planted({EVENTS: 0.0, REQUESTS: 90.0}, {"cpu_wait_share": 0.4}),
    )
    path = tmp_path / "profile.json"
    path.write_text("as it was")
    done = run("--profile", str(path), "--json")
    assert done.return_value == 4
    assert path.read_text() == "as it was"
    told = json.loads(done.stdout)
    assert told["profile"] is None
    assert told["limits"][EVENTS]["held"] is None
    assert any("kept the client off the core for 40%" in n for n in told["notes"])


def test_the_ramps_end_with_their_time(
    mocked: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each tries something, and nothing more once the next would be too late."""
    now = 0.0

    def tick() -> float:
        return now

    measure = planted({EVENTS: 1e9, REQUESTS: 1e9}, {})

    def slow(*args: Any) -> Step:
        nonlocal now
        now += 20.0
        step: Step = measure(*args)
        return step

    mocked.setattr(selfcheck.time, "monotonic", tick)
    mocked.setattr(selfcheck, "_try", slow)
    done = run("--profile", str(tmp_path / "p.json"), "--json")
    assert len(json.loads(done.stdout)["steps"]) == 4
    assert now <= THOROUGH.budget_s


def test_a_step_that_fails_ends_it(mocked: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error is the client's own, and nothing is kept."""

    def broken(*_: object) -> Step:
        raise LoadstoneError("no disk", code="disk")

    mocked.setattr(selfcheck, "_try", broken)
    with pytest.raises(LoadstoneError, match="no disk"):
        run("--profile", str(tmp_path / "p.json"))
    assert list(tmp_path.iterdir()) == []


def test_help_says_what_it_is_and_how() -> None:
    """With examples, and that the mock shares the cores."""
    text = run("--help").stdout
    for words in ("--quick", "--profile", "client_limited", "share", "Examples:"):
        assert words in text
