"""KV blocks: those in use, those free, and those free that still hold a known prefix.

vLLM v1's block pool. A whole block of prompt has an id: a hash of its tokens and all
before them. It is known from the step that fills it, is shared by reference count, and
when the last holder leaves it goes to the end of the free list with its contents, to be
found again until it is taken for something else. Blocks are taken from the front of the
list: the one freed longest ago loses its contents first, and a sequence frees its
blocks from the last to the first, so tails go before heads.

Known blocks are kept as a radix tree of runs: blocks in a row that are always held and
let go together. A prompt that ends or differs inside a run splits it. Whoever holds a
run holds all above it, so a sequence remembers only its last one; and a run counts only
those that end with it and the held runs right below it, so what is in use is held once
more in O(1), however many runs lead to it. Work is per run, not per block, but for the
comparison of ids, which is one of tuples.

The free list is a ring of the runs that nobody holds, linked through themselves. Blocks
without an id (output, partial blocks, prompts of plain traffic) are only counted, by
the run behind which they lie, so a step takes and frees them in O(1), and plain traffic
alone is a single counter.

Not modelled: output blocks have no ids and are never found again, and a block that is
computed although its like is known (the last one of a repeated prompt) stays plain.
"""

from collections.abc import Iterator

Ids = tuple[int, ...]


class Run:
    """Known blocks in a row: those from `start` to `end` of every prompt below it."""

    __slots__ = (
        "above", "behind", "below", "end", "holders", "ids", "newer", "older", "start",
    )  # fmt: skip

    def __init__(self, above: "Run | None", ids: Ids, start: int, holders: int) -> None:
        self.above = above
        self.below = _NO_RUNS
        """Runs that go on from its end, by their first ids."""
        self.ids = ids
        """The ids it began with; taken from the free list, it is cut at the end."""
        self.start = start
        self.end = start + len(ids)
        self.holders = holders
        """Sequences that end with it, and held runs right below it."""
        self.older: Run = above or self
        """Who lies before it in the free list, while it is there."""
        self.newer: Run = self.older
        """Who lies behind it."""
        self.behind = 0
        """Plain blocks between it and the newer one."""

    def put_below(self, run: "Run") -> None:
        """Let `run` go on from its end."""
        if self.below is _NO_RUNS:
            self.below = {}
        self.below[run.ids[0]] = run

    def put_behind(self, older: "Run") -> None:
        """Enter the free list right behind `older` and its plain blocks."""
        newer = older.newer
        self.older, self.newer = older, newer
        older.newer = newer.older = self

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

    __slots__ = ("_root", "free", "known", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self.known = 0
        """Blocks that a prefix could be found in, in use or free."""
        self._root = Run(None, (), 0, 1)
        """Where all prompts begin, held for good; and where the free list's ring does:
        the blocks behind it are taken first, then its newer one is."""
        self._root.behind = total

    def __repr__(self) -> str:
        return f"<BlockPool {self.free} of {self.total} free, {self.known} known>"

    def idle(self) -> Iterator[Run]:
        """Yield the runs that nobody holds, longest free first."""
        run = self._root.newer
        while run is not self._root:
            yield run
            run = run.newer

    def find(self, ids: Ids, most: int) -> tuple[int, int, Run]:
        """Return how many of the first `most` blocks are known, and free of those.

        The run is the one in which the last of them is, for `hold`. To hold a free
        block is to take it.
        """
        found = idle = 0
        run = self._root
        while found < most:
            child = run.below.get(ids[found])
            if child is None:
                break
            run, end = child, child.end
            # NOTE: a run of one block needs no comparison; they are the most.
            if end - found > 1:
                end = min(end, most)
                mine, its = ids[found:end], run.ids[: end - found]
                if mine != its:
                    end = found + _alike(mine, its)
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
        last = run
        while run.holders == 0:
            self._unlink(run)
            self.free -= run.end - run.start
            run.holders = 1
            assert run.above is not None
            run = run.above
        run.holders += 1
        return last

    def _split(self, run: Run, end: int) -> Run:
        """Make a run of its blocks before `end`, above it; returns that."""
        above, cut = run.above, end - run.start
        assert above is not None
        front = Run(above, run.ids[:cut], run.start, min(run.holders, 1))
        above.put_below(front)
        run.above, run.start, run.ids = front, end, run.ids[cut:]
        front.put_below(run)
        if run.holders == 0:
            # Heads come after tails.
            front.put_behind(run)
            front.behind, run.behind = run.behind, 0
        return front

    def take(self, n: int) -> None:
        """Take the `n` blocks freed longest ago; there must be as many."""
        assert n <= self.free
        self.free -= n
        root = self._root
        root.behind -= n
        while root.behind < 0:
            self._forget(root.newer, -root.behind)

    def _forget(self, run: Run, most: int) -> None:
        """Bring up to `most` blocks of the oldest idle run to the list's front."""
        cut = min(most, run.end - run.start)
        run.end -= cut
        self.known -= cut
        self._root.behind += cut
        if run.end == run.start:
            assert run.above is not None
            del run.above.below[run.ids[0]]
            self._unlink(run)

    def _unlink(self, run: Run) -> None:
        """Take an idle run out of the free list, and leave the plain blocks there."""
        older, newer = run.older, run.newer
        older.newer, newer.older = newer, older
        older.behind += run.behind
        run.behind = 0
        # What is in use must not keep alive what was forgotten.
        run.older = run.newer = self._root

    def name(self, run: Run | None, ids: Ids, filled: int) -> Run | None:
        """Make blocks known as they are filled, from the end of `run` to `filled`.

        Returns the holder's last run. Blocks whose like is known stay plain, and so do
        those beyond `ids`.
        """
        above = run or self._root
        start = above.end
        fresh = ids[start:filled]
        if not fresh or fresh[0] in above.below:
            return run
        below = Run(above, fresh, start, 1)
        above.put_below(below)
        if run is None:
            above.holders += 1
        self.known += len(fresh)
        return below

    def release(self, run: Run | None, total: int) -> None:
        """Let go of a sequence's `total` blocks, of which those of `run` come first."""
        newest = self._root.older
        if run is None:
            newest.behind += total
            self.free += total
            return
        freed = total - run.end
        newest.behind += freed
        run.holders -= 1
        while run.holders == 0:
            run.put_behind(newest)
            newest = run
            freed += run.end - run.start
            assert run.above is not None
            run = run.above
            run.holders -= 1
        self.free += freed
