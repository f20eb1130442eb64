"""Where requests come in, and that is shut when the server is to stop."""

import asyncio
from math import ceil
from typing import Final

from loadstone.units import Seconds
from loadstone.wire.openai_error import ApiError

_SOONEST_S: Final = 1
"""What `Retry-After` says at least: 0 would be an invitation to spin."""


class Entrance:
    """Knows which requests are inside, and lets none in once it is shut.

    A server that is told to stop goes on listening until everyone has left: whoever
    comes is told 503 and when to try again, where a closed port would look like a
    crash. Each request is inside for a `with` block.
    """

    def __init__(self, grace_s: Seconds) -> None:
        self._retry_after_s = max(_SOONEST_S, ceil(grace_s))
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self.shut = False

    def __repr__(self) -> str:
        return f"<Entrance {'shut' if self.shut else 'open'}, {self._inside} inside>"

    @property
    def empty(self) -> bool:
        """Whether nobody is inside."""
        return not self._inside

    def __enter__(self) -> None:
        """Let a request in; raises `ApiError` 503 if it is shut."""
        self.check()
        self._inside += 1
        self._empty.clear()

    def __exit__(self, *_: object) -> None:
        self._inside -= 1
        if not self._inside:
            self._empty.set()

    def check(self) -> None:
        """Raise `ApiError` 503 if it is shut."""
        if self.shut:
            raise ApiError.shutting_down(self._retry_after_s)

    async def emptied(self, patience_s: Seconds) -> bool:
        """Wait until nobody is inside; returns whether that came in time."""
        try:
            async with asyncio.timeout(patience_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
