"""How a schedule is split over the processes that send it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .request import Request


def owners(requests: Iterable[Request], workers: int) -> Iterator[int]:
    """Yield the rank that sends each request: its index modulo `workers`.

    Indices count arrivals, so this splits by conversation: what follows an arrival is
    asked by whoever asked first.
    """
    return (request.index % workers for request in requests)


@dataclass(frozen=True, slots=True)
class Share:
    """One process's part of the plan."""

    rank: int = 0
    workers: int = 1

    def of(self, requests: Iterable[Request]) -> list[Request]:
        """Return this share; over all ranks they are the whole, without overlap."""
        requests = list(requests)
        of = zip(requests, owners(requests, self.workers), strict=True)
        return [request for request, rank in of if rank == self.rank]
