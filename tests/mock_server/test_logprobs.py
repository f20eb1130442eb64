"""Log probabilities and echoed prompts: what harnesses that measure models read."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from loadstone.wire.tokens import count, tokenize

Maker = Callable[..., Any]

pytestmark = pytest.mark.timeout(30)


def choices(events: list[Any], index: int) -> list[Any]:
    """Return one choice, event by event."""
    return [c for e in events for c in e["choices"] if c["index"] == index]


def joined(events: list[Any], key: str, index: int = 0) -> str:
    """Join a text of one choice's deltas."""
    return "".join(c["delta"].get(key) or "" for c in choices(events, index))


def test_log_probabilities_of_chat(ask: Maker) -> None:
    """One entry per token, the same streamed or not, as many alternatives as asked."""
    whole, events = ask(logprobs=True, top_logprobs=3, max_tokens=6, ignore_eos=True)
    (choice,) = whole["choices"]
    entries = choice["logprobs"]["content"]
    streamed = [
        entry
        for c in choices(events, 0)
        if c["logprobs"]
        for entry in c["logprobs"]["content"]
    ]
    assert streamed == entries
    assert len(entries) == 6
    text = b"".join(bytes(entry["bytes"]) for entry in entries).decode()
    assert text == choice["message"]["content"]
    assert all(len(entry["top_logprobs"]) == 3 for entry in entries)


def test_log_probabilities_of_completions(ask: Maker) -> None:
    """Offsets are in characters, and count from the answer's start."""
    whole, events = ask("/v1/completions", prompt="hi", logprobs=2, max_tokens=40)
    (choice,) = whole["choices"]
    told = choice["logprobs"]
    for offset, token in zip(told["text_offset"], told["tokens"], strict=True):
        assert choice["text"][offset:].startswith(token)
    assert "".join(told["tokens"]) == choice["text"]
    assert all(value <= 0 for value in told["token_logprobs"])
    streamed = [c["logprobs"]["text_offset"][0] for c in choices(events, 0)[:-1]]
    assert streamed == told["text_offset"]


@pytest.mark.parametrize("limit", [0, 1, 3])
@pytest.mark.parametrize("as_ids", [False, True])
def test_an_echo_has_the_log_probabilities_of_the_prompt(
    ask: Maker, limit: int, *, as_ids: bool
) -> None:
    """What measures likelihoods: prompt first, its first token without a value."""
    prompts = ["né là: a prompt, cut", "né là: a prompt, or not"]
    whole, events = ask(
        "/v1/completions", echo=True, logprobs=1, max_tokens=limit, temperature=0,
        prompt=[tokenize(text) for text in prompts] if as_ids else prompts,
    )  # fmt: skip
    for choice, prompt in zip(whole["choices"], prompts, strict=True):
        told = choice["logprobs"]
        n = count(prompt)
        assert choice["text"].startswith(prompt)
        assert (choice["text"] == prompt) == (limit == 0)
        assert {len(values) for values in told.values()} == {n + limit}
        assert "".join(told["tokens"]) == choice["text"]
        for offset, token in zip(told["text_offset"], told["tokens"], strict=True):
            assert choice["text"][offset:].startswith(token)
        assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
        pairs = list(zip(told["token_logprobs"], told["top_logprobs"], strict=True))
        assert all(p <= 0 and p in top.values() for p, top in pairs[1:])
        assert all(len(top) == 2 for _, top in pairs[1:n])
        streamed = [
            c for c in choices(events, choice["index"]) if c["logprobs"] is not None
        ]
        assert "".join(c["text"] for c in streamed) == choice["text"]
        for field, values in told.items():
            assert [v for c in streamed for v in c["logprobs"][field]] == values
    assert whole["usage"]["completion_tokens"] == 2 * max(1, limit)
    one, two = (choice["logprobs"]["token_logprobs"] for choice in whole["choices"])
    shared = len("né là: a prompt,".encode()) // 4
    assert one[:shared] == two[:shared]
    assert one[shared : count(prompts[0])] != two[shared : count(prompts[0])]


def test_harnesses_find_the_tokenizer_here(mock: Maker) -> None:
    """lm-eval asks vLLM's `/tokenizer_info`, and encodes the end token it finds."""

    async def main() -> None:
        async with mock() as server, aiohttp.ClientSession() as client:
            async with client.get(f"{server.url}/tokenizer_info") as response:
                info = await response.json()
            payload = {"prompt": info["eos_token"], "add_special_tokens": False}
            async with client.post(f"{server.url}/tokenize", json=payload) as response:
                assert (await response.json())["tokens"] == [0]

    asyncio.run(main())


def test_an_echo_without_log_probabilities_counts_usage_from_nothing(
    ask: Maker,
) -> None:
    """The prompt comes before any token was made."""
    whole, events = ask(
        "/v1/completions", prompt="once", echo=True, max_tokens=2, stop=["on"], n=2,
        options={"include_usage": True, "continuous_usage_stats": True},
    )  # fmt: skip
    for choice in whole["choices"]:
        assert choice["text"].startswith("once ")
        assert choice["logprobs"] is None
    first = next(c for c in events if c["choices"][0]["index"] == 1)
    assert first["choices"][0]["text"] == "once"
    assert first["usage"]["completion_tokens"] == 0
