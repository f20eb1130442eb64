"""Servers that end, fall silent, trickle, reset and refuse, under a run."""

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import Ended, Load, Stopwatch, measured, mock
from nasty import Nasty, fall_silent, mute, nasty, reset, throttle, trickle, well

WAITS = ("--first-byte-timeout", "1s", "--idle-timeout", "1s", "--total-timeout", "2s")


@pytest.mark.parametrize(
    ("how", "row", "error"),
    [
        (signal.SIGKILL, "server-killed", "closed_early"),
        (signal.SIGTERM, "server-stopped", "http_503"),
    ],
)
def test_a_server_ends_and_comes_back(
    tmp_path: Path, how: signal.Signals, row: str, error: str
) -> None:
    """Every request of the gap has an error by name; the first after it is answered."""
    with mock() as served:
        load = Load(tmp_path, served.url, seconds=5)
        load.wait_for_rows()
        gone = Stopwatch(row)
        served.end(how)
        served.restart()
        away_s = gone.seconds("between the signal and the new server listening")
        ended = load.wait()
    counts = ended.requests
    assert counts["ok"] + counts["failed"] == counts["sent"] == 125
    assert counts["failed"] > 0
    assert set(ended.errors) <= {"closed_early", "reset", "http_503", "connect_refused"}
    assert ended.errors[error] > 0
    began = min(r["end_s"] for r in ended.run.rows if r["outcome"] == "failed")
    over_s = ended.well_again_s(began)
    measured(row, "between the first failed request and the last", over_s)
    # What failed, failed while nobody was there: not a second longer.
    assert over_s < away_s + 1.0
    later = ended.sent_between(began + away_s + 1.0, 5.0)
    assert all(r["outcome"] == "ok" for r in later)
    assert f"{ended.errors[error]} x {error}, " in ended.said
    assert "s into the run" in ended.said
    assert "look into the server's log" in " ".join(ended.said.split())


@pytest.fixture(scope="module")
def beset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ended, Nasty]]:
    """Give a run against a server that does a different thing to each request."""
    with nasty(well, trickle, mute, fall_silent, reset) as server:
        load = Load(
            tmp_path_factory.mktemp("beset"), server.url, *WAITS,
            "--chars-per-token", "4", seconds=2,
        )  # fmt: skip
        ended = load.wait()
        yield ended, server


@pytest.mark.parametrize(
    ("fault", "error", "least_s", "most_s"),
    [
        ("trickle", "timeout_total", 2.0, 3.0),
        ("mute", "timeout_first_byte", 1.0, 2.0),
        ("fall_silent", "timeout_idle", 1.0, 2.0),
        ("reset", "reset", 0.0, 1.0),
    ],
)
def test_a_wait_has_a_limit_and_a_name(
    beset: tuple[Ended, Nasty], fault: str, error: str, least_s: float, most_s: float
) -> None:
    """Each request ends when its patience does, by the error that says which."""
    ended, server = beset
    took = [r["end_s"] - r["sent_s"] for r in ended.run.rows if r.get("error") == error]
    assert len(took) == server.done[fault] == ended.errors[error] > 0
    assert least_s <= min(took)
    assert max(took) < most_s


def test_who_is_answered_well_beside_them_is_not_harmed(
    beset: tuple[Ended, Nasty],
) -> None:
    """Nobody waits for another's trouble, and the terminal says what that was."""
    ended, _ = beset
    answered = [r for r in ended.run.rows if r["outcome"] == "ok"]
    assert len(answered) == 10
    assert all(r["end_s"] - r["sent_s"] < 1.0 for r in answered)
    said = " ".join(ended.said.split())
    assert "no_answer: the connection was made and no answer came in time" in said
    assert "closed: the connection was closed before there was an answer" in said


def test_a_storm_of_429_with_retry_after(tmp_path: Path) -> None:
    """Who waits as long as it says gets in; nothing is lost, and each wait is told."""
    key = tmp_path / "admin"
    key.write_text("open")
    with mock("--admin-key-file", str(key)) as served:
        load = Load(tmp_path, served.url, "--on-429", "retry")
        load.wait_for_rows()
        storm = {"kind": "throttle", "until": 1.0}
        asked = urllib.request.Request(
            f"{served.url}/admin/faults",
            data=json.dumps(storm).encode(),
            headers={"Authorization": "Bearer open"},
        )
        urllib.request.urlopen(asked).close()
        ended = load.wait()
    assert ended.requests["ok"] == ended.requests["sent"] == 75
    refused = [r for r in ended.run.rows if r.get("retries")]
    assert len(refused) >= 10
    assert all(0 < r["retry_after_s"] <= 1.0 for r in refused)
    # They got in after the storm's end: not by storming it.
    assert sum(r["retries"] for r in refused) <= 2 * len(refused)


def test_a_storm_of_429_that_says_nothing(tmp_path: Path) -> None:
    """Tries are spread by doubling waits with chance in them; what gives up is told."""
    with nasty(throttle) as server:
        load = Load(
            tmp_path, server.url, "--on-429", "retry", "--max-retries", "1",
            "--chars-per-token", "4", seconds=2,
        )  # fmt: skip
        load.wait_for_rows()
        server.calm.set()
        calm = time.monotonic()
        ended = load.wait()
        assert time.monotonic() - calm < 8
    counts = ended.requests
    assert counts["ok"] + counts["throttled"] == counts["sent"] == 50
    assert counts["ok"] > 0
    refused = [r for r in ended.run.rows if r.get("retries")]
    waited = [r["end_s"] - r["sent_s"] for r in refused]
    assert len(refused) > 10
    assert min(waited) >= 0.5
    # A second, less up to half of it by chance: they do not come back together.
    assert max(waited) - min(waited) > 0.2
    if counts["throttled"]:
        assert "throttled_no_hint" in ended.said
