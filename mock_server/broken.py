"""Faults on the wire: what a client reads of an answer that was computed as any other.

A `FaultyTransport` stands between a sink and its connection, for one answer, so that
the path of the others has no branch for it. It takes apart what the sink writes, event
by event, spoils them, and puts them in chunks of their own again.
"""

import json
import socket
import struct
from asyncio import Future, Transport
from collections.abc import Callable
from typing import Final

from loadstone.units import Seconds
from loadstone.wire.openai_reply import LAST_CHUNK

from .faults import Fault

Later = Callable[[Seconds], Future[None]]
"""Gives what is done after so many seconds."""

_GAP: Final = b"\n\n"
_LINGER_NOT: Final = struct.pack("ii", 1, 0)


class FaultyTransport:
    """A connection on which event number `after` of an answer is where it goes wrong.

    `struck` is called when it does: an answer may be over before.
    """

    def __init__(
        self, transport: Transport, fault: Fault, *, chunked: bool, later: Later,
        struck: Callable[[], None],
    ) -> None:  # fmt: skip
        self.fault = fault
        self._transport = transport
        self._chunked = chunked
        self._later = later
        self._struck = struck
        self._at = int(fault.values.get("after", 0))
        self._index = 0
        self._held: list[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.fault.kind} at event {self._index}>"

    def write(self, data: bytes) -> None:
        """Send what a sink wrote, as the fault lets it."""
        events, ended = _taken_apart(data, chunked=self._chunked)
        for event in events:
            if self._index == self._at:
                self._struck()
                self.strike()
            if self._transport.is_closing():
                return
            self._index += 1
            changed = self.change(event, self._index - 1 == self._at)
            if changed:
                self._send(_framed(changed) if self._chunked else changed)
        if ended and not self._transport.is_closing():
            self._send(LAST_CHUNK)

    def strike(self) -> None:
        """Go wrong, before the event at which it does."""

    def change(self, event: bytes, here: bool) -> bytes:  # noqa: ARG002, FBT001 - one signature
        """Return an event as it goes out; `here`: it is the one that goes wrong."""
        return event

    async def finish(self) -> None:
        """Take note that the answer is complete; returns when all of it is sent."""
        self.release()

    def hold(self) -> None:
        """Keep back what is written from now on."""
        self._held = []

    def release(self) -> None:
        """Send what was kept back, and keep back nothing more."""
        held, self._held = self._held, None
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))

    def _send(self, data: bytes) -> None:
        if self._held is None:
            self._transport.write(data)
        else:
            self._held.append(data)

    def is_closing(self) -> bool:
        """Say whether nothing can be sent any more."""
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        """Return what the client has not taken: what is held back is not its fault."""
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()


class Late(FaultyTransport):
    """Nothing goes out for a while; what was due meanwhile comes in one go."""

    _timer: Future[None] | None = None

    def strike(self) -> None:
        """Hold, and set the timer."""
        self.hold()
        self._timer = self._later(self.fault.number("delay"))
        self._timer.add_done_callback(lambda _: self.release())

    async def finish(self) -> None:
        """Wait for the timer, if it still runs."""
        if self._timer is not None:
            await self._timer
        self.release()


class AllAtOnce(FaultyTransport):
    """Everything at the end, as through a proxy that buffers."""

    def strike(self) -> None:
        """Hold until the answer is complete."""
        self.hold()


class Cut(FaultyTransport):
    """The connection ends: in order but for the end of the body, or by a reset."""

    def strike(self) -> None:
        """End it."""
        cut(self._transport, self.fault)


class Spoilt(FaultyTransport):
    """One event is not what it should be."""

    def change(self, event: bytes, here: bool) -> bytes:  # noqa: FBT001 - one signature
        """Break the one event."""
        return _BREAKS[self.fault.kind](event) if here else event


class Uncounted(FaultyTransport):
    """No event has a usage."""

    def change(self, event: bytes, here: bool) -> bytes:  # noqa: ARG002, FBT001 - one signature
        """Take the usage out, and with it an event that has nothing else."""
        return without_usage(event)


BROKEN: Final[dict[str, type[FaultyTransport]]] = {
    "slow_first_token": Late,
    "stall": Late,
    "truncate": Cut,
    "reset": Cut,
    "malformed_json": Spoilt,
    "malformed_sse": Spoilt,
    "buffer": AllAtOnce,
    "no_usage": Uncounted,
}
"""How each fault of the wire is done to a stream."""


def cut(transport: Transport, fault: Fault) -> None:
    """End a connection in the middle of a body: `reset` with RST, else with FIN."""
    if fault.kind != "reset":
        transport.close()
        return
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    transport.abort()


def half(data: bytes) -> bytes:
    """Return the first half of a body or a payload: what is no JSON any more."""
    return data[: len(data) // 2]


def without_usage(data: bytes) -> bytes:
    """Return an event or a body without its usage, nothing if nothing is left."""
    head, brace, rest = data.partition(b"{")
    if b'"usage":' not in rest:
        return data
    value = json.loads(brace + rest)
    within = value.get("response", value)
    within.pop("usage", None)
    if within.get("choices") == []:
        return b""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return head + text + (_GAP if data.endswith(_GAP) else b"")


def _half_event(event: bytes) -> bytes:
    return half(event) + _GAP


def _run_on(event: bytes) -> bytes:
    """Leave the blank line out: with the next one it is one event, and no JSON."""
    return event.removesuffix(b"\n")


_BREAKS: Final = {"malformed_json": _half_event, "malformed_sse": _run_on}


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _taken_apart(data: bytes, *, chunked: bool) -> tuple[list[bytes], bool]:
    """Return the events of what a sink wrote, and whether it ended the body."""
    ended = False
    if chunked:
        parts = []
        while data:
            size, _, rest = data.partition(b"\r\n")
            n = int(size, 16)
            parts.append(rest[:n])
            data = rest[n + 2 :]
        ended = bool(parts) and not parts[-1]
        data = b"".join(parts)
    return [event + _GAP for event in data.split(_GAP) if event], ended
