"""KV blocks: those in use, those free, and those free that still hold a known prefix.

vLLM v1's block pool. A whole block of prompt has an id: a hash of its tokens and all
before them. It is known from the step that fills it, is shared by reference count, and
when the last holder leaves it goes to the end of the free list with its contents, to be
found again until it is taken for something else. Blocks are taken from the front of the
list: the one freed longest ago loses its contents first, and a sequence frees its
blocks from the last to the first, so tails go before heads.

Known blocks are kept as a radix tree of runs: blocks in a row that are always held and
let go together. A prompt that ends or differs inside a run splits it. Whoever holds a
run holds all above it, so a sequence remembers only its last one. Work is per run, not
per block, but for the comparison of ids, which is one of tuples.

Blocks without an id (output, partial blocks, prompts of plain traffic) are only
counted. A stamp, raised with each run that is freed, says how plain ones lie between
the runs, so a step takes and frees them in O(1), and plain traffic alone is a single
counter.

Not modelled: output blocks have no ids and are never found again, and a block that is
computed although its like is known (the last one of a repeated prompt) stays plain.
"""

from collections import OrderedDict, deque

Ids = tuple[int, ...]


class Run:
    """Known blocks in a row: those from `start` to `end` of every prompt below it."""

    __slots__ = ("above", "below", "end", "holders", "ids", "stamp", "start")

    def __init__(self, above: "Run | None", ids: Ids, start: int, holders: int) -> None:
        self.above = above
        self.below = _NO_RUNS
        """Runs that go on from its end, by their first ids."""
        self.ids = ids
        """The ids it began with; taken from the free list, it is cut at the end."""
        self.start = start
        self.end = start + len(ids)
        self.holders = holders
        self.stamp = 0
        """When its last holder left, on the pool's clock."""

    def put_below(self, run: "Run") -> None:
        """Let `run` go on from its end."""
        if self.below is _NO_RUNS:
            self.below = {}
        self.below[run.ids[0]] = run

    def __repr__(self) -> str:
        return f"<Run of blocks {self.start} to {self.end}, held by {self.holders}>"


_NO_RUNS: dict[int, Run] = {}
"""NOTE: shared by all that nothing goes on from, for they are the most. Stays empty."""


def _alike(these: Ids, those: Ids) -> int:
    """Count the ids with which both begin."""
    pairs = enumerate(zip(these, those, strict=False))
    return next((n for n, (a, b) in pairs if a != b), len(these))


class BlockPool:
    """All blocks of one engine: `free` of them can be taken."""

    __slots__ = (
        "_clock", "_front", "_idle", "_root", "_run_counts", "_run_stamps", "free",
        "known", "total",
    )  # fmt: skip

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self.known = 0
        """Blocks that a prefix could be found in, in use or free."""
        self._root = Run(None, (), 0, 0)
        self._idle: OrderedDict[Run, None] = OrderedDict()
        """Runs that nobody holds, longest free first."""
        self._front = total
        """Plain blocks that are taken before anything below."""
        self._run_stamps: deque[int] = deque()
        self._run_counts: deque[int] = deque()
        """Plain blocks that lie behind idle runs of the same stamp or an older one."""
        self._clock = 0

    def __repr__(self) -> str:
        return f"<BlockPool {self.free} of {self.total} free, {self.known} known>"

    def find(self, ids: Ids) -> tuple[int, int, Run]:
        """Return how many blocks `ids` begins with that are known, and free of those.

        The run is the one in which the last of them is, for `hold`. To hold a free
        block is to take it.
        """
        found, idle, most = 0, 0, len(ids)
        run = self._root
        while found < most:
            child = run.below.get(ids[found])
            if child is None:
                break
            run, end = child, child.end
            # NOTE: a run of one block needs no comparison; they are the most.
            if end - found > 1 and ids[found:end] != run.ids[: end - found]:
                end = found + _alike(ids[found:end], run.ids)
            if run.holders == 0:
                idle += end - found
            found = end
            if found < run.end:
                break
        return found, idle, run

    def hold(self, run: Run, end: int) -> Run:
        """Hold known blocks once more, up to the `end`th, which is in `run`.

        Idle ones leave the free list. Returns the run that now ends there.
        """
        if end < run.end:
            run = self._split(run, end)
        above: Run | None = run
        while above is not None and above.above is not None:
            if above.holders == 0:
                # The front part of a run just split never was in the list by itself.
                self._idle.pop(above, None)
                self.free -= above.end - above.start
            above.holders += 1
            above = above.above
        return run

    def _split(self, run: Run, end: int) -> Run:
        """Make a run of its blocks before `end`, above it; returns that."""
        above, cut = run.above, end - run.start
        assert above is not None
        front = Run(above, run.ids[:cut], run.start, run.holders)
        above.put_below(front)
        run.above, run.start, run.ids = front, end, run.ids[cut:]
        front.put_below(run)
        return front

    def take(self, n: int) -> None:
        """Take the `n` blocks freed longest ago; there must be as many."""
        assert n <= self.free
        self.free -= n
        self._front -= n
        while self._front < 0:
            self._advance()

    def _advance(self) -> None:
        """Move what comes next in the free list to its front: plain blocks or a run."""
        plain = self._run_stamps
        run = next(iter(self._idle), None)
        if plain and (run is None or plain[0] < run.stamp):
            plain.popleft()
            self._front += self._run_counts.popleft()
            return
        assert run is not None
        cut = min(-self._front, run.end - run.start)
        run.end -= cut
        self._front += cut
        self.known -= cut
        if run.end == run.start and run.above is not None:
            del self._idle[run], run.above.below[run.ids[0]]

    def name(self, run: Run | None, ids: Ids, filled: int) -> Run | None:
        """Make blocks known as they are filled, from the end of `run` to `filled`.

        Returns the holder's last run. Blocks whose like is known stay plain.
        """
        above = run or self._root
        start = above.end
        if filled <= start or ids[start] in above.below:
            return run
        below = Run(above, ids[start:filled], start, 1)
        above.put_below(below)
        self.known += filled - start
        return below

    def release(self, run: Run | None, total: int) -> None:
        """Let go of a sequence's `total` blocks, of which those of `run` come first."""
        self._free_plain(total if run is None else total - run.end)
        if run is None:
            return
        idle = self._idle
        while run.above is not None:
            run.holders -= 1
            if run.holders == 0:
                self._clock += 1
                run.stamp = self._clock
                idle[run] = None
                self.free += run.end - run.start
            run = run.above

    def _free_plain(self, n: int) -> None:
        self.free += n
        if self._run_stamps and self._run_stamps[-1] == self._clock:
            self._run_counts[-1] += n
        elif self._idle or self._run_stamps:
            self._run_stamps.append(self._clock)
            self._run_counts.append(n)
        else:
            self._front += n
