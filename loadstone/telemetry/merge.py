"""The metrics of several workers as one page, as one process would have shown them.

Workers number their engines and VMs through, so most series have one worker each. What
counts the server's edge is in every page: counters and histograms are added up, of
gauges the largest is taken (an alarm is on if it is on anywhere).

A worker that died begins again at zero. In a sum that would pass for a reset of the
whole, and `rate` would count all other workers' totals as new. So what a dead worker
had counted at its last scrape is kept and added from then on; what it counted between
that and its death is lost.

The pages are our own text (`text`), a line for each sample without a time stamp, so
reading them takes a split; prometheus_client's parser needs ten times as long, and a
rack's page has 25,000 lines.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from mock_server.front import Merge, Page
from mock_server.worker import State, Worker

from ..vocabulary import Supervisor
from .negotiation import choose_format
from .prometheus import Reading, number
from .text import Text

_TRACED: Final = re.compile(r'([^{ ]+(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})? \S+)( # .*)')
"""A sample with an exemplar: what is before it, and the exemplar."""

_Counts = dict[str, float]
"""Values by everything that stands before them in a line: name and labels."""


@dataclass(slots=True)
class _Family:
    """A metric on a page: its HELP and TYPE lines, kind, values and exemplars."""

    header: str
    kind: str = "unknown"
    values: _Counts = field(default_factory=dict)
    exemplars: dict[str, str] = field(default_factory=dict)

    @property
    def adds_up(self) -> bool:
        return self.kind != "gauge"

    def add(self, head: str, value: float) -> None:
        before = self.values.get(head)
        if before is None:
            self.values[head] = value
        else:
            self.values[head] = before + value if self.adds_up else max(before, value)

    def lines(self) -> Iterator[str]:
        yield self.header
        for head, value in self.values.items():
            yield f"{head} {number(value)}{self.exemplars.get(head, '')}\n"


_Families = dict[str, _Family]
"""By name without `_total`, which is in a family's name in one of the formats only."""


class Merger:
    """Adds pages up; remembers what workers that died had counted."""

    def __init__(self, workers: int) -> None:
        self._lost: list[dict[str, _Counts]] = [{} for _ in range(workers)]
        """What former lives of each worker had counted, by family."""
        self._last: list[tuple[int, dict[str, _Counts]]] = [(0, {})] * workers
        """Each worker's latest page: deaths before it, and its counts by family."""

    def __repr__(self) -> str:
        lives = [deaths for deaths, _ in self._last]
        return f"<Merger of {len(lives)} workers, {sum(lives)} deaths>"

    def merge(self, pages: Sequence[Page | None]) -> str:
        """Return the sum of the workers' pages, all of them in the same format."""
        whole: _Families = {}
        for worker, page in enumerate(pages):
            if page is None:
                continue
            deaths, text = page
            families = _read(text)
            self._bury(worker, deaths)
            self._last[worker] = (
                deaths,
                {
                    name: family.values
                    for name, family in families.items()
                    if family.adds_up
                },
            )
            for name, family in families.items():
                into = whole.setdefault(name, _Family(family.header, family.kind))
                for head, value in family.values.items():
                    into.add(head, value)
                into.exemplars |= family.exemplars
        for worker, page in enumerate(pages):
            _add(whole, self._lost[worker])
            if page is None:
                _add(whole, self._last[worker][1])
        return "".join(line for family in whole.values() for line in family.lines())

    def _bury(self, worker: int, deaths: int) -> None:
        """Keep what an earlier life had counted, if this is another one."""
        before, counted = self._last[worker]
        if deaths == before:
            return
        for name, values in counted.items():
            lost = self._lost[worker].setdefault(name, {})
            for head, value in values.items():
                lost[head] = lost.get(head, 0.0) + value


def rack_metrics(workers: int) -> Merge:
    """Return what renders the page of so many workers."""
    merger, text = Merger(workers), Text()

    def render(
        accept: str, pages: Sequence[Page | None], states: Sequence[Worker]
    ) -> tuple[bytes, str]:
        form = choose_format(accept)
        body = merger.merge(pages).encode() + text.render(_read_workers(states), form)
        return body, form.value

    return render


def _read_workers(workers: Sequence[Worker]) -> Iterable[Reading]:
    yield (
        Supervisor.WORKER_UP,
        [((str(w.share.worker),), float(w.state is State.UP)) for w in workers],
    )
    yield (
        Supervisor.WORKER_RESTARTS,
        [((str(w.share.worker),), w.restarts) for w in workers],
    )


def _add(whole: _Families, counted: dict[str, _Counts]) -> None:
    for name, values in counted.items():
        family = whole.get(name)
        if family is not None:  # no worker is there to say what it is
            for head, value in values.items():
                family.add(head, value)


def _read(text: str) -> _Families:
    families: _Families = {}
    family = _Family("")
    for line in text.split("\n"):
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2].removesuffix("_total")
            family = families[name] = _Family(line)
        elif line.startswith("# TYPE "):
            family.header += f"\n{line}\n"
            family.kind = line.rsplit(" ", 1)[1]
        elif line and line[0] != "#":
            sample, exemplar = line, ""
            if " # {" in sample and (traced := _TRACED.fullmatch(sample)):
                sample, exemplar = traced.groups()
            head, _, value = sample.rpartition(" ")
            family.values[head] = float(value)
            if exemplar:
                family.exemplars[head] = exemplar
    return families
