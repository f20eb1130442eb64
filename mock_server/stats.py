"""What the server counts: numbers and bucket arrays, read when scraped.

Nothing is pushed anywhere and nothing is counted per token: the gaps between tokens of
a step are one addition weighted by the batch.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Literal

from loadstone.buckets import BucketArray
from loadstone.vocabulary import Server

FinishedReason = Literal["stop", "length", "abort"]


class EngineStats:
    """What happened on one engine, seen from the server's edge, in seconds.

    `ttft` and `e2e` run from the request's receipt to the write of its first and last
    token, so they hold what clients were made to wait, lateness of this process
    included. `itl` is the emulated step time, once for each sequence that decoded in
    it. `lag` is one value per step: the end of its writes against the emulated
    schedule.
    """

    __slots__ = ("e2e", "finished", "itl", "lag", "ttft")

    def __init__(self) -> None:
        self.ttft = BucketArray(Server.TTFT.bounds)
        self.itl = BucketArray(Server.ITL.bounds)
        self.e2e = BucketArray(Server.E2E.bounds)
        self.lag = BucketArray(Server.CLOCK_LAG.bounds)
        self.finished: dict[FinishedReason, int] = {"stop": 0, "length": 0, "abort": 0}

    def __repr__(self) -> str:
        ends = " ".join(f"{reason}={n}" for reason, n in self.finished.items())
        return f"<EngineStats {ends} steps={self.lag.count}>"


class ServerStats:
    """What happened on the whole server: its engines and its HTTP requests."""

    def __init__(self, engines: int) -> None:
        self.engines = [EngineStats() for _ in range(engines)]
        self.slow_readers = 0
        """Streams cut off because their client did not read."""
        self._http: Counter[tuple[str, str, str]] = Counter()

    def __repr__(self) -> str:
        return (
            f"<ServerStats of {len(self.engines)} engines,"
            f" {self._http.total()} HTTP requests, {self.slow_readers} slow readers>"
        )

    def count_http(self, handler: str, method: str, status: int) -> None:
        """Count one HTTP request by its route, method and class of status."""
        self._http[handler, method, f"{status // 100}xx"] += 1

    def http_requests(self) -> Iterator[tuple[tuple[str, str, str], int]]:
        """Yield `((handler, method, status class), n)`; a class is such as `2xx`."""
        yield from self._http.items()
