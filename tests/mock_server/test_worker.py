"""Worker processes that die, hang or never start: what their supervisor makes of it."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

import mock_server.worker
from loadstone.errors import LoadstoneError
from mock_server.share import Share
from mock_server.worker import BACKOFF_S, State, Worker

pytestmark = pytest.mark.timeout(60)

LISTENS = "print('http://127.0.0.1:4321', flush=True); "
DIES = LISTENS + "import sys; sys.exit(3)"
SERVES = LISTENS + "import sys; sys.stdin.read()"
STUBBORN = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    + LISTENS
    + "sys.stdin.read()"
)


@pytest.fixture
def worker_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a maker of a worker whose process runs a piece of Python."""

    def make(code: str, **spec: Any) -> Worker:
        command = (sys.executable, "-S", "-c", code)
        monkeypatch.setattr(mock_server.worker, "COMMAND", command)
        monkeypatch.setattr(mock_server.worker, "BACKOFF_S", (0.0,) * len(BACKOFF_S))
        share = Share(worker=0, workers=1, of_vms=1)
        return Worker(share, spec, port=0, control=Path("x.sock"), patience_s=0.5)

    return make


def test_a_worker_that_dies_at_once_is_given_up(worker_of: Any) -> None:
    """After it was started again four times; it says so, and no process is left."""

    async def scenario() -> None:
        worker = worker_of(DIES)
        await worker.keep()
        assert worker.state is State.GIVEN_UP
        assert worker.deaths == len(BACKOFF_S) + 1
        assert worker.restarts == len(BACKOFF_S)
        assert worker.facts()["pid"] is None

    asyncio.run(scenario())


def test_a_worker_that_lived_long_is_not_counted_with_the_quick_ones(
    worker_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every life long enough it is started again as often as it dies."""
    monkeypatch.setattr(mock_server.worker, "QUICK_S", 0.0)

    async def scenario() -> None:
        worker = worker_of(DIES)
        keeping = asyncio.create_task(worker.keep())
        async with asyncio.timeout(30):
            while worker.deaths < len(BACKOFF_S) + 3:  # noqa: ASYNC110 - sets no event
                await asyncio.sleep(0.01)
        worker.stop()
        await keeping
        assert worker.state is State.STOPPED

    asyncio.run(scenario())


def test_a_worker_that_never_listened_is_an_error(worker_of: Any) -> None:
    """It is not tried again: what it lacks it will lack again."""

    async def scenario() -> None:
        worker = worker_of("import sys; sys.exit(2)")
        with pytest.raises(LoadstoneError, match="exit code 2") as caught:
            await worker.keep()
        assert caught.value.code == "worker_failed"
        assert worker.deaths == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("code", [SERVES, STUBBORN])
def test_a_worker_that_is_told_to_stop_ends(worker_of: Any, code: str) -> None:
    """By itself or, where it does not, by force; it is not started again."""

    async def scenario() -> None:
        worker = worker_of(code)
        keeping = asyncio.create_task(worker.keep())
        await worker.ready.wait()
        assert worker.url == "http://127.0.0.1:4321"
        assert worker.state is State.UP
        worker.stop()
        await keeping
        assert (worker.state, worker.deaths) == (State.STOPPED, 0)

    asyncio.run(scenario())


def test_what_a_worker_is_told_is_not_in_its_arguments(
    worker_of: Any, tmp_path: Path
) -> None:
    """But on its standard input, with the port that it had before once it restarts."""
    told = tmp_path / "told"
    code = (
        "import sys; line = sys.stdin.readline(); "
        f"open({str(told)!r}, 'a').write(line); "
    ) + DIES

    async def scenario() -> None:
        worker = worker_of(code, secret="sesame")
        await worker.keep()

    asyncio.run(scenario())
    lines = told.read_text().splitlines()
    assert len(lines) == len(BACKOFF_S) + 1
    assert all('"secret": "sesame"' in line for line in lines)
    ports = ['"port": 0' in line for line in lines]
    assert ports == [True, *[False] * len(BACKOFF_S)]
    assert all('"port": 4321' in line for line in lines[1:])
