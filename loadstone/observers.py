"""Tell those who watch. An observer that raises is switched off; the work goes on."""

from collections.abc import Callable
from typing import Any


class Observers:
    """A dispatcher of named hooks to observers that implement any of them.

    `notify("first_token", x)` calls `first_token(x)` on each observer that has it, in
    the order they were added. A failing observer is removed and reported once to
    `on_failure`.
    """

    def __init__(self, on_failure: Callable[[object, str, Exception], None]) -> None:
        self._observers: list[object] = []
        self._hooks: dict[str, list[tuple[object, Callable[..., None]]]] = {}
        self._on_failure = on_failure

    def __repr__(self) -> str:
        return f"<Observers {[type(o).__name__ for o in self._observers]}>"

    def add(self, observer: object) -> None:
        """Start telling `observer`."""
        self._observers.append(observer)
        self._hooks.clear()

    def remove(self, observer: object) -> None:
        """Stop telling `observer`; one that was never added is ignored."""
        self._observers = [o for o in self._observers if o is not observer]
        self._hooks.clear()

    def notify(self, hook: str, *args: Any) -> None:
        """Call `hook` on every observer that has it."""
        listeners = self._hooks.get(hook)
        if listeners is None:
            listeners = self._hooks[hook] = [
                (o, getattr(o, hook)) for o in self._observers if hasattr(o, hook)
            ]
        for observer, listener in listeners:
            try:
                listener(*args)
            except Exception as failure:  # noqa: BLE001 - a watcher must not stop the work
                self.remove(observer)
                self._on_failure(observer, hook, failure)
