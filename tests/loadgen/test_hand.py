"""A worker's side: one order, one share, and rows where its master can have them."""

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadgen.coordinator import Order
from loadgen.folder import RunFolder
from loadgen.hand import Hand
from loadgen.messages import CHUNK, CLOCK, FETCH, GO, HERE
from loadgen.options import read_options
from loadstone.errors import LoadstoneError
from loadstone.runs import RunFiles
from loadstone.traffic.plan import Plan, plan_hash

PLAN = Plan(hosts=("http://h",), model="m", users=1)


class Runner:
    """Locust's, as far as messages go."""

    def __init__(self) -> None:
        self.listeners: dict[str, Any] = {}
        self.sent: list[tuple[str, Any]] = []

    def register_message(self, name: str, listener: Any, **_: Any) -> None:
        """Remember who listens."""
        self.listeners[name] = listener

    def send_message(self, name: str, data: Any = None) -> None:
        """Remember what was sent."""
        self.sent.append((name, data))

    def hear(self, name: str, data: Any = None) -> None:
        """Hand a message of the master's on."""
        self.listeners[name](environment=None, msg=SimpleNamespace(data=data))


def hand(out: Path) -> tuple[Hand, Runner]:
    """Return a worker, and the Locust that it is attached to."""
    runner = Runner()
    event = SimpleNamespace(add_listener=lambda _: None)
    environment = SimpleNamespace(
        runner=runner,
        parsed_options=SimpleNamespace(out=str(out)),
        events=SimpleNamespace(heartbeat_received=event),
    )
    return Hand(environment, lambda: None), runner


def order(folder: Path, run_id: str = "a") -> Order:
    """Return an order for the second of two workers."""
    values = read_options({"model": "m"})
    digest = plan_hash(PLAN, [])
    return Order(1, 2, 1000.0, PLAN.to_toml(), digest, str(folder), values, 2.5, run_id)


def test_its_own_folder_keeps_what_was_given_as_nothing(tmp_path: Path) -> None:
    """A drain of 0 s, no retries and `false` are values, and no defaults."""
    given = {"drain": "0s", "max_retries": "0", "ignore_eos": "false", "rate": "2"}
    worker, runner = hand(tmp_path / "mine")
    asked = replace(order(tmp_path / "gone"), values=read_options(given))
    runner.hear(GO, asked.message())
    folder = Path(worker.order().folder)
    assert folder.parent == tmp_path / "mine"
    again = read_options(RunFiles(folder).plan()["options"])
    assert {name: again[name] for name in given} == {
        "drain": 0.0, "max_retries": 0, "ignore_eos": False, "rate": 2.0,
    }  # fmt: skip


def test_an_order_that_comes_twice_is_carried_out_once(tmp_path: Path) -> None:
    """The same run's, that is; without one nothing begins."""
    RunFolder(tmp_path).write_environment(None, 2, run_id="a")
    worker, runner = hand(tmp_path / "own")
    with pytest.raises(LoadstoneError, match="without an order"):
        worker.order()
    given = order(tmp_path)
    runner.hear(GO, given.message())
    assert worker.order() == given
    runner.hear(GO, given.message())
    with pytest.raises(LoadstoneError, match="without an order"):
        worker.order()
    RunFolder(tmp_path).write_environment(None, 2, run_id="b")
    runner.hear(GO, replace(given, run_id="b").message())
    assert worker.order().run_id == "b"


def test_without_the_run_s_folder_rows_go_into_one_of_its_own(tmp_path: Path) -> None:
    """It is a run's folder: plan, hash, id, rank, and t0 on this clock."""
    worker, runner = hand(tmp_path / "own")
    given = order(tmp_path / "runs" / "20261123-120000-chat")
    runner.hear(GO, given.message())
    path = tmp_path / "own" / "20261123-120000-chat"
    assert worker.order() == replace(given, folder=str(path))
    files = RunFiles.open(path)
    assert files.plan()["plan_hash"] == given.plan_hash
    assert Plan.from_toml(files.plan()["plan"]) == PLAN
    told = files.environment()
    assert (told["run_id"], told["rank"], told["workers"]) == ("a", 1, 2)
    assert told["t0_epoch"] == 1002.5


def test_it_tells_its_clock_and_its_rows(tmp_path: Path) -> None:
    """What the master asks for, and nothing before there are rows."""
    worker, runner = hand(tmp_path)
    assert runner.sent == [(HERE, None)]
    runner.sent.clear()
    runner.hear(CLOCK)
    ((name, clock),) = runner.sent
    assert (name, set(clock)) == (CLOCK, {"shown"})
    runner.hear(FETCH, {"offset": 0})
    assert len(runner.sent) == 1
    worker._rows = tmp_path / "rows"
    worker._rows.write_bytes(b"row")
    runner.hear(FETCH, {"offset": 3})
    name, chunk = runner.sent[-1]
    assert (name, chunk["offset"]) == (CHUNK, 3)


def test_an_order_travels_as_plain_values(tmp_path: Path) -> None:
    """And has no key in it."""
    message = order(tmp_path).message()
    assert Order(**message) == order(tmp_path)
    assert message == asdict(order(tmp_path))
    assert not any("key" in name and value for name, value in message["values"].items())
