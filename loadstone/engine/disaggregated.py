"""Prefill and decode on engines of their own, with the KV moved from one to the other.

A request goes to an engine of the prefill pool, which gives it its first token and
keeps its KV. At that instant it queues at an engine of the decode pool. When that one
has blocks and a place for it, both are taken and the transfer begins; when the KV is
there it decodes from the next step on, and the prefill engine's blocks are freed. So a
full decode pool holds up the prefill pool through its memory, as it does in the real
ones: vLLM's decode side allocates first and then waits for remote KV, and TensorRT-LLM
has the same states. There as here a request that is preempted on the decode side is
recomputed on it: KV is transferred once (vLLM: `do_remote_prefill` is cleared after the
first time, `nixl_connector.py`).

In vLLM a request whose KV is on its way has blocks but no place yet; here it has both,
which differs only where `max_num_seqs` binds and for as long as a transfer takes. Also
simplified: what is fetched is not known to the decode engine's prefix cache, so a whole
prompt is moved every time.

The links are actors like the engines: one for each prefill engine, which moves one
prompt after the other. Everything goes from engine to engine under a stamp, so what
each one did follows from the stamps that `note` hears of (`virtual.replay`).
"""

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from functools import partial

from ..physics.limits import EngineLimits
from ..physics.pipeline import DIRECT, Pipeline
from ..physics.speculation import PLAIN, Speculation
from ..physics.steplaw import StepLaw
from ..physics.transfer import KvTransfer
from ..units import Seconds
from .core import EVENTS, Engine
from .fleet import Actor, Fleet, Followed, build_fleet
from .sequence import Kv, Sequence, State, Step

Note = Callable[[str, int, Sequence, Seconds], None]
"""Told what an engine was told: kind, its index, of whom, and the effective stamp."""


class Link:
    """The way out of one prefill engine: a queue of prompts, moved one by one."""

    def __init__(self, transfer: KvTransfer) -> None:
        self.transfer = transfer
        self.due: Seconds | None = None
        """When the present transfer is over; None while there is none."""
        self._queue: deque[Sequence] = deque()
        self.arrived: tuple[Sequence, Seconds] | None = None
        """What the last call of `step` completed, and when that was."""

    def __repr__(self) -> str:
        return f"<Link {len(self._queue)} due={self.due}>"

    def send(self, seq: Sequence, at: Seconds) -> None:
        """Move the KV of a sequence's prompt from `at` on, after those before it."""
        self._queue.append(seq)
        if self.due is None:
            self.due = at + self.transfer.seconds(seq.prompt_tokens)

    def step(self) -> None:
        """Complete the transfer that is due and begin the next one."""
        if self.due is None:
            raise RuntimeError(f"{self!r} has nothing to do")
        self.arrived = self._queue.popleft(), self.due
        following = self._queue[0].prompt_tokens if self._queue else None
        self.due = following and self.due + self.transfer.seconds(following)


class Disaggregated:
    """Two fleets, and the links between them. Prefill engines have the first indices.

    A sequence is one request as the decode side sees it: `arrived_s`, `scheduled_s` and
    `first_s` are those of its prefill, and the transfer is a gap after the first token.
    """

    def __init__(
        self,
        prefill: Fleet,
        decode: Fleet,
        transfer: KvTransfer,
        *,
        note: Note | None = None,
    ) -> None:
        self.prefill = prefill
        self.decode = decode
        self.engines: list[Engine] = [*prefill.engines, *decode.engines]
        self.links = [Link(transfer) for _ in prefill.engines]
        # Negative indices: what arrives when a step starts is there when it starts.
        self.actors: SequenceOf[Actor] = [*self.engines, *reversed(self.links)]
        self._note = note or (lambda *_: None)
        self._legs: dict[Sequence, tuple[Sequence, int]] = {}
        """The part of a request that is served by a prefill engine, and by which."""
        self._wholes: dict[Sequence, Sequence] = {}
        """The request, by that part, until its first token."""
        self._homes: dict[Sequence, int] = {}
        """The decode engine of a request, from then on."""

    def __repr__(self) -> str:
        return f"<Disaggregated prefill={self.prefill!r} decode={self.decode!r}>"

    @property
    def waiting(self) -> int:
        """Requests waiting on all engines, for their first token or for the others."""
        return self.prefill.waiting + self.decode.waiting

    def submit(self, sequence: Sequence, at: Seconds) -> int:
        """Let a request arrive; returns the index of its prefill engine.

        Raises `UsageError` when either side could never serve it.
        """
        self.decode.engines[0].check(sequence)
        goes_on = sequence.output_tokens > 1
        leg = Sequence(
            sequence.id, sequence.prompt_tokens, 1, priority=sequence.priority,
            prefix_ids=sequence.prefix_ids, kv=Kv.SENT if goes_on else Kv.HERE,
            tenant=sequence.tenant, weight=sequence.weight,
        )  # fmt: skip
        index = self.prefill.submit(leg, at)
        self._note("submit", index, leg, leg.arrived_s)
        if goes_on:
            sequence.kv = Kv.FETCHED
        sequence.arrived_s, sequence.state = leg.arrived_s, State.WAITING
        self._legs[sequence] = leg, index
        self._wholes[leg] = sequence
        return index

    def cancel(self, sequence: Sequence, at: Seconds) -> SequenceOf[int]:
        """Take a request out wherever it is; returns the actors that were told.

        One that has ended is left alone. What is on the link already goes on.
        """
        if sequence not in self._legs:
            return ()
        leg, index = self._legs.pop(sequence)
        if sequence not in self._homes:
            sequence.state = State.CANCELLED
            del self._wholes[leg]
            self._tell("cancel", index, leg, at)
            return (index,)
        home = self._homes.pop(sequence)
        self._tell("cancel", home, sequence, at)
        self._tell("release", index, leg, at)
        return home, index

    def follow(self, index: int, step: Step | None) -> Followed:
        """Pass on what an actor's `step` gave: first and last tokens, grants, KV."""
        if index < 0:
            return self._deliver(self.links[-1 - index]), ()
        if index < len(self.prefill.engines):
            return self._hand_over(index, step)
        granted = self._fetch(index)
        if step is None or not step.finished:
            return granted, ()
        for sequence in step.finished:
            self._legs.pop(sequence, None)
            self._homes.pop(sequence, None)
        return granted, step.finished

    def _hand_over(self, index: int, step: Step | None) -> Followed:
        """Queue whoever got the first token on the decode side."""
        touched: list[int] = []
        ended: list[Sequence] = []
        for leg in step.finished if step else ():
            sequence = self._wholes.pop(leg, None)
            assert leg.last_s is not None
            if sequence is None:  # cancelled within the step that ended it
                self._tell("release", index, leg, leg.last_s)
                touched.append(index)
                continue
            sequence.scheduled_s, sequence.first_s = leg.scheduled_s, leg.first_s
            sequence.cached_tokens = leg.cached_tokens
            if sequence.kv is Kv.FETCHED:
                touched.append(self._queue(sequence, leg.last_s))
            else:
                sequence.state, sequence.generated = State.FINISHED, 1
                sequence.last_s = leg.last_s
                del self._legs[sequence]
                ended.append(sequence)
        return touched, ended

    def _queue(self, sequence: Sequence, at: Seconds) -> int:
        arrived = sequence.arrived_s
        home = len(self.prefill.engines) + self.decode.submit(sequence, at)
        self._note("submit", home, sequence, sequence.arrived_s)
        sequence.arrived_s = arrived
        self._homes[sequence] = home
        return home

    def _fetch(self, index: int) -> list[int]:
        """Begin the transfers of those that a decode engine has room for."""
        touched = []
        engine = self.engines[index]
        for sequence in engine.granted:
            source = self._legs[sequence][1] if sequence in self._legs else None
            if source is not None:
                self.links[source].send(sequence, engine.start_s)
                touched.append(-1 - source)
        return touched

    def _deliver(self, link: Link) -> SequenceOf[int]:
        """Tell both sides that the KV has arrived."""
        assert link.arrived is not None
        sequence, at = link.arrived
        if sequence not in self._legs:  # cancelled on the way
            return ()
        leg, index = self._legs[sequence]
        home = self._homes[sequence]
        self._tell("receive", home, sequence, at)
        self._tell("release", index, leg, at)
        return home, index

    def _tell(self, kind: str, index: int, sequence: Sequence, at: Seconds) -> None:
        stamp = EVENTS[kind](self.engines[index], sequence, at)
        self._note(kind, index, sequence, stamp)


def build_disaggregated(
    limits: EngineLimits,
    law: StepLaw,
    transfer: KvTransfer,
    *,
    prefill: int,
    decode: int,
    seed: int,
    decode_limits: EngineLimits | None = None,
    decode_law: StepLaw | None = None,
    router: str = "round_robin",
    decode_router: str = "least_loaded",
    policy: str = "vllm",
    scheduling_policy: str = "fcfs",
    prefix_caching: bool = True,
    speculation: Speculation = PLAIN,
    pipeline: Pipeline = DIRECT,
    note: Note | None = None,
) -> Disaggregated:
    """Build `prefill` and `decode` engines, each with a random stream of its own.

    The decode side has limits and a law of its own where they are given (its fixed cost
    is lower: CUDA graphs, `docs/design.md`), and it alone speculates. The prefill side
    alone has a `pipeline`: what is fetched is let in when it has come.
    """
    fleet = partial(
        build_fleet,
        seed=seed,
        policy=policy,
        scheduling_policy=scheduling_policy,
        prefix_caching=prefix_caching,
    )
    return Disaggregated(
        fleet(limits, law, engines=prefill, router=router, pipeline=pipeline),
        fleet(
            decode_limits or limits,
            decode_law or law,
            engines=decode,
            router=decode_router,
            speculation=speculation,
            first=prefill,
        ),
        transfer,
        note=note,
    )
