"""Who is admitted next and who goes first, by `--scheduling-policy`.

The first two are vLLM's, the third is fair to tenants.

`fcfs`: first come, first admitted; the one admitted last is preempted and goes back to
the front. `priority`: by (priority, arrival), the lower the sooner, and the worst of
the batch is preempted, whoever needed the block; a running sequence is never displaced
by one that waits. Among equal keys, submission decides.

`fair`: whoever has been served least so far, by a virtual token counter for each tenant
(Sheng and others, "Fairness in Serving Large Language Models", OSDI 2024): a prompt
token counts 1 and an output token 2, over the tenant's weight. A tenant whose queue was
empty is lifted to the least counter of those who wait, so nobody saves up by being
idle. Among one tenant's, first come, first admitted; preemption is that of `fcfs`.
Output is counted in full at admission, with the length it will have (the paper's
oracle variant), which keeps a step free of work per sequence; what a client cancels is
not given back.

Whose KV is still on its way is not preempted: vLLM keeps such requests out of its
running list.
"""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush, heapreplace
from typing import Final, Protocol

from .sequence import Sequence, State

Batch = dict[Sequence, None]
"""The running sequences, in order of admission."""

_CANCELLED: Final = State.CANCELLED
"""NOTE: a lookup in an enum's class is slow, and there is one for each admission."""

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
        while waiting and waiting[0].state is _CANCELLED:
            waiting.popleft()
        return waiting[0] if waiting else None

    def admit(self, batch: Batch) -> Sequence:
        """Move the head to the batch."""
        seq = self._waiting.popleft()
        batch[seq] = None
        return seq

    def give_up(self, batch: Batch) -> Sequence:
        """Return the one admitted last."""
        return last_admitted(batch)


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
            while line and line[0].state is _CANCELLED:
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


PROMPT_COST: Final = 1.0
OUTPUT_COST: Final = 2.0
"""What a token counts: the paper's w_p and w_q."""


class FairShare:
    """Least served tenant first; O(log of the tenants that wait)."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Sequence]] = {}
        """Of the tenants that wait."""
        self._served: dict[str, float] = {}
        self._least: list[tuple[float, str]] = []
        """A heap of those who wait, each with its counter."""
        self._last = 0.0
        """The counter of whoever stopped waiting last."""

    def __repr__(self) -> str:
        return f"<FairShare queue of {sum(map(len, self._lines.values()))}>"

    def _line(self, tenant: str) -> deque[Sequence]:
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = deque()
            floor = self._least[0][0] if self._least else self._last
            served = max(self._served.get(tenant, 0.0), floor)
            self._served[tenant] = served
            heappush(self._least, (served, tenant))
        return line

    def arrive(self, seq: Sequence) -> None:
        """Queue behind those of its tenant."""
        self._line(seq.tenant).append(seq)

    def put_back(self, seq: Sequence) -> None:
        """Queue before those of its tenant; it has been counted."""
        self._line(seq.tenant).appendleft(seq)

    def head(self) -> Sequence | None:
        """Return the longest there of the tenant served least."""
        while self._least:
            tenant = self._least[0][1]
            line = self._lines[tenant]
            while line and line[0].state is _CANCELLED:
                line.popleft()
            if line:
                return line[0]
            heappop(self._least)
            del self._lines[tenant]
            self._last = self._served[tenant]
        return None

    def admit(self, batch: Batch) -> Sequence:
        """Move the head to the batch, and count what it will take."""
        before, tenant = self._least[0]
        seq = self._lines[tenant].popleft()
        batch[seq] = None
        if not seq.preemptions:
            cost = PROMPT_COST * seq.prompt_tokens + OUTPUT_COST * seq.output_tokens
            self._served[tenant] = before + cost / seq.weight
            heapreplace(self._least, (self._served[tenant], tenant))
        return seq

    def give_up(self, batch: Batch) -> Sequence:
        """Return the one admitted last."""
        return last_admitted(batch)


def last_admitted(batch: Batch) -> Sequence:
    """Return the member of the batch that came in last and whose KV is here."""
    return next(s for s in reversed(batch) if s.state is not State.FETCHING)


ORDERS: Final[dict[str, Callable[[], Order]]] = {
    "fcfs": FirstCome,
    "priority": ByPriority,
    "fair": FairShare,
}
