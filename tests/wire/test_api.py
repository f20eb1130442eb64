"""Requests as each API wants them, and what is left out once a service refused it."""

import json
from typing import Any

import pytest

from loadstone.traffic.plan import APIS as PLANNED
from loadstone.wire.api import APIS, Dialect, Question, encode

ASKED = Question(
    model="m",
    messages=({"role": "system", "content": "be"}, {"role": "user", "content": "hi"}),
    max_tokens=9,
    ignore_eos=True,
)


def written(name: str, dialect: Dialect | None = None, **more: Any) -> dict[str, Any]:
    """Return the body of a question under an API."""
    asked = Question(
        model="m", messages=ASKED.messages, max_tokens=9, ignore_eos=True, **more
    )
    body = (dialect or Dialect()).write(APIS[name], asked)
    assert json.loads(encode(body)) == body
    return body


def test_a_plan_names_the_apis_there_are() -> None:
    """Neither more nor less can be asked for than can be written."""
    assert tuple(APIS) == PLANNED
    assert [api.path for api in APIS.values()] == [
        "/chat/completions", "/completions", "/responses", "/embeddings",
    ]  # fmt: skip


def test_bodies() -> None:
    """Each has the model, the text, the length and the wish for a stream in its way."""
    messages = list(ASKED.messages)
    usage = {"stream_options": {"include_usage": True}}
    generation = {"model": "m", "stream": True, "ignore_eos": True}
    limit = {"max_tokens": 9}
    assert written("chat") == generation | limit | usage | {"messages": messages}
    assert written("completions") == generation | limit | usage | {"prompt": "be\nhi"}
    assert written("responses") == generation | {
        "max_output_tokens": 9, "input": messages, "store": False,
    }  # fmt: skip
    assert written("embeddings") == {
        "model": "m", "input": "be\nhi", "encoding_format": "base64",
    }  # fmt: skip


def test_more_goes_as_it_is_and_counts_may_come_with_every_event() -> None:
    """A seed, tools, a temperature; and vLLM's continuous usage."""
    body = written("chat", more={"seed": 7, "temperature": 0}, continuous_usage=True)
    assert (body["seed"], body["temperature"]) == (7, 0)
    assert body["stream_options"]["continuous_usage_stats"] is True


# What services say of a field they do not take.
REFUSALS = {
    "OpenAI": ("ignore_eos", 400, "Unrecognized request argument supplied: ignore_eos"),
    "OpenAI's newer": ("ignore_eos", 400, "Unknown parameter: 'ignore_eos'."),
    "FastAPI": (
        "stream_options", 422,
        '[{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]',
    ),
    "reasoning": (
        "max_tokens", 400,
        "'max_tokens' is not supported with this model, use 'max_completion_tokens'",
    ),
    "the mock": ("ignore_eos", 400, "'ignore_eos' is not modelled by this server"),
}  # fmt: skip


@pytest.mark.parametrize("who", REFUSALS)
def test_a_refused_field_is_left_out(who: str) -> None:
    """By the words of several services; the rest of the body stays as it was."""
    name, status, said = REFUSALS[who]
    newer = Dialect().after(status, said, written("chat"))
    assert newer == Dialect((name,))
    body = written("chat", newer)
    assert name not in body
    assert body["messages"] == written("chat")["messages"]
    assert newer is not None
    assert newer.after(status, said, body) is None


def test_what_takes_its_place() -> None:
    """The length is asked for in another way while there is one."""
    body = written("chat", Dialect(("ignore_eos",)))
    assert body["min_tokens"] == 9
    body = written("chat", Dialect(("ignore_eos", "min_tokens")))
    assert "min_tokens" not in body
    body = written("chat", Dialect(("max_tokens", "ignore_eos")))
    assert (body["max_completion_tokens"], body["min_tokens"]) == (9, 9)
    body = written("chat", Dialect(("continuous_usage_stats",)), continuous_usage=True)
    assert body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "max_tokens is too large: 99999. This model supports at most 4096."),
        (400, "Unknown parameter: 'frequency'."),
        (400, "'top_k' is not supported"),
        (404, "Unknown parameter: 'ignore_eos'."),
        (500, "Unknown parameter: 'ignore_eos'."),
        (None, "Unknown parameter: 'ignore_eos'."),
        (400, "Unknown parameter: 'ignore_eos_token'."),
        (400, ""),
    ],
)
def test_what_is_no_refusal(status: int | None, said: str) -> None:
    """A wrong value, a field that was not sent, another status: nothing is left out."""
    assert Dialect().after(status, said, written("chat")) is None
