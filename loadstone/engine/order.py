"""Who is admitted next and who goes first: vLLM's two `--scheduling-policy` values.

`fcfs`: first come, first admitted; the one admitted last is preempted and goes back to
the front. `priority`: by (priority, arrival), the lower the sooner, and the worst of
the batch is preempted, whoever needed the block; a running sequence is never displaced
by one that waits. Among equal keys, submission decides.
"""

from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final, Protocol

from .sequence import Sequence, State

Batch = dict[Sequence, None]
"""The running sequences, in order of admission."""
Rank = tuple[int, float, int]
"""Priority, arrival, order of submission; or each of them negative, worst first."""

_SLACK: Final = 64
"""Entries of those who left that are not worth looking for."""


class Order(Protocol):
    """The queue, and the order in which a batch is given up."""

    def arrive(self, seq: Sequence) -> None:
        """Queue a new sequence."""
        ...

    def put_back(self, seq: Sequence) -> None:
        """Queue a preempted one again."""
        ...

    def head(self) -> Sequence | None:
        """Return who is next; cancelled ones are dropped on the way."""
        ...

    def admit(self, batch: Batch) -> Sequence:
        """Move the head to the batch."""
        ...

    def worst(self, batch: Batch) -> Sequence:
        """Return the member of the batch that is to be preempted first."""
        ...


class FirstCome:
    """First come, first admitted; last admitted, first out."""

    def __init__(self) -> None:
        self._waiting: deque[Sequence] = deque()

    def __repr__(self) -> str:
        return f"<FirstCome queue of {len(self._waiting)}>"

    def arrive(self, seq: Sequence) -> None:
        """Queue behind the others."""
        self._waiting.append(seq)

    def put_back(self, seq: Sequence) -> None:
        """Queue before the others."""
        self._waiting.appendleft(seq)

    def head(self) -> Sequence | None:
        """Return the longest there."""
        waiting = self._waiting
        while waiting and waiting[0].state is State.CANCELLED:
            waiting.popleft()
        return waiting[0] if waiting else None

    def admit(self, batch: Batch) -> Sequence:
        """Move the head to the batch."""
        seq = self._waiting.popleft()
        batch[seq] = None
        return seq

    def worst(self, batch: Batch) -> Sequence:
        """Return the one admitted last."""
        return next(reversed(batch))


class ByPriority:
    """By (priority, arrival); O(log n) each way.

    `_worst` is a heap of everyone admitted. Those who left are dropped when they come
    up, or all at once when they are the majority.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Rank, Sequence]] = []
        self._worst: list[tuple[Rank, int, Sequence]] = []
        self._count = 0

    def __repr__(self) -> str:
        return f"<ByPriority queue of {len(self._waiting)}>"

    def arrive(self, seq: Sequence) -> None:
        """Queue by rank."""
        self._count += 1
        seq.number = self._count
        self.put_back(seq)

    def put_back(self, seq: Sequence) -> None:
        """Queue by the rank it had: the front is for the best."""
        rank = (seq.priority, seq.arrived_s, seq.number)
        heappush(self._waiting, (rank, seq))

    def head(self) -> Sequence | None:
        """Return the best rank."""
        waiting = self._waiting
        while waiting and waiting[0][1].state is State.CANCELLED:
            heappop(waiting)
        return waiting[0][1] if waiting else None

    def admit(self, batch: Batch) -> Sequence:
        """Take the head out and note it for `worst`."""
        _, seq = heappop(self._waiting)
        batch[seq] = None
        self._count += 1  # no two entries are equal, nor are sequences ever compared
        rank = (-seq.priority, -seq.arrived_s, -seq.number)
        heappush(self._worst, (rank, self._count, seq))
        if len(self._worst) > 2 * len(batch) + _SLACK:
            latest = {entry[2]: entry for entry in self._worst if entry[2] in batch}
            self._worst = list(latest.values())
            heapify(self._worst)
        return seq

    def worst(self, batch: Batch) -> Sequence:
        """Return the worst rank of the batch."""
        while self._worst[0][2] not in batch:
            heappop(self._worst)
        return self._worst[0][2]


ORDERS: Final[dict[str, Callable[[], Order]]] = {
    "fcfs": FirstCome,
    "priority": ByPriority,
}
