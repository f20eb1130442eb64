"""Events of an answer that is more than filler: made from its pieces as they are due.

A plain stream is head + filler + tail, and no text is made for it. Everything else
(reasoning, tool calls, JSON, log probabilities, usage in each event) goes the same way
through the same sink, which asks a `Script` for the event of its next tokens.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..units import Tokens


def nothing() -> bytes:
    """Write no event."""
    return b""


@dataclass(frozen=True, slots=True)
class Run:
    """The tokens of one segment, and how to write them.

    `encode(text, start, stop)` writes the event that shows `text`, which is that of the
    answer's tokens from `start` to `stop`; it is not asked about tokens that show
    nothing. `before` and `after` write what surrounds the segment.
    """

    pieces: Sequence[str]
    encode: Callable[[str, Tokens, Tokens], bytes]
    before: Callable[[], bytes] = nothing
    after: Callable[[], bytes] = nothing


class Script:
    """The events of one answer, to be asked for in order."""

    def __init__(self, runs: Sequence[Run], frame: Callable[[bytes], bytes]) -> None:
        self._runs = runs
        self._frame = frame
        self._run = 0
        self._done: Tokens = 0
        """Tokens written."""
        self._begin: Tokens = 0
        """Tokens of the runs before the present one."""

    def __repr__(self) -> str:
        return f"<Script {self._done} tokens written, in run {self._run}>"

    def event(self, tokens: Tokens) -> bytes:
        """Write the next tokens, framed: one event, or one for each run they are of."""
        out: list[bytes] = []
        stop = self._done + tokens
        while self._done < stop:
            out.extend(self._part(stop))
        data = b"".join(out)
        return self._frame(data) if data else b""

    def _part(self, stop: Tokens) -> list[bytes]:
        run, begin, start = self._runs[self._run], self._begin, self._done
        end = begin + len(run.pieces)
        upto = min(stop, end)
        out = [run.before()] if start == begin else []
        text = "".join(run.pieces[start - begin : upto - begin])
        if text:
            out.append(run.encode(text, start, upto))
        if upto == end:
            out.append(run.after())
            self._run += 1
            self._begin = end
        self._done = upto
        return out


def escaped(text: str) -> bytes:
    """Return the inside of a JSON string.

    Line separators of Unicode are escaped: some readers of event streams split there.
    """
    return json.dumps(text, ensure_ascii=not text.isprintable())[1:-1].encode()
