"""The official `openai` package takes the mock for what it claims to be."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import openai
import pytest

from loadstone.wire.tokens import count, prompt_of

Maker = Callable[..., Any]
Scenario = Callable[[openai.AsyncOpenAI, Any], Coroutine[Any, Any, None]]

pytestmark = pytest.mark.timeout(30)

MESSAGES: Any = [{"role": "user", "content": prompt_of(50, 1)}]


@pytest.fixture
def with_client(mock: Maker) -> Callable[..., None]:
    """Give a runner of scenarios against a mock that wants the key `sesame`."""

    def run(scenario: Scenario, key: str = "sesame", **settings: Any) -> None:
        async def main() -> None:
            async with (
                mock(api_key="sesame", **settings) as server,
                openai.AsyncOpenAI(
                    api_key=key, base_url=f"{server.url}/v1", max_retries=0
                ) as client,
            ):
                await scenario(client, server)

        asyncio.run(main())

    return run


def test_it_streams(with_client: Callable[..., None]) -> None:
    """Deltas, finish reason and, when asked for, usage."""

    async def scenario(client: openai.AsyncOpenAI, _: Any) -> None:
        stream = await client.chat.completions.create(
            model="llama", messages=MESSAGES, stream=True, max_tokens=12,
            stream_options={"include_usage": True}, extra_body={"ignore_eos": True},
        )  # fmt: skip
        chunks = [chunk async for chunk in stream]
        choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
        assert choices[0].delta.role == "assistant"
        text = "".join(choice.delta.content or "" for choice in choices)
        assert count(text) == 12
        assert choices[-1].finish_reason == "length"
        usage = chunks[-1].usage
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens) == (50, 12)

    with_client(scenario)


def test_it_reads_a_whole_answer(with_client: Callable[..., None]) -> None:
    """An answer that ended by itself."""

    async def scenario(client: openai.AsyncOpenAI, _: Any) -> None:
        answer = await client.chat.completions.create(model="llama", messages=MESSAGES)
        (choice,) = answer.choices
        assert choice.finish_reason == "stop"
        assert count(choice.message.content or "") == 20
        assert answer.usage is not None
        assert answer.usage.total_tokens == 70

    with_client(scenario)


def test_it_lists_the_model(with_client: Callable[..., None]) -> None:
    """One model."""

    async def scenario(client: openai.AsyncOpenAI, _: Any) -> None:
        assert [model.id async for model in client.models.list()] == ["llama"]

    with_client(scenario)


@pytest.mark.parametrize(
    ("fields", "kind", "code"),
    [
        ({"model": "gpt"}, openai.NotFoundError, "model_not_found"),
        ({"modalities": ["audio"]}, openai.BadRequestError, "not_modelled"),
        ({"max_tokens": 10**6}, openai.BadRequestError, "context_length_exceeded"),
        ({"temperature": 9}, openai.BadRequestError, "invalid_value"),
    ],
)
def test_it_raises_its_own_errors(
    with_client: Callable[..., None],
    fields: dict[str, Any],
    kind: type[openai.APIStatusError],
    code: str,
) -> None:
    """Status and code reach the exception that a program would catch."""

    async def scenario(client: openai.AsyncOpenAI, _: Any) -> None:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(
                **({"model": "llama", "messages": MESSAGES} | fields)
            )
        assert caught.value.code == code

    with_client(scenario)


def test_a_wrong_key_is_an_authentication_error(
    with_client: Callable[..., None],
) -> None:
    """401, as OpenAI says it."""

    async def scenario(client: openai.AsyncOpenAI, _: Any) -> None:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.models.list()
        assert caught.value.code == "invalid_api_key"

    with_client(scenario, key="wrong")


def test_a_full_queue_is_a_rate_limit_error(
    with_client: Callable[..., None], fleet_of: Maker, until: Maker
) -> None:
    """429, with the header that its retries obey."""

    async def scenario(client: openai.AsyncOpenAI, server: Any) -> None:
        async def ask() -> Any:
            return await client.chat.completions.create(
                model="llama", messages=MESSAGES, stream=True, max_tokens=5000,
                extra_body={"ignore_eos": True},
            )  # fmt: skip

        running = await ask()
        await until(lambda: server.fleet.engines[0].running == 1)
        waiting = await ask()
        with pytest.raises(openai.RateLimitError) as caught:
            await ask()
        assert int(caught.value.response.headers["retry-after"]) >= 1
        for stream in (running, waiting):
            await stream.close()

    with_client(scenario, fleet=fleet_of(max_num_seqs=1), max_waiting=1)
