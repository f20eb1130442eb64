"""The flow asks what it should, in order, and a run of it adds up."""

from typing import Any

import pytest

from loadstone.errors import LoadstoneError
from loadstone.retrieval.documents import Question
from loadstone.retrieval.indexing import own_embedder
from loadstone.retrieval.pipeline import TAKES_S, Pipeline, assembled, checked
from loadstone.retrieval.store import Hit
from loadstone.traffic.flow import Answer, Ask, Local
from loadstone.traffic.request import Request
from loadstone.wire.prompts import messages_of
from loadstone.wire.tokens import count, count_chat

HITS = [Hit("a.md", 0, 0.9, "first passage"), Hit("b.md", 3, 0.5, "second")]
QUESTIONS = [Question(f"Question number {i}?", ("b.md", "c.md")) for i in range(7)]
DUE = Request(5, 1.5, 500, 40, "rag", flow="rag")


def pipeline(**more: Any) -> Pipeline:
    """Return one that always finds the same."""
    return Pipeline(QUESTIONS, lambda _, k: HITS[:k], seed=3, **more)


def followed(
    answers: list[Answer], of: Pipeline
) -> tuple[list[Ask | Local], dict[str, Any]]:
    """Go through the flow; return its steps and what it told."""
    flow, steps, came = of(DUE), [], None
    while True:
        try:
            step = flow.send(came)
        except StopIteration as end:
            return steps, dict(end.value)
        steps.append(step)
        came = answers.pop(0) if isinstance(step, Ask) else step.work()


def test_the_stages_come_in_order() -> None:
    """Two requests among four pieces of work here, each with its stated time."""
    steps, told = followed([Answer(ok=True), Answer(ok=True)], pipeline())
    assert [step.stage for step in steps] == [
        "tokenize", "embed", "retrieve", "assemble", "generate", "postprocess",
    ]  # fmt: skip
    local = {s.stage: s.takes_s for s in steps if isinstance(s, Local)}
    assert local == TAKES_S
    assert told == {"hits": 2, "recall": 0.5}


def test_the_two_requests() -> None:
    """The question is embedded beside; the prompt is the request that was due."""
    steps, _ = followed([Answer(ok=True), Answer(ok=True)], pipeline(model="bge"))
    embed, generate = (step for step in steps if isinstance(step, Ask))
    assert (embed.beside, generate.beside) == (True, False)
    question = pipeline().question_of(DUE.index).text
    assert (embed.request.kind, embed.request.model) == ("embed", "bge")
    assert embed.request.input_tokens == count(question)
    assert generate.request.model == ""
    assert generate.request.output_tokens == DUE.output_tokens
    system, user = messages_of(generate.request)
    assert system["role"] == "system"
    assert "[1] first passage\n\n[2] second\n\n" in user["content"]
    assert user["content"].endswith(question)
    parts = [[m["content"]] for m in (system, user)]
    assert generate.request.input_tokens == count_chat(parts)


def test_prompts_share_the_instruction_and_no_more() -> None:
    """A question that comes again is not in the prefix cache as a whole."""
    one, two = (assembled(mark, QUESTIONS[0], HITS) for mark in ("000001", "000002"))
    assert one[0] == two[0]
    assert one[1].spans != two[1].spans


def test_every_question_is_asked_before_one_comes_again() -> None:
    """In another order each round, the same for the same seed."""
    of = pipeline()
    rounds = [[of.question_of(7 * r + i).text for i in range(7)] for r in range(3)]
    assert all(sorted(r) == sorted(q.text for q in QUESTIONS) for r in rounds)
    assert rounds[0] != rounds[1]
    again = Pipeline(QUESTIONS, of.search, seed=3)
    other = Pipeline(QUESTIONS, of.search, seed=4)
    assert [again.question_of(i).text for i in range(7)] == rounds[0]
    assert [other.question_of(i).text for i in range(7)] != rounds[0]


def test_a_question_that_is_not_embedded_ends_the_flow() -> None:
    """Nothing is searched for or generated."""
    with pytest.raises(LoadstoneError) as wrong:
        followed([Answer(ok=False)], pipeline())
    assert wrong.value.code == "not_embedded"


def test_the_vector_that_came_is_searched_for() -> None:
    """And where none came, in virtual time, the one that the mock would give."""
    asked: list[bytes] = []

    def search(vector: bytes, k: int) -> list[Hit]:
        asked.append(vector)
        return HITS[:k]

    of = Pipeline(QUESTIONS, search, seed=3)
    body = b'{"data": [{"index": 0, "embedding": "AACAPwAAAEA="}]}'
    followed([Answer(ok=True, body=body), Answer(ok=True)], of)
    followed([Answer(ok=True), Answer(ok=True)], of)
    own = own_embedder([of.question_of(DUE.index).text])[0]
    assert asked == [b"\0\0\x80?\0\0\0@", own]


def test_a_failed_answer_is_not_postprocessed() -> None:
    """What was retrieved is told all the same."""
    steps, told = followed([Answer(ok=True), Answer(ok=False)], pipeline())
    assert [step.stage for step in steps][-1] == "generate"
    assert told["hits"] == 2


def test_citations_are_read_and_invented_ones_left_out() -> None:
    """By number, from 1."""
    text = " As it grows [2], memory fills [1][2], they say [3] or [0]. "
    found = checked(text, HITS)
    assert found.text == "As it grows [2], memory fills [1][2], they say or."
    assert found.cited == ("b.md", "a.md")
    assert checked("no citation", []) == ("no citation", ())
