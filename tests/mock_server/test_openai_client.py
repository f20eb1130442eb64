"""The official `openai` package takes the mock for what it claims to be."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import jsonschema
import openai
import pydantic
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


# --------------------------------------------------------------- beyond plain chat


class Event(pydantic.BaseModel):
    """What a client may want to be told."""

    name: str
    kind: Literal["meeting", "party"]
    people: list[str]
    budget: int


PARAMETERS: Any = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "why": {"type": "string"}},
    "required": ["a", "why"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "add", "parameters": PARAMETERS, "strict": True},
    }
]


def test_it_streams_tool_calls(with_client: Callable[..., None]) -> None:
    """Its own helper joins the pieces and parses the arguments."""

    async def scenario(client: openai.AsyncOpenAI, _: Any) -> None:
        async with client.chat.completions.stream(
            model="llama", messages=MESSAGES, tools=TOOLS
        ) as stream:
            kinds = {event.type async for event in stream}
            done = await stream.get_final_completion()
        assert "tool_calls.function.arguments.delta" in kinds
        (choice,) = done.choices
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
        jsonschema.validate(call.function.parsed_arguments, PARAMETERS)
        # The loop of an agent: the tool answers, then the model does.
        told = [
            *MESSAGES,
            choice.message.model_dump(exclude_none=True, exclude={"parsed"}),
            {"role": "tool", "tool_call_id": call.id, "content": "7"},
        ]
        for message in told[-2].get("tool_calls", ()):
            message["function"].pop("parsed_arguments", None)
            message.pop("index", None)
        last = await client.chat.completions.create(
            model="llama", messages=told, tools=TOOLS
        )
        assert last.choices[0].finish_reason == "stop"

    with_client(scenario)


def test_it_parses_structured_output(with_client: Callable[..., None]) -> None:
    """A pydantic model goes out as a schema, and comes back as an object."""

    async def scenario(client: openai.AsyncOpenAI, _: Any) -> None:
        chat = await client.chat.completions.parse(
            model="llama", messages=MESSAGES, response_format=Event
        )
        assert isinstance(chat.choices[0].message.parsed, Event)
        response = await client.responses.parse(
            model="llama", input="hi", text_format=Event
        )
        assert isinstance(response.output_parsed, Event)
        with pytest.raises(openai.LengthFinishReasonError):
            await client.chat.completions.parse(
                model="llama", messages=MESSAGES, response_format=Event, max_tokens=3
            )

    with_client(scenario)


def test_it_shows_log_probabilities_and_reasoning(
    with_client: Callable[..., None],
) -> None:
    """In its own types, usage's details too."""

    async def scenario(client: openai.AsyncOpenAI, _: Any) -> None:
        done = await client.chat.completions.create(
            model="llama", messages=MESSAGES, n=2, logprobs=True, top_logprobs=2,
            reasoning_effort="medium",
        )  # fmt: skip
        for choice in done.choices:
            assert choice.logprobs is not None
            assert len(choice.logprobs.content or ()) == 20
            assert count(choice.message.model_extra["reasoning_content"]) == 20
        assert done.usage is not None
        assert done.usage.completion_tokens_details is not None
        assert done.usage.completion_tokens_details.reasoning_tokens == 40

    with_client(scenario)


def test_it_completes_text(with_client: Callable[..., None]) -> None:
    """The endpoint that benchmarks still use."""

    async def scenario(client: openai.AsyncOpenAI, _: Any) -> None:
        asked: Any = {"model": "llama", "prompt": "hello", "max_tokens": 7}
        whole = await client.completions.create(**asked)
        stream = await client.completions.create(**asked, stream=True)
        text = "".join([chunk.choices[0].text async for chunk in stream])
        assert whole.choices[0].text == text
        assert count(text) == 7

    with_client(scenario)


def test_it_embeds(with_client: Callable[..., None]) -> None:
    """It asks for base64 by itself and decodes it; `dimensions` is kept."""

    async def scenario(client: openai.AsyncOpenAI, _: Any) -> None:
        asked: Any = {"model": "llama", "input": ["the old map", "né là"]}
        base64 = await client.embeddings.create(**asked, dimensions=256)
        floats = await client.embeddings.create(
            **asked, dimensions=256, encoding_format="float"
        )
        for one, other in zip(base64.data, floats.data, strict=True):
            assert len(one.embedding) == 256
            assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert base64.usage.prompt_tokens == 3 + 2

    with_client(scenario)


def test_it_streams_responses(with_client: Callable[..., None]) -> None:
    """Its helper follows the events of reasoning and calls to the whole response."""

    async def scenario(client: openai.AsyncOpenAI, _: Any) -> None:
        flat: Any = [{"type": "function", **TOOLS[0]["function"]}]
        async with client.responses.stream(
            model="llama", input="hi", tools=flat, reasoning={"effort": "low"}
        ) as stream:
            async for _event in stream:
                pass
            done = await stream.get_final_response()
        thought, call = done.output
        assert (thought.type, call.type) == ("reasoning", "function_call")
        assert call.type == "function_call"
        jsonschema.validate(json.loads(call.arguments), PARAMETERS)
        followed = await client.responses.create(
            model="llama",
            previous_response_id=done.id,
            input=[
                {"type": "function_call_output", "call_id": call.call_id, "output": "7"}
            ],
            tools=flat,
        )
        assert count(followed.output_text) == 20
        cut = await client.responses.create(
            model="llama", input="hi", max_output_tokens=3
        )
        assert cut.status == "incomplete"
        assert cut.incomplete_details is not None
        assert cut.incomplete_details.reason == "max_output_tokens"

    with_client(scenario)


def test_azures_client_finds_its_paths(with_client: Callable[..., None]) -> None:
    """Deployments in the path, the key in its own header."""

    async def scenario(_: openai.AsyncOpenAI, server: Any) -> None:
        async with openai.AsyncAzureOpenAI(
            api_key="sesame", azure_endpoint=server.url, api_version="2024-10-21",
            max_retries=0,
        ) as client:  # fmt: skip
            done = await client.chat.completions.create(
                model="llama", messages=MESSAGES
            )
            assert count(done.choices[0].message.content or "") == 20
            vectors = await client.embeddings.create(model="llama", input="hi")
            assert len(vectors.data[0].embedding) == 1024
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="gpt", messages=MESSAGES)

    with_client(scenario)


def test_its_synchronous_client_works_alike(with_client: Callable[..., None]) -> None:
    """Whole and streamed, from a thread beside the server's."""

    def talk(url: str) -> tuple[str, str, list[str]]:
        with openai.OpenAI(
            api_key="sesame", base_url=f"{url}/v1", max_retries=0
        ) as client:
            asked: Any = {"model": "llama", "messages": MESSAGES}
            whole = client.chat.completions.create(**asked)
            stream = client.chat.completions.create(**asked, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            models = [model.id for model in client.models.list()]
            assert client.models.retrieve("llama").id == "llama"
            return whole.choices[0].message.content or "", text, models

    async def scenario(_: openai.AsyncOpenAI, server: Any) -> None:
        whole, streamed, models = await asyncio.to_thread(talk, server.url)
        assert whole == streamed
        assert models == ["llama", "other"]

    with_client(scenario, aliases=("other",))
