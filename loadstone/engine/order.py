"""Who is admitted next and who goes first: vLLM's two `--scheduling-policy` values.

`fcfs`: first come, first admitted; the one admitted last is preempted and goes back to
the front. `priority`: by (priority, arrival), the lower the sooner, and the worst of
the batch is preempted, whoever needed the block; a running sequence is never displaced
by one that waits. Among equal keys, submission decides.

Whose KV is still on its way is not preempted: vLLM keeps such requests out of its
running list.
"""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, Protocol

from .sequence import Sequence, State

Batch = dict[Sequence, None]
"""The running sequences, in order of admission."""

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

    def give_up(self, batch: Batch) -> Sequence:
        """Return the member of the batch that is preempted; it leaves at once."""
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

    def give_up(self, batch: Batch) -> Sequence:
        """Return the one admitted last."""
        return next(s for s in reversed(batch) if s.state is not State.FETCHING)


class ByPriority:
    """By (priority, arrival); O(log of the priorities in use), and O(them) to give up.

    Stamps only rise, and whoever is preempted came after all of its priority who stay:
    so each priority is a `FirstCome` of its own, and only the priorities are in heaps.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, deque[Sequence]] = {}
        self._best: list[int] = []
        self._admitted: dict[int, list[Sequence]] = {}
        """In order of admission; those who left are dropped now and then."""
        self._worst: list[int] = []
        self._entries = 0

    def __repr__(self) -> str:
        waiting = sum(map(len, self._waiting.values()))
        return f"<ByPriority queue of {waiting}>"

    def _line(self, priority: int) -> deque[Sequence]:
        line = self._waiting.get(priority)
        if line is None:
            line = self._waiting[priority] = deque()
            heappush(self._best, priority)
        return line

    def arrive(self, seq: Sequence) -> None:
        """Queue behind those of its priority."""
        self._line(seq.priority).append(seq)

    def put_back(self, seq: Sequence) -> None:
        """Queue before those of its priority."""
        self._line(seq.priority).appendleft(seq)

    def head(self) -> Sequence | None:
        """Return the longest there of the best priority."""
        while self._best:
            line = self._waiting[self._best[0]]
            while line and line[0].state is State.CANCELLED:
                line.popleft()
            if line:
                return line[0]
            del self._waiting[heappop(self._best)]
        return None

    def admit(self, batch: Batch) -> Sequence:
        """Move the head to the batch."""
        seq = self._waiting[self._best[0]].popleft()
        batch[seq] = None
        stack = self._admitted.get(seq.priority)
        if stack is None:
            stack = self._admitted[seq.priority] = []
            heappush(self._worst, -seq.priority)
        stack.append(seq)
        self._entries += 1
        if self._entries > 2 * len(batch) + _SLACK:
            self._drop_who_left(batch)
        return seq

    def _drop_who_left(self, batch: Batch) -> None:
        stacks = ((p, [s for s in a if s in batch]) for p, a in self._admitted.items())
        self._admitted = {priority: stack for priority, stack in stacks if stack}
        self._worst = sorted(-priority for priority in self._admitted)
        self._entries = sum(map(len, self._admitted.values()))

    def give_up(self, batch: Batch) -> Sequence:
        """Return the one of the worst priority that was admitted last."""
        for key in sorted(self._worst):
            stack = self._admitted[-key]
            for i in range(len(stack) - 1, -1, -1):
                seq = stack[i]
                if seq in batch and seq.state is State.FETCHING:
                    continue
                del stack[i]
                self._entries -= 1
                if seq in batch:
                    return seq
        raise AssertionError("nobody to preempt")  # the caller has a growing sequence


ORDERS: Final[dict[str, Callable[[], Order]]] = {
    "fcfs": FirstCome,
    "priority": ByPriority,
}
