"""KV blocks: those in use, those free, and those free that still hold a known prefix.

vLLM v1's block pool. A block of a whole stretch of prompt has an id: the hash of its
tokens and all before them. It is known from the step that fills it, is shared by
reference count, and when the last holder leaves it goes to the end of the free list
with its contents, to be found again until it is taken for something else. Blocks are
taken from the front of the list: the one freed longest ago loses its contents first,
and a sequence frees its blocks from the last to the first, so tails go before heads.

Blocks without an id (output, partial blocks, prompts of plain traffic) need no object.
They are counted where they lie in the list: each known free block says how many plain
ones come after it. So taking and freeing plain blocks is O(1) however many they are,
and plain traffic alone is a single counter.

Not modelled: output blocks have no ids and are never found again, and a block that is
computed although its like is known (the last one of a repeated prompt) stays plain.
"""

from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf


class Block:
    """A known block. It is in the free list while nobody refers to it."""

    __slots__ = ("id", "next", "plain_after", "prev", "refs")

    def __init__(self, block_id: int | None) -> None:
        self.id = block_id
        self.refs = 1
        self.plain_after = 0
        """Plain free blocks between this one and the next known one."""
        self.prev = self
        self.next = self

    def __repr__(self) -> str:
        return f"<Block {self.id} refs={self.refs}>"


Held = SequenceOf[Block | None]
"""A sequence's first blocks, as far as they have ids; None for a plain double."""


class BlockPool:
    """All blocks of one engine: `free` of them can be taken."""

    __slots__ = ("_known", "_root", "free", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._known: dict[int, Block] = {}
        # The free list is a ring through this sentinel; what is after it is the front.
        self._root = Block(None)
        self._root.plain_after = total

    def __repr__(self) -> str:
        return f"<BlockPool {self.free} of {self.total} free, {len(self._known)} known>"

    @property
    def known(self) -> int:
        """Blocks that a prefix could be found in, in use or free."""
        return len(self._known)

    def find(self, ids: Iterable[int], most: int) -> list[Block]:
        """Return the known blocks that `ids` begin with, at most `most`."""
        found: list[Block] = []
        known = self._known
        for block_id in ids:
            block = known.get(block_id)
            if block is None or len(found) >= most:
                break
            found.append(block)
        return found

    def unused(self, found: Iterable[Block]) -> int:
        """Count those of `found` that are free: to hold them takes them."""
        return sum(1 for block in found if not block.refs)

    def hold(self, found: Iterable[Block]) -> None:
        """Refer to known blocks once more; free ones leave the free list."""
        for block in found:
            if not block.refs:
                self._unlink(block)
                self.free -= 1
            block.refs += 1

    def take(self, n: int) -> None:
        """Take the `n` blocks freed longest ago; there must be as many."""
        assert n <= self.free
        self.free -= n
        root = self._root
        root.plain_after -= n
        while root.plain_after < 0:
            oldest = root.next
            self._unlink(oldest)
            assert oldest.id is not None
            del self._known[oldest.id]
            root.plain_after += 1

    def name(self, held: Held, ids: SequenceOf[int], filled: int) -> Held:
        """Make blocks known as they are filled, up to the `filled`th; returns `held`.

        A block whose like is known already stays plain.
        """
        fresh: list[Block | None] = []
        for block_id in ids[len(held) : filled]:
            if block_id in self._known:
                fresh.append(None)
            else:
                block = self._known[block_id] = Block(block_id)
                fresh.append(block)
        return [*held, *fresh]

    def release(self, held: Held, total: int) -> None:
        """Let go of a sequence's `total` blocks, of which `held` are the first."""
        plain = total - len(held)
        self.free += plain
        self._root.prev.plain_after += plain
        for block in reversed(held):
            if block is None:
                self.free += 1
                self._root.prev.plain_after += 1
                continue
            block.refs -= 1
            if not block.refs:
                self._append(block)

    def _append(self, block: Block) -> None:
        root = self._root
        block.prev, block.next = root.prev, root
        root.prev.next = root.prev = block
        self.free += 1

    def _unlink(self, block: Block) -> None:
        """Take a block out of the list; the plain ones after it stay in their place."""
        before = block.prev
        before.plain_after += block.plain_after
        block.plain_after = 0
        before.next, block.next.prev = block.next, before
        block.prev = block.next = block
