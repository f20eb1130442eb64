"""A run's rows against what the mock counted for it, whoever else is there."""

import json
import shutil
import signal
from pathlib import Path

from processes import (
    PATIENCE_S,
    free_port,
    latest,
    loadstone,
    mock_server,
    read_until,
    start,
)
from run_folders import made_up

from loadstone.cli.audit import audited
from loadstone.runs import ROWS, RunFiles
from loadstone.traffic.audit import Check

LOAD = ("azure-chat", "--rate", "20", "--duration", "2s", "--drain", "30s")


def server_check(folder: Path) -> Check:
    """Return what the audit finds of the server's counts."""
    checks = audited(RunFiles.open(folder))
    return next(check for check in checks if check.name == "server")


def test_two_runs_at_one_mock_have_books_of_their_own(tmp_path: Path) -> None:
    """They are exact; and a count that is off, or a token, is found."""
    with mock_server("--vms", "1") as url:
        other = start("run", *LOAD, "--host", url, "--out", str(tmp_path / "b"))
        mine = loadstone("run", *LOAD, "--host", url, "--out", str(tmp_path / "a"))
        other.communicate(timeout=PATIENCE_S)
    assert mine.returncode in {0, 4}, mine.stderr
    sent = latest(tmp_path / "a").summary["requests"]["sent"]
    for name in "ab":
        folder = latest(tmp_path / name).path
        assert server_check(folder).state == "ok"
        kept = json.loads((folder / "server_counts.json").read_text())
        assert kept["servers"][0]["after"]["statuses"] == {"200": sent}
    damaged = made_up(Path(shutil.copytree(folder, tmp_path / "damaged")))
    for change in ({"statuses": {"200": sent - 1}}, {"output_tokens": 1}):
        told = json.loads(json.dumps(kept))
        told["servers"][0]["after"] |= change
        (damaged / "server_counts.json").write_text(json.dumps(told))
        assert server_check(damaged).state == "wrong"
    shutil.copy(folder / "server_counts.json", damaged)
    (rows,) = damaged.glob(ROWS)
    lines = rows.read_text().splitlines(keepends=True)
    for planted in (lines[1:], [*lines, lines[0]]):
        rows.write_text("".join(planted))
        assert server_check(damaged).state == "wrong"
    told = loadstone("audit", str(damaged), "--json")
    assert told.returncode == 4


def test_a_mock_that_was_restarted_is_not_held_against_the_run(tmp_path: Path) -> None:
    """Nobody can say what the first one had counted."""
    port = str(free_port())
    serve = ("serve", "--vms", "1", "--port", port, "--grace", "1s")
    mock = start(*serve)
    read_until(mock, "listening on ")
    url = f"http://127.0.0.1:{port}"
    run = start("run", *LOAD, "--host", url, "--out", str(tmp_path))
    read_until(run, "asked/s")
    mock.send_signal(signal.SIGKILL)
    mock.communicate(timeout=PATIENCE_S)
    again = start(*serve)
    try:
        read_until(again, "listening on ")
        run.communicate(timeout=PATIENCE_S)
    finally:
        again.send_signal(signal.SIGTERM)
        again.communicate(timeout=PATIENCE_S)
    check = server_check(latest(tmp_path).path)
    assert check.state == "not_checked"
    assert "restarted" in check.why
