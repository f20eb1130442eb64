"""Classes of traffic ready to be drawn: lengths found, prompts read, shares known."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from random import Random
from typing import Any, Final

from ..units import Seconds, Tokens
from .classes import TrafficClass
from .journey import Journey
from .lengths import Lengths, resolve
from .prompt import TEMPLATE_TOKENS, Message, made, name_of
from .prompts import OwnPrompt
from .request import Request

_SAMPLE: Final = 2000
"""Conversations from which the lengths of a mix are estimated."""


class Draw:
    """Draws the journeys of one class."""

    def __init__(
        self,
        of: TrafficClass,
        named: Callable[[str], Lengths],
        *,
        seed: int,
        limit: Tokens | None = None,
        prompts: Sequence[OwnPrompt] = (),
    ) -> None:
        """`named` finds tables of lengths; `limit` cuts answers and is declared."""
        self.of = of
        self._input = resolve(of.input, named)
        self._output = resolve(of.output, named)
        self._turns = resolve(of.turns, named)
        self._context = resolve(of.context, named) if of.context else None
        self._branches = resolve(of.branches, named) if of.branches else None
        self._branch_input = resolve(of.branch_input, named)
        self._branch_output = resolve(of.branch_output, named)
        self._limit = limit
        self._prompts = prompts
        self._systems = tuple(
            self._system(named, seed, i) for i in range(of.system_prompts)
        )
        self.plain = not (
            of.system or of.context or prompts or self._branches or self._turns.most > 1
        )
        """Whether each arrival is one request with a prompt of its own."""

    def __repr__(self) -> str:
        return f"<Draw of {self.of.name}>"

    def journey(self, rng: Random, due: Seconds, index: int) -> Journey:
        """Draw the arrival of that number."""
        if self.plain:
            return (
                self._request(
                    index, due, self._input.draw(rng), self._output.draw(rng)
                ),
            )
        return tuple(self._conversation(rng, due, index))

    @property
    def longest(self) -> Tokens:
        """Most tokens of a prompt and its answer together, by the lengths' maxima."""
        if self.of.max_context is not None:
            return self.of.max_context
        if self._prompts:
            return max(p.tokens for p in self._prompts) + self._output.most
        turns = self._turns.most
        growth = self._input.most + self._cut(self._output.most) + TEMPLATE_TOKENS
        brought = self._branch_output.most + TEMPLATE_TOKENS
        calls = brought * (self._branches.most if self._branches else 0)
        system = sum(m.tokens for m in max(self._systems, key=len))
        context = self._context.most if self._context else 0
        return system + context + turns * growth + (turns - 1) * calls

    def _system(
        self, named: Callable[[str], Lengths], seed: int, number: int
    ) -> tuple[Message, ...]:
        of = self.of
        if of.system is None:
            return ()
        tokens = resolve(of.system, named).draw(Random(f"{seed}/system/{number}"))
        return (made("system", name_of(f"{of.name}/system/{number}"), tokens + 1),)

    def _conversation(self, rng: Random, due: Seconds, index: int) -> Iterator[Request]:
        of, name, parts = self.of, f"{index:06d}", count()
        own = rng.choice(self._prompts) if self._prompts else None
        said: tuple[Message, ...] = rng.choice(self._systems)
        system, turns = said, len(own.turns) if own else self._turns.draw(rng)
        alone = turns == 1 and self._branches is None
        turn = 0
        for i in range(turns):
            think_s = rng.expovariate(1 / of.think_s) if i and of.think_s else 0.0
            said = (*said, *self._said(rng, own, name, i))
            answer = self._answer(rng, own, i)
            asked = self._request(
                index, due, sum(m.tokens for m in said), answer, messages=said,
                conversation="" if alone else name, turn=turn, think_s=think_s,
                part=next(parts), slice=own.slice if own else "",
            )  # fmt: skip
            if i and asked.input_tokens + answer > (of.max_context or 1 << 62):
                return
            yield asked
            turn += 1
            said = (*said, self._heard(own, name, i, answer))
            if self._branches is not None and i < turns - 1:
                calls = [
                    call.but(part=next(parts))
                    for call in self._calls(rng, asked, system, turn)
                ]
                yield from calls
                said = (*said, *map(_brought, calls))
                turn += 1

    def _said(
        self, rng: Random, own: OwnPrompt | None, name: str, i: int
    ) -> Iterator[Message]:
        if own:
            yield from own.turns[i].messages
            return
        if self._context is not None and i == 0:
            tokens = self._context.draw(rng) + TEMPLATE_TOKENS
            yield made("user", name_of(f"{name}/context"), tokens)
        tokens = max(self._input.draw(rng), TEMPLATE_TOKENS)
        yield made("user", name_of(f"{name}/{i}/user"), tokens)

    def _heard(self, own: OwnPrompt | None, name: str, i: int, n: Tokens) -> Message:
        """Return what of an answer stands in the prompts that follow."""
        known = own.turns[i].answer if own else None
        if known is not None:
            return known
        return made("assistant", name_of(f"{name}/{i}/answer"), n + TEMPLATE_TOKENS)

    def _answer(self, rng: Random, own: OwnPrompt | None, i: int) -> Tokens:
        drawn = self._output.draw(rng)
        return self._cut((own and own.turns[i].output_tokens) or drawn)

    def _calls(
        self, rng: Random, asked: Request, system: tuple[Message, ...], turn: int
    ) -> Iterator[Request]:
        """Draw what is called side by side; all are due once the tools are ready."""
        assert self._branches is not None
        tool_s = rng.expovariate(1 / self.of.branch_s) if self.of.branch_s else 0.0
        for b in range(self._branches.draw(rng)):
            name = name_of(f"{asked.conversation}/{turn}/{b}/call")
            said = (*system, made("user", name, self._branch_input.draw(rng)))
            yield self._request(
                asked.index, asked.intended_s, sum(m.tokens for m in said),
                self._cut(self._branch_output.draw(rng)), stage="tool", messages=said,
                conversation=asked.conversation, turn=turn, think_s=tool_s,
            )  # fmt: skip

    def _cut(self, tokens: Tokens) -> Tokens:
        return tokens if self._limit is None else min(tokens, self._limit)

    def _request(
        self, index: int, due: Seconds, n_in: Tokens, n_out: Tokens, **more: Any
    ) -> Request:
        of = self.of
        stage = "embed" if of.kind == "embed" else "generate"
        return Request(
            index, due, n_in, self._cut(n_out), of.name, of.tenant,
            **({"stage": stage} | more),
            max_output_tokens=self._limit, priority=of.priority, flow=of.flow,
            kind=of.kind, reasoning=of.reasoning,
        )  # fmt: skip


def _brought(call: Request) -> Message:
    name = name_of(f"{call.conversation}/{call.part}/brought")
    return made("user", name, call.output_tokens + TEMPLATE_TOKENS)


@dataclass(frozen=True)
class Mix:
    """The classes of a plan, by their shares."""

    draws: tuple[Draw, ...]

    @property
    def flows(self) -> set[str]:
        """The flows that ask some of its requests; see `flow`."""
        return {draw.of.flow for draw in self.draws} - {""}

    def streams(self) -> list["Stream"]:
        """Return classes that arrive together: those with the same course of rate."""
        total = sum(draw.of.weight for draw in self.draws)
        courses = list(dict.fromkeys(draw.of.profile for draw in self.draws))
        return [
            Stream(
                course,
                together := tuple(d for d in self.draws if d.of.profile == course),
                sum(d.of.weight for d in together) / total,
            )
            for course in courses
        ]

    def pooled(self) -> tuple[Lengths, Lengths]:
        """Return how long prompts and answers are over all requests.

        Exact for one class without history, else estimated from a sample, with the
        longest that there may be as its end.
        """
        first = self.draws[0]
        if len(self.draws) == 1 and first.plain:
            return first._input, first._output  # noqa: SLF001 - of this module
        chosen = whole_stream(self)
        rng, picks = Random("pooled"), Random("pooled/classes")
        journeys = [chosen.pick(picks).journey(rng, 0.0, 0) for _ in range(_SAMPLE)]
        requests = [request for journey in journeys for request in journey]
        longest = max(draw.longest for draw in self.draws)
        answers = _empirical([r.output_tokens for r in requests])
        prompts = [r.input_tokens for r in requests]
        return _empirical(prompts, longest - answers.most), answers


class Stream:
    """Classes whose arrivals come in one process, each its share of them."""

    def __init__(
        self, course: str | None, draws: tuple[Draw, ...], share: float
    ) -> None:
        """`share` is the stream's own of the plan's rate."""
        self.course = course
        self.share = share
        self._draws = draws
        self._weights = list(accumulate(draw.of.weight for draw in draws))

    def __repr__(self) -> str:
        return f"<Stream {self.share:.0%} {list(self._draws)}>"

    def pick(self, rng: Random) -> Draw:
        """Choose the class of an arrival; draws nothing where there is one only."""
        if len(self._draws) == 1:
            return self._draws[0]
        return rng.choices(self._draws, cum_weights=self._weights)[0]


def whole_stream(mix: Mix) -> Stream:
    """Return all classes as one stream."""
    return Stream(None, mix.draws, 1.0)


def _empirical(values: list[Tokens], longest: Tokens = 0) -> Lengths:
    """Return the distribution of some values, that may end in a longer one."""
    ordered = sorted(values)
    last = len(ordered) - 1
    steps = 100
    tokens = [ordered[round(i / steps * last)] for i in range(steps + 1)]
    tokens[-1] = max(tokens[-1], longest)
    return Lengths(tuple(i / steps for i in range(steps + 1)), tuple(tokens))
