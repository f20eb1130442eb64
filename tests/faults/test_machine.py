"""Troubles of the machine itself: its clock, its disk, its descriptors, its network."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from live import Load, Stopwatch, measured, mock
from nasty import mute, nasty, well
from processes import PATIENCE_S, latest, wait_for
from two_hosts import two_hosts
from wall_clock import wall_clock

from loadgen.recovery import recover
from loadstone.runs import read_rows


def test_the_wall_clock_is_set_in_mid_run(tmp_path: Path) -> None:
    """An hour on, then two back, for mock and client: no time is wrong, none is lost.

    Deadlines, durations, the budget in dollars and the scrapes go by the clock that
    nobody sets, and lags of reads that had both clocks in them are dropped and counted.
    """
    clock = wall_clock(tmp_path)
    with mock(env=clock.environ) as served:
        load = Load(
            tmp_path, served.url, "--max-usd", "1", "--server-metrics", "auto",
            env=clock.environ,
        )  # fmt: skip
        load.wait_for_rows()
        clock.set(3600)
        time.sleep(0.6)
        clock.set(-3600)
        began = time.monotonic()
        ended = load.wait()
        assert time.monotonic() - began < 12
    summary = ended.run.summary
    assert ended.requests["ok"] == ended.requests["sent"] == 75
    assert summary["budget"]["stopped_by"] is None
    assert summary["budget"]["spent"]["usd"] < 1
    assert summary["makespan_s"] < 12
    assert all(0 < r["end_s"] - r["sent_s"] < 10 for r in ended.run.rows)
    instrument = summary["instrument"]
    assert instrument["recv_lag_dropped"] > 0
    assert instrument["recv_lag_s"]["n"] > 0
    assert max(r.get("worst_recv_lag_s", 0) for r in ended.run.rows) < 10
    lines = (ended.run.path / "server_metrics.jsonl").read_text().splitlines()
    scrapes = sorted({json.loads(line)["t"] for line in lines})
    assert all(-1 <= at < 15 for at in scrapes)
    assert max(scrapes) > 2.5
    assert len(scrapes) >= 3


def limited(kind: int, most: int) -> None:
    """Give the process that is about to start no more than that of something."""
    resource.setrlimit(kind, (most, most))


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """The run ends at once with the reason; what was written is whole and is told."""
    with mock() as served:
        load = Load(
            tmp_path, served.url, seconds=45,
            preexec_fn=partial(limited, resource.RLIMIT_FSIZE, 12_000),
        )  # fmt: skip
        watch = Stopwatch("disk-full")
        said, _ = load.process.communicate(timeout=60)
        assert (
            watch.seconds("from the command to its end, of 45 s that were asked") < 30
        )
    assert load.process.returncode == 1, said
    assert "File too large" in said
    assert "make room, or choose another --out DIR" in said
    assert "Traceback" not in said
    folder = latest(tmp_path / "runs").path
    rows = list(read_rows(folder))
    told = recover(folder, {})["requests"]
    assert len(rows) == told["sent"] > 10
    planned = told["sent"] + told["dropped"] + told["unknown"]
    assert planned == 1125


def test_a_disk_that_may_not_be_written(tmp_path: Path) -> None:
    """It is told before anything is sent, with the folder and what to do."""
    read_only = tmp_path / "sealed"
    read_only.mkdir()
    if not shutil.which("unshare"):
        pytest.skip("no unshare here: a read-only disk cannot be had")
    inside = f'mount -t tmpfs -o ro none "{read_only}" && exec "$@"'
    before = ("unshare", "--mount", "--map-root-user", "sh", "-c", inside, "sh")
    if subprocess.run([*before, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespaces here: a read-only disk cannot be had")
    with nasty(well) as server:
        load = Load(
            tmp_path / "own", server.url, "--out", str(read_only / "runs"),
            "--chars-per-token", "4",
            before=before,
        )  # fmt: skip
        said, _ = load.process.communicate(timeout=60)
    # One question is asked before every run; it is none of the plan's.
    assert server.done["well"] <= 1
    assert load.process.returncode == 1
    told = " ".join(said.split())
    assert "cannot make a run folder in" in told
    assert "Read-only file system" in told
    assert "choose --out DIR" in told
    assert "Traceback" not in said


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a disk of its own; skips where that cannot be had."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4") or not shutil.which("mount"):
        pytest.skip("a disk of its own takes root, mkfs.ext4 and mount")
    image, where = folder / "disk.img", folder / "disk"
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    options = ["-t", "ext4", "-o", "loop,errors=remount-ro"]
    mounted = subprocess.run(
        ["mount", *options, image, where], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no loop device or ext4 here: {mounted.stderr.decode().strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


def test_a_disk_that_turns_read_only(tmp_path: Path) -> None:
    """As a kernel does that no longer trusts it: every write fails from then on."""
    with small_disk(tmp_path) as disk:
        with mock() as served:
            out = disk / "runs"
            load = Load(tmp_path, served.url, "--out", str(out), seconds=45)
            rows_file = out / "latest" / "requests.jsonl"
            wait_for(lambda: rows_file.exists() and rows_file.stat().st_size)
            aborted = ["mount", "-o", "remount,abort", disk]
            subprocess.run(aborted, check=True)
            watch = Stopwatch("disk-turns-read-only")
            said, _ = load.process.communicate(timeout=60)
            assert watch.seconds("from then to its end, of 45 s that were asked") < 30
        # What is still there is to be judged, and audited, after the disk is gone.
        folder = shutil.copytree(latest(out).path, tmp_path / "runs" / "it")
    assert load.process.returncode == 1, said
    assert "Read-only file system" in said
    assert "choose another --out DIR" in said
    assert "Traceback" not in said
    rows = list(read_rows(folder))
    told = recover(folder, {})["requests"]
    assert len(rows) == told["sent"] > 0
    assert told["sent"] + told["dropped"] + told["unknown"] == 1125


def test_the_mock_has_no_descriptors_left() -> None:
    """Who comes too many is refused at once, who is inside is served; it is told."""
    few = partial(limited, resource.RLIMIT_NOFILE, 100)
    with ExitStack() as stack:
        served = stack.enter_context(mock(preexec_fn=few))
        host, _, port = served.url.removeprefix("http://").rpartition(":")

        def connect() -> socket.socket:
            made = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
            stack.enter_context(made)
            return made

        def answered(connection: socket.socket) -> bool:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n")
            return connection.recv(65536).startswith(b"HTTP/1.1 200 ")

        first = connect()
        assert answered(first)
        crowd = [connect() for _ in range(110)]
        watch = Stopwatch("descriptors-mock")
        assert crowd[-1].recv(1) == b""
        assert watch.seconds("until one too many is refused") < 5
        assert answered(first)
        assert answered(crowd[0])
        held = Path(f"/proc/{served.process.pid}/fd")
        for one in crowd:
            one.close()
        wait_for(lambda: len(list(held.iterdir())) < 90)
        assert answered(connect())
        served.process.send_signal(signal.SIGTERM)
        said, _ = served.process.communicate(timeout=PATIENCE_S)
    assert served.process.returncode == 0
    assert said.count("connections are refused: [Errno 24] Too many open files") == 1
    assert "Traceback" not in said


def test_descriptors_run_out(tmp_path: Path) -> None:
    """What had none is told as this machine's own limit; the others are answered."""
    with nasty(well, mute) as server:
        load = Load(
            tmp_path, server.url, "--chars-per-token", "4",
            "--first-byte-timeout", "3s", seconds=4,
            preexec_fn=partial(limited, resource.RLIMIT_NOFILE, 40),
        )  # fmt: skip
        ended = load.wait()
    counts = ended.requests
    assert set(ended.errors) == {"out_of_files", "timeout_first_byte"}
    assert counts["ok"] > 0
    assert counts["ok"] + counts["failed"] == counts["sent"] == 100
    assert "out_of_files, " in ended.said
    instrument = ended.run.summary["instrument"]
    assert instrument["verdict"] == "client_limited"
    assert any("raise `ulimit -n`" in reason for reason in instrument["reasons"])


def test_a_network_that_delays_loses_and_breaks(tmp_path: Path) -> None:
    """Two hosts, 40 ms apart, one packet in a hundred lost, and a second of nothing."""
    with two_hosts(delay_s=0.02, loss=0.01) as (here, there, wire):
        with mock(host=there.address, port="8000", before=there.prefix) as served:
            load = Load(tmp_path, served.url, seconds=4, before=here.prefix)
            load.wait_for_rows()
            wire.cut = True
            time.sleep(1.0)
            wire.cut = False
            ended = load.wait()
        assert wire.lost > 20
    # TCP sends again what was lost: it costs time, and no request.
    assert ended.requests["ok"] == ended.requests["sent"] == 100
    rows = ended.run.rows
    assert min(r["first_s"] - r["sent_s"] for r in rows) > 0.04
    tokens = {r["output_tokens"] for r in rows}
    assert tokens == {30}
    slow = [r["end_s"] for r in rows if r["end_s"] - r["intended_s"] > 1.5]
    normal = [r for r in rows if r["end_s"] - r["intended_s"] < 1.5]
    measured("partition-short", "until the last slow answer of a run of 4 s", max(slow))
    assert slow
    assert normal


def test_a_network_that_reorders_and_doubles(tmp_path: Path) -> None:
    """TCP puts it in order again: each answer is whole, and none has a token twice."""
    with two_hosts(delay_s=0.002, astray=0.2, twice=0.1) as (here, there, wire):
        with mock(host=there.address, port="8000", before=there.prefix) as served:
            load = Load(tmp_path, served.url, before=here.prefix)
            ended = load.wait()
        assert wire.overtaken > 50
        assert wire.doubled > 50
    assert ended.requests["ok"] == ended.requests["sent"] == 75
    assert {r["output_tokens"] for r in ended.run.rows} == {30}
    worst = max(r["end_s"] - r["intended_s"] for r in ended.run.rows)
    measured("wire-reorders", "the slowest answer", worst)
    assert worst < 10


def test_a_peer_vanishes(tmp_path: Path) -> None:
    """Half-open connections end by their limit and new ones by theirs."""
    waits = ("--connect-timeout", "1s", "--first-byte-timeout", "1s",
             "--idle-timeout", "1s")  # fmt: skip
    with (
        two_hosts() as (here, there, wire),
        mock(host=there.address, port="8000", before=there.prefix) as served,
    ):
        load = Load(tmp_path, served.url, *waits, seconds=3, before=here.prefix)
        load.wait_for_rows()
        wire.cut = True
        watch = Stopwatch("peer-vanished")
        ended = load.wait()
        took = watch.seconds("from the cut to the end of a run with 2 s left")
        wire.cut = False
    assert took < 20
    counts = ended.requests
    assert counts["ok"] + counts["failed"] == counts["sent"] == 75
    waited = {"timeout_idle", "timeout_first_byte", "timeout_connect"}
    assert {"timeout_connect"} < set(ended.errors) <= waited
    failed = [r for r in ended.run.rows if r["outcome"] != "ok"]
    assert all(r["end_s"] - r["sent_s"] < 3.0 for r in failed)
    said = " ".join(ended.said.split())
    assert "a firewall drops it, or the address leads nowhere" in said


def test_a_stopped_run_whose_clock_was_set_owes_what_was_due(tmp_path: Path) -> None:
    """Ctrl-C after the clock went an hour back: what was due is sent or dropped."""
    clock = wall_clock(tmp_path)
    with mock() as served:
        load = Load(tmp_path, served.url, seconds=20, env=clock.environ)
        load.wait_for_rows()
        clock.set(-3600)
        time.sleep(0.5)
        load.process.send_signal(signal.SIGINT)
        ended = load.wait()
    scheduled = ended.run.summary["instrument"]["scheduled"]
    assert ended.run.summary["complete"] is False
    assert ended.requests["sent"] + ended.requests["dropped"] == scheduled
    assert ended.requests["sent"] > 25
