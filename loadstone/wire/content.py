"""One pass over the events of a stream: which carry tokens, and what the others say.

In a stream of four hundred events all but a handful only add text. So an event is
looked at as bytes first, and JSON is parsed only where bytes cannot decide:

1. An event that begins exactly like the content event before it, up to the opening
   quote of the text, and does not close the quote at once, is a content event of the
   same kind.
2. Otherwise an unescaped `"content":`, `"text":` ... followed by a non-empty string
   says so. Inside a JSON string every quote is escaped: text that quotes JSON cannot
   look so.
3. Whatever is left (role-only deltas, `finish_reason`, usage, errors, unusual
   spellings) is parsed; so are the first and the last content event if they tell a
   usage, the last one also if no other told why the answer ended and what it used,
   and the event with the truth.
"""

import json
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Final

import msgspec

from ..traffic.record import Truth
from ..units import Seconds
from ..vocabulary import TRUTH_FIELD
from .chunks import (
    Chunk,
    ErrorObject,
    Kind,
    Usage,
    answer_of,
    finish_reason_of,
    kind_of,
    opens,
    parse,
    spot,
    truth_of,
)
from .sse import Events

MAX_UNREADABLE: Final = 100
"""After so many events that are not JSON the rest is not looked at: this is no
answer."""

_QUOTE: Final = 34
_LITERAL = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_TRUTH_KEY: Final = f'"{TRUTH_FIELD}":'.encode()
_NO_PREFIX: Final = ()
"""Nothing starts with one of no prefixes."""


class Words(msgspec.Struct, frozen=True):
    """The texts of a stream, still in its bytes: joining them costs, so ask for it.

    `places` has, per content event, the offset of its text after the opening quote; a
    negative one, `~i`, stands for an event that has to be parsed, `events.payload(i)`.
    `runs` says from which place on the events are of which kind.
    """

    events: Events
    places: "array[int]"
    runs: list[tuple[int, Kind]]

    def __repr__(self) -> str:
        return f"<Words of {len(self.places)} events>"

    def lengths(self) -> list[int] | None:
        """Return the bytes of each text as escaped, None if one has to be parsed."""
        if min(self.places, default=-1) < 0:
            return None
        return [len(_literal(self.events.body, at)) for at in self.places]

    def text(self) -> str:
        """Join the visible texts; 0.4 us per event."""
        joined = b"".join(map(self._escaped, self._visible()))
        try:
            text: str = json.loads(b'"' + joined + b'"', strict=False)
        except ValueError:
            text = joined.decode(errors="replace")
        return text

    def _visible(self) -> Iterator[int]:
        runs = [*self.runs, (len(self.places), None)]
        for (begin, kind), (end, _) in pairwise(runs):
            if kind is Kind.ANSWER:
                yield from self.places[begin:end]

    def _escaped(self, place: int) -> bytes:
        if place >= 0:
            return _literal(self.events.body, place)
        chunk = parse(self.events.payload(~place)) or {}
        return json.dumps(answer_of(chunk))[1:-1].encode()


class Notes:
    """What parsed chunks say beside their text."""

    __slots__ = ("done", "error", "finish_reason", "truth", "unreadable", "usage")

    def __init__(self) -> None:
        self.done = False
        self.error: ErrorObject | None = None
        self.finish_reason: str | None = None
        self.truth: Truth | None = None
        self.unreadable = 0
        self.usage: Usage | None = None

    def __repr__(self) -> str:
        said = (name for name in self.__slots__ if getattr(self, name))
        return f"<Notes on {', '.join(said) or 'nothing'}>"

    def take(self, chunk: Chunk) -> None:
        """Note what a chunk says; the first to say it counts, but the largest usage.

        With a usage in every chunk the largest is the last, in whatever order they
        come.
        """
        self.error = self.error or ErrorObject.of(chunk)
        self.finish_reason = self.finish_reason or finish_reason_of(chunk)
        if TRUTH_FIELD in chunk:
            self.truth = self.truth or truth_of(chunk)
        usage, known = Usage.of(chunk), self.usage
        if usage and (known is None or usage.size > known.size):
            self.usage = usage


class ContentScan:
    """The content events of a stream: `stamps`, `words`, and `notes` on the rest."""

    __slots__ = (
        "_events",
        "first_answer",
        "first_tool",
        "first_usage",
        "notes",
        "stamps",
        "words",
    )

    def __init__(self, events: Events) -> None:
        self._events = events
        self.first_answer: Seconds | None = None
        """The first content event that was not reasoning."""
        self.first_tool: Seconds | None = None
        """The first content event that was of a tool call."""
        self.first_usage: Usage | None = None
        """The usage that came with the first content event."""
        self.notes = Notes()
        self.stamps = array("d")
        self.words = Words(events, array("q"), [])
        self._run()

    def __repr__(self) -> str:
        return f"<ContentScan {len(self.stamps)} content events of {self._events!r}>"

    def _run(self) -> None:
        events, put, place = self._events, self.stamps.append, self.words.places.append
        body, stamps, startswith = events.body, events.stamps, events.body.startswith
        prefix: bytes | tuple[()] = _NO_PREFIX
        width, last = 0, -1
        whole = len(events) - events.cut
        for index, start in enumerate(islice(events.starts, whole)):
            # NOTE: this `if` is the per-token cost of a stream: 0.25 us; `spot` is 0.7.
            if startswith(prefix, start) and body[start + width] != _QUOTE:
                put(stamps[index])
                place(start + width)
                last = index
            elif spotted := spot(body, start, events.ends[index]):
                kind, text = spotted
                prefix, width, last = body[start:text], text - start, index
                self._content(index, kind, text)
            else:
                self._consider(index)
        if events.cut:
            self._consider(whole)
        told = self.notes.finish_reason is not None and self.notes.usage is not None
        if last >= 0 and (not told or self._tells_usage(last)):
            self._look(last)
        self._find_truth()

    def _consider(self, index: int) -> None:
        """Parse an event to see whether it carries tokens."""
        events = self._events
        if index == 0 and opens(events.body, events.starts[0], events.ends[0]):
            return
        chunk = self._look(index)
        kind = kind_of(chunk) if chunk else None
        if kind is not None:
            self._content(index, kind, ~index, chunk)

    def _content(
        self, index: int, kind: Kind, place: int, chunk: Chunk | None = None
    ) -> None:
        """Add a content event that is not quite like the one before it."""
        stamp = self._events.stamps[index]
        if not self.stamps:
            if chunk is None and self._tells_usage(index):
                chunk = self._look(index)
            self.first_usage = None if chunk is None else Usage.of(chunk)
        if self.first_answer is None and kind is not Kind.THOUGHT:
            self.first_answer = stamp
        if self.first_tool is None and kind is Kind.TOOL:
            self.first_tool = stamp
        runs = self.words.runs
        if not runs or runs[-1][1] is not kind:
            runs.append((len(self.stamps), kind))
        self.stamps.append(stamp)
        self.words.places.append(place)

    def _tells_usage(self, index: int) -> bool:
        events = self._events
        return (
            events.body.find(b'"usage"', events.starts[index], events.ends[index]) >= 0
        )

    def _look(self, index: int) -> Chunk | None:
        """Parse an event and note what it says; None if it is not a JSON object."""
        notes, payload = self.notes, self._events.payload(index)
        if payload.startswith(b"[DONE]"):
            notes.done = True
            return None
        if not payload or notes.unreadable >= MAX_UNREADABLE:
            return None
        chunk = parse(payload)
        if chunk is not None:
            notes.take(chunk)
        elif not (self._events.cut and index == len(self._events) - 1):
            notes.unreadable += 1
        return chunk

    def _find_truth(self) -> None:
        """Look for the truth where only a content event could still have it."""
        events = self._events
        at = -1 if self.notes.truth else events.body.rfind(_TRUTH_KEY)
        if at >= 0:
            index = bisect_right(events.starts, at) - 1
            chunk = parse(events.payload(index)) if index >= 0 else None
            self.notes.truth = truth_of(chunk or {})


def _literal(body: bytes, start: int) -> bytes:
    """Return the inside of a JSON string, still escaped."""
    match = _LITERAL.match(body, start)
    return match[0] if match else b""
