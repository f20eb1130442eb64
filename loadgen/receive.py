"""When the kernel had the bytes: receive stamps, and how they map to our clock.

A stamp at the read is late by however long the bytes lay in the socket. Linux says with
`SO_TIMESTAMPING` when a segment came in; the difference is the client's own lag, known
for any endpoint, also where a server tells no truth. The stamp is that
of the last segment read, which is the one that completed an event.

**How does it map to the monotonic clock?** The kernel stamps in CLOCK_REALTIME, reads
are stamped in CLOCK_MONOTONIC. Both are slewed alike (clock_gettime(2)), so their
offset stands still until somebody *sets* the time of day. It is read before and after
each exchange, the tightest of a few paired readings each time; if the two differ, the
clock was set in between and the lags of that exchange are dropped.

Absent, and said to be: on other systems than Linux, on Unix sockets (which take the
option and give no stamps), and for the first segment after the option was first set on
a machine, which the kernel lets pass unstamped.
"""

import socket
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from operator import sub
from time import monotonic, time
from typing import Any, Final

from loadstone.buckets import BucketArray
from loadstone.units import Seconds

_SO_TIMESTAMPING: Final = 37
"""asm-generic/socket.h: x86, ARM, RISC-V, POWER, s390. Python does not name it."""
_FLAGS: Final = 1 << 3 | 1 << 4
"""SOF_TIMESTAMPING_RX_SOFTWARE and SOF_TIMESTAMPING_SOFTWARE: linux/net_tstamp.h."""
NOTE_SIZE: Final = socket.CMSG_SPACE(3 * struct.calcsize("@ll"))
"""Room for the one control message: three timespecs, the software stamp first."""
unpack_stamp: Final = struct.Struct("@ll").unpack_from
"""Reads seconds and nanoseconds since the epoch from a control message's data."""

CLOCK_SET_S: Final = 100e-6
"""Readings of the offset that differ by more are taken for a clock that was set; two
readings of the same offset differ by less than 1 us, unless we lost the core in all of
them."""
LAG_BOUNDS: Final = tuple(
    digit * 10.0**exponent for exponent in range(-5, 2) for digit in (1, 2, 5)
)
"""10 us to 50 s in steps of 1, 2, 5; the verdict's limit is one of them."""
_READINGS: Final = 3
_TIGHT_S: Final = 5e-6
"""A paired reading that took no longer is good enough; most take 0.2 us."""
_FEW: Final = 20
"""So many lags are counted one by one; more are sorted first, at a tenth the cost."""


def stamp_reads(dialled: Any) -> None:
    """Ask for receive stamps, before connecting; a no is no error."""
    if sys.platform == "linux":
        try:
            dialled.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _FLAGS)
        except OSError:
            return


def why_absent(*, unix: bool) -> str:
    """Say why a run has no receive stamps."""
    if unix:
        return "Unix sockets have no receive stamps"
    if sys.platform != "linux":
        return "only Linux has receive stamps"
    return "the kernel gave no receive stamps, or no answer came"


def wall_offset() -> Seconds:
    """Return time of day minus monotonic clock, from a tight pair of readings.

    If we lose the core within one, another is taken. Right to half of the time that a
    reading takes.
    """
    best, offset = float("inf"), 0.0
    for _ in range(_READINGS):
        before = monotonic()
        wall = time()
        after = monotonic()
        if after - before < best:
            best, offset = after - before, wall - (before + after) / 2
        if best <= _TIGHT_S:
            break
    return offset


class ReceiveLags:
    """How long bytes lay in the kernel before they were read, over many exchanges."""

    __slots__ = ("clock_set", "histogram")

    def __init__(self) -> None:
        self.histogram = BucketArray(LAG_BOUNDS)
        """Seconds, one value per read whose stamp was asked for and given."""
        self.clock_set = 0
        """Exchanges whose lags were dropped because the time of day was set."""

    def __repr__(self) -> str:
        return f"<ReceiveLags {self.histogram!r}, {self.clock_set} dropped>"

    @property
    def p99(self) -> Seconds | None:
        """What the verdict takes; None without any."""
        return self.histogram.quantile(0.99)

    def snapshot(self) -> dict[str, Any]:
        """Return everything as numbers and lists."""
        counts, total = list(self.histogram.counts), self.histogram.total
        return {"counts": counts, "total": total, "clock_set": self.clock_set}

    def merge(self, snapshot: Mapping[str, Any]) -> None:
        """Add another process's snapshot."""
        self.histogram.merge(snapshot["counts"], snapshot["total"])
        self.clock_set += snapshot["clock_set"]

    def add(self, lags: "array[float]") -> None:
        """Add the lags of an exchange."""
        if len(lags) <= _FEW:
            for lag in lags:
                self.histogram.add(lag)
            return
        ranked = sorted(lags)
        below = [bisect_right(ranked, bound) for bound in LAG_BOUNDS]
        counts = map(sub, [*below, len(ranked)], [0, *below])
        self.histogram.merge(list(counts), sum(ranked))


def lag_at(
    stamps: Sequence[float], lags: Sequence[float], instant: Seconds | None
) -> Seconds | None:
    """Return the lag of the read stamped `instant`, None if it is not known."""
    index = len(stamps) if instant is None else bisect_left(stamps, instant)
    return lags[index] if index < len(stamps) and stamps[index] == instant else None
