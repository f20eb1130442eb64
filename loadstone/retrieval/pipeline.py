"""The flow of retrieval-augmented generation, as a generator of steps.

    tokenize     count the question's tokens                     here
    embed        turn it into a vector                           /v1/embeddings
    retrieve     find the passages nearest to it                 the store
    assemble     passages, numbered, then the question           here
    generate     ask for the answer                              /v1/chat/completions
    postprocess  read the citations, leave out invented ones     here

The two requests are rows of their own; that of the answer has the stages. Times of the
local stages in virtual time are `TAKES_S`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Final, NamedTuple

from ..errors import LoadstoneError
from ..traffic.flow import Answer, Ask, Flow, Local
from ..traffic.prompt import Message, written
from ..traffic.request import Request
from ..units import Seconds
from ..wire.tokens import count, tokenize
from .documents import Question
from .embeddings import vectors_of
from .indexing import own_embedder
from .recall import recall
from .store import Hit

PASSAGES: Final = 5
"""Passages that a prompt is given."""
SYSTEM: Final = (
    "Answer the question from the numbered passages alone and cite their numbers, as in"
    " [2]. If they do not answer it, say so."
)
TAKES_S: Final[dict[str, Seconds]] = {
    "tokenize": 30e-6,
    "retrieve": 3e-3,
    "assemble": 40e-6,
    "postprocess": 600e-6,
}
"""Medians of `loadstone run rag --rate 50` on two cores, the sample in SQLite; reading
the stream's events is a part of the last one."""
_CITATION: Final = re.compile(r" ?\[(\d{1,4})\]")

Search = Callable[[bytes, int], Sequence[Hit]]
"""Finds so many passages near a packed vector."""


class Checked(NamedTuple):
    """An answer as it may be shown, and the documents that it cites."""

    text: str
    cited: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Makes the flow of each request; questions come in an order drawn from `seed`."""

    questions: Sequence[Question]
    search: Search
    seed: int
    passages: int = PASSAGES
    salt: str = ""
    """Marks the prompts of a run, as it does those that are made up."""
    model: str = ""
    """Who embeds the questions, where that is not the plan's model."""

    def __call__(self, request: Request) -> Flow:
        """Return the steps; raises `LoadstoneError` where a step cannot go on."""
        question = self.question_of(request.index)
        text, mark = question.text, f"{self.salt}{request.id}"
        tokens = yield _here("tokenize", lambda: len(tokenize(text)))
        answer: Answer = yield Ask(
            request.but(
                kind="embed", stage="embed", input_tokens=tokens,
                output_tokens=1, messages=(written("user", text, tokens),),
                model=self.model,
            ),
            beside=True,
        )  # fmt: skip
        vector = _vector(answer, text)
        hits = yield _here("retrieve", lambda: self.search(vector, self.passages))
        messages = yield _here("assemble", lambda: assembled(mark, question, hits))
        length = sum(message.tokens for message in messages)
        answer = yield Ask(request.but(messages=messages, input_tokens=length))
        if answer.ok:
            yield Local(
                "postprocess",
                lambda: checked(answer.text, hits),
                TAKES_S["postprocess"],
            )
        return {"hits": len(hits), "recall": recall(hits, question.documents)}

    def question_of(self, index: int) -> Question:
        """Return a request's question: each is asked once before one comes again."""
        rounds, place = divmod(index, len(self.questions))
        return self.questions[_order(len(self.questions), self.seed, rounds)[place]]


def assembled(
    mark: str, question: Question, hits: Sequence[Hit]
) -> tuple[Message, ...]:
    """Return the prompt: what to do, the passages by number, the question.

    The `mark` stands before the passages. Questions come again sooner than a public's
    would, and a server would have the whole prompt in its prefix cache; so it has the
    instruction, as it would.
    """
    passages = [f"[{number}] {hit.text}" for number, hit in enumerate(hits, start=1)]
    request = f"Request {mark}"
    asked = "\n\n".join([request, *passages, f"Question: {question.text}"])
    return (
        written("system", SYSTEM, count(SYSTEM)),
        written("user", asked, count(asked)),
    )


def checked(text: str, hits: Sequence[Hit]) -> Checked:
    """Leave out citations of passages that were never given, and name the others."""
    cited: dict[str, None] = {}

    def keep(found: re.Match[str]) -> str:
        number = int(found[1])
        if not 1 <= number <= len(hits):
            return ""
        cited[hits[number - 1].document] = None
        return found[0]

    return Checked(_CITATION.sub(keep, text).strip(), tuple(cited))


def _vector(answer: Answer, text: str) -> bytes:
    """Return the question's vector; in virtual time nobody sent one, so it is made."""
    if not answer.ok:
        raise LoadstoneError("the question was not embedded", code="not_embedded")
    if not answer.body:
        return own_embedder([text])[0]
    return vectors_of(answer.body, 1)[0]


def _here(stage: str, work: Callable[[], object]) -> Local:
    # A search waits for another process, and the rest is done before a thread is woken.
    return Local(stage, work, TAKES_S[stage], blocking=False)


@lru_cache(maxsize=4)
def _order(count: int, seed: int, rounds: int) -> tuple[int, ...]:
    """Return the order of one round through the questions."""
    order = list(range(count))
    Random(f"{seed}/questions/{rounds}").shuffle(order)
    return tuple(order)
