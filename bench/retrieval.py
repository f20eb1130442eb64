"""What a search costs the load generator's hub, by where it is made.

A greenlet that does nothing but wake every millisecond says how late the hub is while
others search 50 times a second: on the hub itself, in gevent's pool of native threads
(a connection each), and in processes of their own (`loadgen.retrieval`). Compare within
one run: the machine is rarely quiet, which `no search` shows.

    python bench/retrieval.py                     a store of 10,000 passages in SQLite
    python bench/retrieval.py --store postgresql://...     one that is there already
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import gevent

from loadgen.retrieval import Searchers
from loadstone.retrieval.passages import Cut, Passage
from loadstone.retrieval.store import About, Row, open_store, packed, write_store
from loadstone.traffic.quantiles import nearest_rank

DIMENSIONS = 1024
RATE, SECONDS, K = 50, 6.0, 5
TICK_S = 0.001
Search = Callable[[bytes], object]


def rows(count: int, random: Random) -> Iterator[Row]:
    """Yield passages with vectors of no meaning."""
    for i in range(count):
        yield Passage(f"d{i}", 0, "text " * 100), vector(random)


def vector(random: Random) -> bytes:
    """Return one of them."""
    return packed([random.gauss(0, 1) for _ in range(DIMENSIONS)])


def lags_under(
    search: Search | None, random: Random
) -> tuple[list[float], list[float]]:
    """Search at the rate; return how late the hub was, and how long searches took."""
    lags: list[float] = []
    took: list[float] = []
    asked = [vector(random) for _ in range(16)]
    end = time.monotonic() + SECONDS

    def tick() -> None:
        while (due := time.monotonic() + TICK_S) < end:
            gevent.sleep(TICK_S)
            lags.append(time.monotonic() - due)

    def one(i: int) -> None:
        began = time.monotonic()
        if search is not None:
            search(asked[i % len(asked)])
        took.append(time.monotonic() - began)

    def arrivals() -> None:
        began = time.monotonic()
        for i in range(int(RATE * SECONDS)):
            gevent.sleep(max(0.0, began + i / RATE - time.monotonic()))
            gevent.spawn(one, i)

    gevent.joinall([gevent.spawn(tick), gevent.spawn(arrivals)], raise_error=True)
    return sorted(lags), sorted(took)


def in_threads(address: str) -> Search:
    """Return what searches in gevent's native threads, each with a store of its own."""
    local = threading.local()

    def work(asked: bytes) -> object:
        if not hasattr(local, "store"):
            local.store = open_store(address)
        return local.store.search(asked, K)

    return lambda asked: gevent.get_hub().threadpool.apply(work, (asked,))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", help="an address; its vectors have 1024 dimensions")
    parser.add_argument("--passages", type=int, default=10_000)
    given = parser.parse_args()
    random = Random(1)
    with tempfile.TemporaryDirectory() as folder:
        address = given.store or str(Path(folder) / "bench.db")
        if given.store is None:
            about = About.made("none", DIMENSIONS, Cut(), given.passages)
            write_store(address, about, rows(given.passages, random))
        on_hub, searchers = open_store(address), Searchers(address)
        ways: dict[str, Search | None] = {
            "no search": None,
            "on the hub": lambda asked: on_hub.search(asked, K),
            "native threads": in_threads(address),
            "processes": lambda asked: searchers.search(asked, K),
        }
        # As Locust's processes do, which let no thread hold Python's lock for longer.
        print(f"{on_hub.about.passages} passages, {RATE} searches/s,"
              f" switch interval {sys.getswitchinterval() * 1e3:g} ms")  # fmt: skip
        print(f"{'':16}{'hub lag ms: p50':>16}{'p99':>8}{'worst':>8}"
              f"{'search ms: p50':>17}{'p99':>8}{'CPU s here':>12}")  # fmt: skip
        for name, search in ways.items():
            cpu = time.process_time()
            lags, took = lags_under(search, random)
            cpu = time.process_time() - cpu
            figures = [nearest_rank(lags, 0.5), nearest_rank(lags, 0.99), lags[-1],
                       nearest_rank(took, 0.5), nearest_rank(took, 0.99)]  # fmt: skip
            p50, p99, worst, took50, took99 = (1e3 * (x or 0.0) for x in figures)
            print(f"{name:16}{p50:16.2f}{p99:8.2f}{worst:8.2f}"
                  f"{took50:17.2f}{took99:8.2f}{cpu:12.2f}")  # fmt: skip
        searchers.close()


if __name__ == "__main__":
    main()
