"""Watches the server's own metrics while a run goes, from a process of its own.

`python -m loadgen.scrape` reads one line of JSON from its standard input (where, how
often, and the key, which is so on no command line), scrapes every period and appends to
`server_metrics.jsonl` until that input ends: with whoever started it, however that
ended. A page of metrics may be megabytes, and reading it would hold the loop that
stamps answers; here it holds nobody.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import gevent
import gevent.os
import gevent.subprocess
from gevent.pool import Pool

from loadstone.runs import SERVER_METRICS
from loadstone.traffic.engines import WANTED, read_engines
from loadstone.traffic.serverside import Scrape
from loadstone.units import Seconds
from loadstone.wire.exposition import samples

from .auth import fixed
from .client import Endpoint, StreamingClient, Timeouts
from .pages import Page, pages_of

PERIOD_S: Final[Seconds] = 1.0
MAX_PAGE: Final = 8 << 20
"""Most bytes of a page: vLLM's has some 100 KB for each of its engines."""
_TIMEOUTS: Final = Timeouts(connect=2.0, first_byte=3.0, idle=3.0, total=5.0)
_PATIENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a scraping process is told; the key is shown to pages of `host` alone."""

    pages: tuple[tuple[str, str], ...]
    """Base URLs, and paths below them."""
    guessed: bool
    """Whether pages are guesses: those that say nothing at first are let go of."""
    hosts: tuple[str, ...]
    key_header: str
    ca_file: str | None
    proxy: str | None
    t0: Seconds
    """On CLOCK_MONOTONIC, which the processes of a machine share."""
    out: str
    period_s: Seconds = PERIOD_S
    key: str | None = field(default=None, repr=False)


class Scraper:
    """A running scraping process; `close` ends it."""

    def __init__(self, watch: Watch) -> None:
        self._process = gevent.subprocess.Popen(
            [sys.executable, "-P", "-m", "loadgen.scrape"],
            stdin=gevent.subprocess.PIPE,
            stdout=gevent.subprocess.DEVNULL,
            stderr=gevent.subprocess.DEVNULL,
        )
        assert self._process.stdin is not None
        self._input = self._process.stdin
        self._input.write(json.dumps(asdict(watch)).encode() + b"\n")
        self._input.flush()

    def __repr__(self) -> str:
        return f"<Scraper {self._process.pid}>"

    def close(self) -> None:
        """End it, gently if it lets itself."""
        self._input.close()
        try:
            self._process.wait(_PATIENCE_S)
        except gevent.subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def watch_of(
    setting: str, endpoints: Sequence[Endpoint], values: Mapping[str, Any],
    *, t0: Seconds, folder: Path,
) -> Watch:  # fmt: skip
    """Return what to tell a scraping process of the option's setting."""
    hosts = tuple(endpoint.url for endpoint in endpoints)
    pages = dict.fromkeys(
        (page.base, page.path) for host in hosts for page in pages_of(setting, host)
    )
    return Watch(
        pages=tuple(pages),
        guessed="auto" in setting.split(","),
        hosts=hosts,
        key_header=endpoints[0].key_header,
        key=endpoints[0].api_key,
        ca_file=values["ca_file"],
        proxy=values["proxy"],
        t0=t0,
        out=str(folder / SERVER_METRICS),
    )


class _Source:
    """One page, and a client for it."""

    def __init__(self, page: Page, watch: Watch) -> None:
        self.page = page
        ours = any(_origin(host) == _origin(page.base) for host in watch.hosts)
        endpoint = Endpoint.parse(
            page.base,
            credential=fixed(watch.key) if watch.key and ours else None,
            key_header=watch.key_header,
            ca_file=watch.ca_file,
            proxy=watch.proxy,
        )
        self._client = StreamingClient(endpoint, timeouts=_TIMEOUTS, limit=MAX_PAGE)

    def scrape(self, t: Seconds) -> list[Scrape]:
        """Read the page; what it says, one scrape for each source on it."""
        exchange = self._client.send(path=self.page.path, method="GET")
        page = str(self.page)
        if exchange.error is not None:
            return [Scrape(t, "", page, {}, exchange.error)]
        text = exchange.body.decode(errors="replace")
        known = ((s.name, s.value) for s in samples(text) if s.name in WANTED)
        found = read_engines(known)
        if not found:
            return [Scrape(t, "", page, {}, "no_known_metrics")]
        return [Scrape(t, source, page, values) for source, values in found.items()]


def _origin(url: str) -> str:
    """Return scheme, host and port of a base URL; a Unix socket is its path."""
    return url if url.startswith("unix:") else "/".join(url.split("/")[:3])


def run(watch: Watch, out: Any, *, stop: "gevent.Greenlet[..., Any]") -> None:
    """Scrape every period until `stop` is over; lines go to `out`."""
    sources = [_Source(Page(*page), watch) for page in watch.pages]
    pool = Pool(8)
    due = time.monotonic()
    while not stop.ready():
        t = time.monotonic() - watch.t0
        told = pool.map(lambda source: source.scrape(t), sources)  # noqa: B023 - at once
        if watch.guessed and any(s.values for scrapes in told for s in scrapes):
            kept = [any(s.values for s in scrapes) for scrapes in told]
            sources = [s for s, keep in zip(sources, kept, strict=True) if keep]
            told = [scrapes for scrapes, keep in zip(told, kept, strict=True) if keep]
        for scrapes in told:
            out.writelines(scrape.to_line() for scrape in scrapes)
        out.flush()
        due += watch.period_s
        due = max(due, time.monotonic())
        stop.join(due - time.monotonic())


def main() -> None:
    """Read what to do, and do it until the standard input ends."""
    told = json.loads(sys.stdin.readline())
    told["pages"] = tuple(tuple(page) for page in told["pages"])
    watch = Watch(**told | {"hosts": tuple(told["hosts"])})
    over = gevent.spawn(gevent.os.tp_read, sys.stdin.fileno(), 1)
    with Path(watch.out).open("a", encoding="utf-8") as out:
        run(watch, out, stop=over)


if __name__ == "__main__":
    main()
