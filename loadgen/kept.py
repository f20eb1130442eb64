"""A page that costs little to ask for often: it is made once a second at most.

It is made in the loop that reads answers, which stands still meanwhile: a page of a run
with eight slices takes some milliseconds. Whoever asks for a hundred at once is given
the same one, with a turn of the loop between two.
"""

from collections.abc import Callable
from typing import Final

import gevent

from loadstone.clock import Clock
from loadstone.units import Seconds

KEEP_S: Final[Seconds] = 1.0
"""How old a page may be. Prometheus asks every 15 s, a demo every 1 to 5."""


class Kept:
    """Gives what `make` returns, or what it returned less than `KEEP_S` ago."""

    def __init__(self, make: Callable[[], bytes], clock: Clock) -> None:
        self._make = make
        self._clock = clock
        self._page = b""
        self._until = float("-inf")

    def __repr__(self) -> str:
        return f"<Kept page of {len(self._page)} bytes>"

    def __call__(self) -> bytes:
        """Return the page, after others had their turn."""
        gevent.sleep(0)
        now = self._clock.now()
        if now >= self._until:
            self._page, self._until = self._make(), now + KEEP_S
        return self._page
