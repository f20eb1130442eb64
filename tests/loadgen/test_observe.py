"""Who watches a run is told of it first, however late they come."""

from types import SimpleNamespace
from typing import Any

import gevent

from loadgen.control import Control
from loadgen.hooks import Begun
from loadstone.errors import LoadstoneError
from loadstone.traffic.plan import Plan

BEGUN = Begun("20261123-120000-chat", Plan(hosts=("http://h",), users=1), 0.0)


class Watcher:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def run_began(self, begun: Begun) -> None:
        """Remember a run."""
        self.told.append(begun)

    def request_ended(self, row: Any) -> None:
        """Remember a request."""
        self.told.append(row)


def control() -> Control:
    """Return a control attached to a Locust in which nothing happens."""
    event = SimpleNamespace(add_listener=lambda _: None)
    environment = SimpleNamespace(
        parsed_options=SimpleNamespace(worker=False, master=False),
        events=SimpleNamespace(test_start=event, test_stop=event),
        runner=None,
    )
    return Control(environment, render=lambda _: b"", tell=lambda *_: None)


def test_an_observer_of_before_is_told_once() -> None:
    """Before a run there is nothing to tell; the run itself is told as it begins."""
    attached, watcher = control(), Watcher()
    attached.observe(watcher)
    assert watcher.told == []
    attached.observers.notify("run_began", BEGUN)
    assert watcher.told == [BEGUN]


def test_a_late_observer_is_told_of_the_run_that_is_on() -> None:
    """A worker gets its order while it sets up its exporter; no request comes first."""
    attached, watcher = control(), Watcher()
    attached._begun, attached.session = BEGUN, SimpleNamespace()
    attached.observe(watcher)
    attached.observers.notify("request_ended", "row")
    assert watcher.told == [BEGUN, "row"]


def test_a_run_that_is_over_is_not_told() -> None:
    """Who comes between two runs hears of the next one alone."""
    attached, watcher = control(), Watcher()
    attached._begun, attached.session = BEGUN, None
    attached.observe(watcher)
    assert watcher.told == []


def test_a_run_that_fails_once_it_sends_sends_no_more() -> None:
    """Such as one whose server cannot be watched: nobody else would end its session."""
    attached: Any = control()
    ended: list[str] = []
    attached._environment.runner = SimpleNamespace(stop=lambda: None)
    attached._environment.parsed_options.headless = False
    attached.session = SimpleNamespace(stop=lambda: ended.append("session"))
    attached.run = SimpleNamespace(end_watch=lambda: ended.append("watch"))
    attached._fail(LoadstoneError("no more processes"))
    gevent.sleep(0)
    assert ended == ["session", "watch"]
    assert (attached.session, attached.run) == (None, None)
