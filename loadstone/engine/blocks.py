"""KV blocks: those in use, those free, and those free that still hold a known prefix.

vLLM v1's block pool. A block of a whole stretch of prompt has an id: the hash of its
tokens and all before them. It is known from the step that fills it, is shared by
reference count, and when the last holder leaves it goes to the end of the free list
with its contents, to be found again until it is taken for something else. Blocks are
taken from the front of the list: the one freed longest ago loses its contents first,
and a sequence frees its blocks from the last to the first, so tails go before heads.

Blocks without an id (output, partial blocks, prompts of plain traffic) are only
counted. A stamp, raised with each known block that is freed, says how a run of plain
ones lies between the known ones, so a step takes and frees them in O(1), and plain
traffic alone is a single counter.

Not modelled: output blocks have no ids and are never found again, and a block that is
computed although its like is known (the last one of a repeated prompt) stays plain.

NOTE: ids and counts in dicts, no object for a block: a rack has 3 million of them, and
as objects they cost a quarter of such a run in garbage collection alone.
"""

from collections import OrderedDict, deque

Ids = tuple[int, ...]
Held = tuple[int | None, ...]
"""A sequence's first blocks, as far as they have ids; None for a plain double."""


class BlockPool:
    """All blocks of one engine: `free` of them can be taken."""

    __slots__ = (
        "_clock", "_front", "_holders", "_idle", "_run_counts", "_run_stamps", "free",
        "total",
    )  # fmt: skip

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._holders: dict[int, int] = {}
        """Known blocks, by id, and how many hold each."""
        self._idle: OrderedDict[int, int] = OrderedDict()
        """Those that nobody holds, longest free first, with their stamps."""
        self._front = total
        """Plain blocks that are taken before anything below."""
        self._run_stamps: deque[int] = deque()
        self._run_counts: deque[int] = deque()
        """Runs of plain blocks behind known ones of the same stamp or an older one."""
        self._clock = 0

    def __repr__(self) -> str:
        return f"<BlockPool {self.free} of {self.total} free, {self.known} known>"

    @property
    def known(self) -> int:
        """Blocks that a prefix could be found in, in use or free."""
        return len(self._holders)

    def find(self, ids: Ids) -> tuple[int, int]:
        """Return how many blocks `ids` begins with that are known, and free of those.

        To hold a free one is to take it.
        """
        found = idle = 0
        for holders in map(self._holders.get, ids):
            if holders is None:
                break
            found += 1
            idle += holders == 0
        return found, idle

    def hold(self, ids: Ids) -> None:
        """Hold known blocks once more; idle ones leave the free list."""
        for block_id in ids:
            holders = self._holders[block_id]
            if holders == 0:
                del self._idle[block_id]
                self.free -= 1
            self._holders[block_id] = holders + 1

    def take(self, n: int) -> None:
        """Take the `n` blocks freed longest ago; there must be as many."""
        assert n <= self.free
        self.free -= n
        self._front -= n
        while self._front < 0:
            self._advance()

    def _advance(self) -> None:
        """Move what comes next in the free list to its front: a run or a known one."""
        idle, runs = self._idle, self._run_stamps
        if runs and (not idle or runs[0] < next(iter(idle.values()))):
            runs.popleft()
            self._front += self._run_counts.popleft()
        else:
            forgotten, _ = idle.popitem(last=False)
            del self._holders[forgotten]
            self._front += 1

    def name(self, held: Held, ids: Ids, filled: int) -> Held:
        """Make blocks known as they are filled, up to the `filled`th; returns `held`.

        A block whose like is known already stays plain.
        """
        holders = self._holders
        fresh = ids[len(held) : filled]
        if holders.keys().isdisjoint(fresh):
            holders.update(dict.fromkeys(fresh, 1))
            return held + fresh
        named = tuple(None if i in holders else i for i in fresh)
        holders.update((i, 1) for i in named if i is not None)
        return held + named

    def release(self, held: Held, total: int) -> None:
        """Let go of a sequence's `total` blocks, of which `held` are the first."""
        self._free_plain(total - len(held))
        holders, idle = self._holders, self._idle
        for block_id in reversed(held):
            if block_id is None:
                self._free_plain(1)
                continue
            left = holders[block_id] = holders[block_id] - 1
            if left == 0:
                self._clock += 1
                idle[block_id] = self._clock
                self.free += 1

    def _free_plain(self, n: int) -> None:
        self.free += n
        if self._run_stamps and self._run_stamps[-1] == self._clock:
            self._run_counts[-1] += n
        elif self._idle or self._run_stamps:
            self._run_stamps.append(self._clock)
            self._run_counts.append(n)
        else:
            self._front += n
