"""Watchers are told in order; one that fails is switched off, and the work goes on."""

import pytest

from loadstone.observers import Observers


class Watcher:
    """Notes what it is told; fails when its name is said."""

    def __init__(self, name: str, heard: list[tuple[str, str]]) -> None:
        self.name = name
        self.heard = heard

    def sent(self, what: str) -> None:
        """Hear of a request."""
        self.heard.append((self.name, what))
        if what == self.name:
            raise RuntimeError(f"{self.name} is broken")


class Thorough(Watcher):
    """Has a second hook."""

    def done(self, what: str, n: int) -> None:
        """Hear of an end."""
        self.heard.append((self.name, what * n))


@pytest.fixture
def heard() -> list[tuple[str, str]]:
    """Return who was told what, in order."""
    return []


@pytest.fixture
def failures() -> list[tuple[object, str, str]]:
    """Return what was reported of failing watchers."""
    return []


@pytest.fixture
def observers(failures: list[tuple[object, str, str]]) -> Observers:
    """Return a dispatcher without watchers."""
    return Observers(lambda who, hook, why: failures.append((who, hook, str(why))))


def test_all_who_have_the_hook_are_told_in_order(
    observers: Observers, heard: list[tuple[str, str]]
) -> None:
    """Those without it are passed over, and so is a hook that nobody has."""
    observers.add(Watcher("a", heard))
    observers.add(Thorough("b", heard))
    observers.notify("sent", "x")
    observers.notify("done", "y", 2)
    observers.notify("nobody", "z")
    assert heard == [("a", "x"), ("b", "x"), ("b", "yy")]
    assert repr(observers) == "<Observers ['Watcher', 'Thorough']>"


def test_failing_watcher_is_switched_off_and_reported_once(
    observers: Observers,
    heard: list[tuple[str, str]],
    failures: list[tuple[object, str, str]],
) -> None:
    """The others hear everything, what made it fail too; it hears no hook again."""
    broken = Thorough("b", heard)
    for watcher in (Watcher("a", heard), broken, Watcher("c", heard)):
        observers.add(watcher)
    for what in ("b", "b", "x"):
        observers.notify("sent", what)
    observers.notify("done", "y", 1)
    assert failures == [(broken, "sent", "b is broken")]
    assert heard == [
        ("a", "b"), ("b", "b"), ("c", "b"), ("a", "b"), ("c", "b"),
        ("a", "x"), ("c", "x"),
    ]  # fmt: skip


def test_watchers_come_and_go_between_notices(
    observers: Observers, heard: list[tuple[str, str]]
) -> None:
    """Who listens is asked anew after a change; a stranger may be removed."""
    first, second = Watcher("a", heard), Watcher("b", heard)
    observers.notify("sent", "0")
    observers.add(first)
    observers.notify("sent", "1")
    observers.add(second)
    observers.notify("sent", "2")
    observers.remove(first)
    observers.remove(object())
    observers.notify("sent", "3")
    assert heard == [("a", "1"), ("a", "2"), ("b", "2"), ("b", "3")]


def test_interrupt_in_a_watcher_is_not_swallowed(
    observers: Observers, failures: list[tuple[object, str, str]]
) -> None:
    """Ctrl-C is for the program, whoever was running."""

    class Interrupted:
        def sent(self) -> None:
            raise KeyboardInterrupt

    observers.add(Interrupted())
    with pytest.raises(KeyboardInterrupt):
        observers.notify("sent")
    assert failures == []
