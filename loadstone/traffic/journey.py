"""Requests that depend on each other: which are due once one has ended.

The schedule is a flat list; requests of one conversation stand side by side in it. Only
those of turn 0 are due at a time that is known beforehand. A turn is due `think_s`
after the last answer of the turn before it, whatever became of that answer: the load is
the plan's, and a server that fails is not spared the rest.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from ..units import Seconds
from .request import Request

Journey = tuple[Request, ...]
"""One arrival: a request that stands alone, or a conversation, by turns."""


def journeys_of(requests: Iterable[Request]) -> Iterator[Journey]:
    """Split a schedule into its journeys, as soon as each is known to be whole."""
    group: list[Request] = []
    for request in requests:
        if group and request.conversation != group[0].conversation:
            yield tuple(group)
            group = []
        if request.conversation:
            group.append(request)
        else:
            yield (request,)
    if group:
        yield tuple(group)


class Journeys:
    """The conversations that are under way."""

    def __init__(self, until: Seconds) -> None:
        """`until` is when arrivals end: a turn that is due later is never asked."""
        self.undue = 0
        """Requests of turns that will never be due."""
        self._until: Final = until
        self._later: dict[str, list[Journey]] = {}
        self._open: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Journeys {len(self._open)} under way, {self.undue} undue>"

    def begin(self, journey: Journey) -> Journey:
        """Note a journey that begins, and return its first requests."""
        name = journey[0].conversation
        if not name:
            return journey
        turns = [tuple(turn) for _, turn in groupby(journey, key=lambda r: r.turn)]
        self._open[name] = len(turns[0])
        self._later[name] = turns[:0:-1]
        return turns[0]

    def ended(self, request: Request, at: Seconds) -> Journey:
        """Hear that a request ended; return those that are due by it, with their times.

        They share one time, at `at` or later.
        """
        name = request.conversation
        if name not in self._open:
            return ()
        self._open[name] -= 1
        if self._open[name]:
            return ()
        following = self._later[name].pop() if self._later[name] else ()
        due = at + (following[0].think_s if following else 0.0)
        if not following or due >= self._until:
            self.undue += len(following) + sum(map(len, self._later.pop(name)))
            del self._open[name]
            return ()
        self._open[name] = len(following)
        return tuple(each.but(intended_s=due) for each in following)

    def under_way(self, request: Request) -> bool:
        """Whether its conversation is not at its end."""
        return request.conversation in self._open
