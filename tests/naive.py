"""A scheduler without a single shortcut: every token and every block by itself.

It goes through the batch sequence by sequence and keeps each physical block as a number
in a list, as the engines that it stands for do; `loadstone.engine` does none of that
and must come to the same.
"""

from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor, inf

from loadstone.physics.limits import EngineLimits
from loadstone.physics.steplaw import StepLaw


@dataclass(eq=False, kw_only=True)
class Item:
    """A sequence as the naive scheduler keeps it: every token of it is counted."""

    id: str
    prompt: int
    output: int
    declared: int = 0
    priority: int = 0
    prefix: tuple[int, ...] = ()
    rank: tuple = ()
    held: list[int] = field(default_factory=list)
    kv: int = 0
    given: int = 0
    cached: int | None = None
    decoding: bool = False
    cancelled: bool = False
    token_times: list[float] = field(default_factory=list)

    @property
    def target(self) -> int:
        """Tokens to prefill before the next one is given."""
        return self.prompt + self.given


@dataclass
class Event:
    """An arrival or a cancellation, and when."""

    at: float
    arrives: bool
    number: int


@dataclass
class Memory:
    """Physical blocks: a free list, what is in each, and how many hold it."""

    total: int
    free: list[int] = field(default_factory=list)
    contents: dict[int, int] = field(default_factory=dict)
    holders: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with all of them free and empty."""
        self.free = list(range(self.total))
        self.holders = [0] * self.total

    def where(self, block_id: int) -> int | None:
        """Look through all blocks for one with these contents."""
        return next((b for b, c in self.contents.items() if c == block_id), None)

    def hold(self, block: int) -> None:
        """Hold a block with its contents."""
        if block in self.free:
            self.free.remove(block)
        self.holders[block] += 1

    def take(self) -> int:
        """Take the block that was freed longest ago, and forget what was in it."""
        block = self.free.pop(0)
        self.contents.pop(block, None)
        self.holders[block] = 1
        return block

    def release(self, held: list[int]) -> None:
        """Let go of a sequence's blocks, the last one first."""
        while held:
            block = held.pop()
            self.holders[block] -= 1
            if self.holders[block] == 0:
                self.free.append(block)


@dataclass
class Naive:
    """The schedule of one engine under a policy, one sequence after the other."""

    limits: EngineLimits
    law: StepLaw
    policy: str = "vllm"
    by_priority: bool = False
    accepted: Fraction = Fraction(1)
    drafts: int = 0
    running: list[Item] = field(default_factory=list)
    waiting: list[Item] = field(default_factory=list)
    log: list[tuple] = field(default_factory=list)
    queries: int = 0
    hits: int = 0

    def __post_init__(self) -> None:
        """Begin with an empty cache."""
        self.memory = Memory(self.limits.kv_blocks)

    def blocks(self, tokens: int) -> int:
        """Count whole blocks, block by block, drafts beyond the tokens included."""
        return len(range(0, tokens + self.drafts, self.limits.block_size))

    def run(self, items: list[Item], events: list[Event]) -> None:
        """Run until nothing is left to do."""
        todo = deque(events)
        now = -inf
        while todo or self.running or self.waiting:
            if not self.running and not self.waiting:
                now = max(now, todo[0].at)
            while todo and todo[0].at <= now:
                event = todo.popleft()
                items[event.number].rank = (
                    items[event.number].rank
                    or (items[event.number].priority, event.at, event.number)
                )  # fmt: skip
                self.take(items[event.number], arrives=event.arrives)
            if self.running or self.waiting:
                now = self.step(now)

    def take(self, item: Item, *, arrives: bool) -> None:
        """Let a sequence arrive or take it out."""
        if arrives:
            self.waiting.append(item)
        elif item in self.waiting or item in self.running:
            (self.waiting if item in self.waiting else self.running).remove(item)
            self.memory.release(item.held)
            item.cancelled = True

    def step(self, now: float) -> float:
        """Run one step and return its end."""
        self.budget = self.limits.max_num_batched_tokens
        self.chunks: list[tuple[Item, int]] = []
        self.preempted: list[Item] = []
        self.decoding: list[Item] = []
        step = len(self.log)
        self.advance = floor(self.accepted * (step + 1)) - floor(self.accepted * step)
        for item in list(self.running):
            if item in self.running:
                self.go_on(item)
        while self.waiting and not self.preempted and self.admit(self.next()):
            pass
        assert self.decoding or self.chunks, "a livelock: work, and nothing is done"
        return self.record(now)

    def next(self) -> Item:
        """Return who is first in the queue."""
        if self.by_priority:
            return min(self.waiting, key=lambda item: item.rank)
        return self.waiting[0]

    def chunk(self, rest: int) -> int:
        """Return how much of a prompt the budget allows."""
        if rest <= self.budget or self.policy == "vllm":
            return min(rest, self.budget)
        n = self.budget
        while n % self.limits.block_size:
            n -= 1
        return n

    def go_on(self, item: Item) -> None:
        """Give a running sequence its token or its next chunk, whoever pays for it."""
        n = self.advance if item.decoding else self.chunk(item.target - item.kv)
        if n == 0:
            return
        blocks = self.blocks(item.kv + n)
        if self.policy == "trtllm_no_evict":
            blocks = len(item.held)
        while item in self.running and blocks - len(item.held) > len(self.memory.free):
            self.preempt()
        if item not in self.running:
            return
        self.grow(item, blocks)
        item.kv += n
        self.budget -= 1 + self.drafts if item.decoding else n
        if item.decoding:
            self.decoding.append(item)
        else:
            self.chunks.append((item, n))
            self.note(item)

    def preempt(self) -> None:
        """Put the worst back, even if it has had its share of this step."""
        assert self.policy != "trtllm_no_evict"
        victim = self.running[-1]
        if self.by_priority:
            victim = max(self.running, key=lambda item: item.rank)
        self.running.remove(victim)
        if victim in self.decoding:
            self.decoding.remove(victim)
            self.budget += 1 + self.drafts
        victim.kv, victim.decoding = 0, False
        self.memory.release(victim.held)
        self.waiting.insert(0, victim)
        self.preempted.append(victim)

    def grow(self, item: Item, blocks: int) -> None:
        """Take blocks one by one until it holds so many."""
        while len(item.held) < blocks:
            item.held.append(self.memory.take())

    def note(self, item: Item) -> None:
        """Write down what is in its full blocks, unless that is somewhere already."""
        full = item.kv // self.limits.block_size
        for block, block_id in list(zip(item.held, item.prefix, strict=False))[:full]:
            if self.memory.where(block_id) is None:
                self.memory.contents[block] = block_id

    def found(self, item: Item) -> list[int]:
        """Return the blocks it need not compute, leaving a token to compute."""
        found = []
        for block_id in item.prefix:
            block = self.memory.where(block_id)
            if block is None or (len(found) + 1) * self.limits.block_size > (
                item.target - 1
            ):
                break
            found.append(block)
        return found

    def admit(self, item: Item) -> bool:
        """Let the first in the queue in if the limits allow it."""
        if any(not i.decoding and i.kv < i.target for i in self.running):
            return False
        if self.budget == 0 or len(self.running) == self.limits.max_num_seqs:
            return False
        found = self.found(item)
        start = len(found) * self.limits.block_size
        n = self.chunk(item.target - start)
        tokens = {
            "vllm": start + n,
            "trtllm_max_util": item.target,
            "trtllm_no_evict": item.prompt + item.declared,
        }[self.policy]
        unused = [b for b in self.memory.free if b not in found]
        if n == 0 or self.blocks(tokens) - len(found) > len(unused):
            return False
        self.waiting.remove(item)
        self.running.append(item)
        for block in found:
            self.memory.hold(block)
        item.held = found
        self.grow(item, self.blocks(tokens))
        item.kv = start + n
        self.budget -= n
        self.chunks.append((item, n))
        self.note(item)
        if item.cached is None:
            item.cached = start
            self.queries += item.prompt
            self.hits += start
        return True

    def record(self, now: float) -> float:
        """Price the step, give its tokens and write it down."""
        pairs = sum(  # the j-th token attends to j - 1 others and, half, to itself
            j - 0.5
            for item, n in self.chunks
            for j in range(item.kv - n + 1, item.kv + 1)
        )
        prefill = sum(n for _, n in self.chunks)
        # The newest token of each is the first that it computes now.
        context = sum(item.kv - self.advance + 1 for item in self.decoding)
        free = len(self.memory.free)
        end = now + self.law.seconds(
            len(self.decoding),
            prefill,
            context,
            pairs,
            len(self.decoding) * self.drafts,
        )
        started = [i for i, _ in self.chunks if i.kv == i.target]
        count = len(self.decoding)
        before = sum(item.given for item in self.decoding + started)
        finished = self.give(self.decoding + started, end)
        tokens = sum(item.given for item in self.decoding + started) - before
        names = (
            [i.id for i in started],
            {i.id for i in finished},
            [i.id for i in self.preempted],
        )
        figures = now, end, count, prefill, context, pairs, free, tokens
        self.log.append((*figures, *names))
        return end

    def give(self, items: list[Item], end: float) -> list[Item]:
        """Give each its tokens, one by one; return those that have all they asked."""
        finished = []
        for item in items:
            for _ in range(self.advance if item.decoding else 1):
                if item.given < item.output:
                    item.given += 1
                    item.token_times.append(end)
            item.decoding = True
            if item.given == item.output:
                self.running.remove(item)
                finished.append(item)
        # In the order in which they were admitted: tails of the cache depend on it.
        for item in finished:
            self.memory.release(item.held)
        return finished
