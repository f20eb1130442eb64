"""The API beyond plain chat, over real connections: shapes, counts, reasons."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import jsonschema
import pytest
from openai.types.responses import Response

from loadstone.engine.fleet import build_fleet
from loadstone.physics.limits import EngineLimits
from loadstone.physics.steplaw import StepLaw
from loadstone.wire.tokens import count, prompt_of, tokenize

Maker = Callable[..., Any]

pytestmark = pytest.mark.timeout(30)

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"enum": ["°C", "°F"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "where": {
            "type": "object",
            "properties": {"lat": {"type": "number", "minimum": -90, "maximum": 90}},
            "required": ["lat"],
        },
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
    },
    "required": ["city", "unit", "where", "tags"],
    "additionalProperties": False,
}
MESSAGES = [{"role": "user", "content": prompt_of(40, 9)}]
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "now"}},
]


def choices(events: list[Any], index: int) -> list[Any]:
    """Return one choice, event by event."""
    return [c for e in events for c in e["choices"] if c["index"] == index]


def joined(events: list[Any], key: str, index: int = 0) -> str:
    """Join a text of one choice's deltas."""
    return "".join(c["delta"].get(key) or "" for c in choices(events, index))


# ------------------------------------------------------------------ several answers


def test_n_answers_share_a_stream(ask: Maker) -> None:
    """Each has a role, its tokens and an end; the prompt counts once; all differ."""
    whole, events = ask(n=3, max_tokens=8, ignore_eos=True)
    usage = events[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (20, 24)
    assert whole["usage"]["completion_tokens"] == 24
    assert len(whole["choices"]) == 3
    texts = set()
    for index, choice in enumerate(whole["choices"]):
        own = choices(events, index)
        assert own[0]["delta"]["role"] == "assistant"
        assert [c["finish_reason"] for c in own] == [None] * 9 + ["length"]
        text = joined(events, "content", index)
        assert (choice["index"], choice["message"]["content"]) == (index, text)
        assert count(text) == 8
        texts.add(text)
    assert len(texts) == 3
    assert len({event["id"] for event in events}) == 1


def test_a_request_counts_once_however_many_answers(mock: Maker, body: Maker) -> None:
    """As vLLM does: `n` and the longest answer per request, the rest per answer."""

    async def main() -> Any:
        async with mock(length=9) as server, aiohttp.ClientSession() as client:
            url = f"{server.url}/v1/chat/completions"
            async with client.post(url, json=body(n=3)) as response:
                assert response.status == 200
            return server.stats.engines[0]

    stats = asyncio.run(main())
    assert (stats.n.count, stats.n.total) == (1, 3)
    assert (stats.longest.count, stats.longest.total) == (1, 9)
    assert (stats.generation_lengths.count, stats.finished["stop"]) == (3, 3)


def test_completions_of_several_prompts(ask: Maker) -> None:
    """`n` answers to each, in order; strings and token ids alike."""
    prompts = [prompt_of(11, 1), prompt_of(9, 2)]
    whole, events = ask("/v1/completions", prompt=prompts, n=2, max_tokens=5)
    assert whole["object"] == "text_completion"
    assert whole["usage"] == {
        "prompt_tokens": 18, "completion_tokens": 20, "total_tokens": 38
    }  # fmt: skip
    texts = [choice["text"] for choice in whole["choices"]]
    for index in range(4):
        own = choices(events, index)
        assert "".join(c["text"] for c in own) == texts[index]
    ids, _ = ask("/v1/completions", prompt=[tokenize(p) for p in prompts], n=2,
                 max_tokens=5)  # fmt: skip
    assert [choice["text"] for choice in ids["choices"]] == texts


def test_a_completion_has_16_tokens_unless_asked_otherwise(ask: Maker) -> None:
    """As at OpenAI; chat may fill the context."""
    whole, _ = ask("/v1/completions", prompt="hi", length=500)
    assert whole["usage"]["completion_tokens"] == 16
    assert whole["choices"][0]["finish_reason"] == "length"


# -------------------------------------------------------------------------- endings


def test_a_stop_string_cuts_the_answer(ask: Maker) -> None:
    """Found in the text that would have come; what follows it never does."""
    full, _ = ask(messages=MESSAGES)
    text = full["choices"][0]["message"]["content"]
    word = text[16:20]
    for stop in (word, ["###", word]):
        whole, events = ask(messages=MESSAGES, stop=stop)
        (choice,) = whole["choices"]
        assert choice["finish_reason"] == "stop"
        assert choice["message"]["content"] == text.partition(word)[0]
        assert joined(events, "content") == text.partition(word)[0]


def test_usage_counts_the_tokens_of_a_stop_string(ask: Maker) -> None:
    """They were generated, though not shown."""
    full, _ = ask(messages=MESSAGES)
    text = full["choices"][0]["message"]["content"]
    stop = text[10:14]  # in the middle of the third token and of the fourth
    whole, events = ask(messages=MESSAGES, stop=stop)
    at = len(text.partition(stop)[0].encode()) + len(stop.encode())
    assert whole["usage"]["completion_tokens"] == -(-at // 4)
    assert events[-1]["usage"]["completion_tokens"] == -(-at // 4)
    kept, _ = ask(messages=MESSAGES, stop=stop, include_stop_str_in_output=True)
    assert kept["choices"][0]["message"]["content"] == text.partition(stop)[0] + stop


def test_usage_may_come_with_each_event(ask: Maker) -> None:
    """Under vLLM's `continuous_usage_stats` it counts up, one token at a time."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    _, events = ask(options=options, max_tokens=6, ignore_eos=True)
    counted = [e["usage"]["completion_tokens"] for e in events if e.get("usage")]
    assert counted == [1, 2, 3, 4, 5, 6, 6]


# ------------------------------------------------------------------ tools and JSON


def test_tools_are_called_with_arguments_of_their_shape(ask: Maker) -> None:
    """Id and name first, then the arguments in pieces; the reason says so."""
    whole, events = ask(tools=TOOLS, tool_choice="required", seed=3)
    (choice,) = whole["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    schemas = {"weather": PARAMETERS, "now": {"const": {}}}
    deltas = [d for c in choices(events, 0) for d in c["delta"].get("tool_calls", ())]
    for index, call in enumerate(choice["message"]["tool_calls"]):
        function = call["function"]
        arguments = json.loads(function["arguments"])
        jsonschema.validate(arguments, schemas[function["name"]])
        first, *rest = [d for d in deltas if d["index"] == index]
        assert (first["id"], first["type"]) == (call["id"], "function")
        assert first["function"] == {"name": function["name"], "arguments": ""}
        assert (
            "".join(d["function"]["arguments"] for d in rest) == function["arguments"]
        )
    assert choices(events, 0)[-1]["finish_reason"] == "tool_calls"
    calls = choice["message"]["tool_calls"]
    tokens = sum(
        count(c["function"]["name"]) + count(c["function"]["arguments"]) for c in calls
    )
    assert whole["usage"]["completion_tokens"] == tokens


@pytest.mark.parametrize("seed", range(8))
def test_a_named_tool_is_the_one_called(ask: Maker, seed: int) -> None:
    """And the reason is `stop`, as OpenAI has it."""
    named = {"type": "function", "function": {"name": "now"}}
    whole, _ = ask(tools=TOOLS, tool_choice=named, seed=seed)
    (choice,) = whole["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "now", "arguments": "{}"}
    assert choice["finish_reason"] == "stop"


def test_parallel_calls_can_be_had_and_forbidden(ask: Maker) -> None:
    """At most two, of different functions; never more than one if forbidden."""
    seen = set()
    for seed in range(12):
        whole, _ = ask(tools=TOOLS, seed=seed)
        names = [
            call["function"]["name"]
            for call in whole["choices"][0]["message"]["tool_calls"]
        ]
        assert len(set(names)) == len(names)
        seen.add(len(names))
        if len(names) == 2:
            alone, _ = ask(tools=TOOLS, seed=seed, parallel_tool_calls=False)
            assert len(alone["choices"][0]["message"]["tool_calls"]) == 1
    assert seen == {1, 2}


def test_after_a_tool_has_answered_the_model_speaks(ask: Maker) -> None:
    """So an agent's loop ends, unless it insists on calls."""
    call = {"id": "x", "type": "function", "function": {"name": "now", "arguments": ""}}
    messages = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "noon", "tool_call_id": "x"},
    ]
    whole, _ = ask(messages=messages, tools=TOOLS)
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["choices"][0]["message"]["content"]
    whole, _ = ask(messages=messages, tools=TOOLS, tool_choice="required")
    assert whole["choices"][0]["finish_reason"] == "tool_calls"


def test_tools_count_in_the_prompt(ask: Maker) -> None:
    """Templates write them out; without them the prompt has 20 tokens."""
    whole, _ = ask(tools=TOOLS)
    text = json.dumps(TOOLS, separators=(",", ":"))
    assert whole["usage"]["prompt_tokens"] == 20 + count(text)


def test_json_is_of_its_schema(ask: Maker) -> None:
    """Valid, as long as it is, and cut where `max_tokens` cuts it."""
    form = {
        "type": "json_schema", "json_schema": {"name": "w", "schema": PARAMETERS}
    }  # fmt: skip
    whole, events = ask(messages=MESSAGES, response_format=form)
    text = whole["choices"][0]["message"]["content"]
    jsonschema.validate(json.loads(text), PARAMETERS)
    assert joined(events, "content") == text
    assert whole["usage"]["completion_tokens"] == count(text)
    assert whole["choices"][0]["finish_reason"] == "stop"
    short, events = ask(messages=MESSAGES, response_format=form, max_tokens=5)
    assert short["choices"][0]["finish_reason"] == "length"
    begun = short["choices"][0]["message"]["content"]
    assert text.startswith(begun)
    assert count(begun) == 5


def test_any_json_is_an_object(ask: Maker) -> None:
    """`json_object` promises no schema."""
    whole, _ = ask(response_format={"type": "json_object"})
    text = whole["choices"][0]["message"]["content"]
    assert isinstance(json.loads(text), dict)


# -------------------------------------------------------------------- reasoning


@pytest.mark.parametrize(
    ("effort", "share"),
    [("none", 0), ("minimal", 0.1), ("low", 0.2), ("medium", 0.5), ("high", 0.8)],
)
def test_effort_is_a_share_of_the_answer(ask: Maker, effort: str, share: float) -> None:
    """Reasoning comes first, counts as output, and is told apart."""
    whole, events = ask(reasoning_effort=effort, length=40)
    thought = joined(events, "reasoning_content")
    message = whole["choices"][0]["message"]
    assert message.get("reasoning_content", "") == thought
    assert joined(events, "reasoning") == thought
    assert count(message["content"]) == 40
    usage = whole["usage"]
    details = usage.get("completion_tokens_details", {"reasoning_tokens": 0})
    assert details["reasoning_tokens"] == count(thought)
    assert usage["completion_tokens"] == 40 + count(thought)
    assert count(thought) == pytest.approx(usage["completion_tokens"] * share, abs=1)
    kinds = ["content" in c["delta"] for c in choices(events, 0)[1:-1]]
    assert kinds == sorted(kinds)


def test_reasoning_counts_against_the_limit(ask: Maker) -> None:
    """A limit may leave nothing for the answer."""
    whole, _ = ask(reasoning_effort="high", length=40, max_tokens=50)  # of 200
    assert whole["usage"]["completion_tokens"] == 50
    details = whole["usage"]["completion_tokens_details"]
    assert details["reasoning_tokens"] == 50
    assert whole["choices"][0]["message"]["content"] == ""
    assert whole["choices"][0]["finish_reason"] == "length"


def test_reasoning_counts_towards_min_tokens(ask: Maker) -> None:
    """A stop string ends the answer only once reasoning and text are long enough."""
    stop = list("abcdefghijklmnopqrstuvwxyz")
    fields: dict[str, Any] = {"reasoning_effort": "low", "length": 40, "stop": stop}
    early, _ = ask(**fields)
    assert early["usage"]["completion_tokens"] < 30
    late, _ = ask(**fields, min_tokens=30)
    assert 30 < late["usage"]["completion_tokens"] < 34


# ---------------------------------------------------- prefix cache and priorities


def test_a_repeated_prompt_is_cached(mock: Maker) -> None:
    """All of its whole blocks but the last token's; and usage says so."""

    async def main() -> list[Any]:
        async with mock() as server, aiohttp.ClientSession() as client:
            usages = []
            messages = [{"role": "user", "content": prompt_of(100, 1)}]
            longer = [*messages, {"role": "user", "content": prompt_of(50, 2)}]
            for asked in (messages, messages, longer):
                payload = {"model": "llama", "messages": asked, "max_tokens": 1}
                url = f"{server.url}/v1/chat/completions"
                async with client.post(url, json=payload) as response:
                    usages.append((await response.json())["usage"])
            (stats,) = server.stats.engines
            assert (stats.prompt_tokens, stats.cached_tokens) == (350, 192)
            assert stats.prefill_computed.total == 350 - 192
            return usages

    first, second, third = asyncio.run(main())
    assert "prompt_tokens_details" not in first
    # Blocks have 16 tokens: six of 100 are whole.
    assert second["prompt_tokens_details"] == {"cached_tokens": 96}
    assert third["prompt_tokens_details"] == {"cached_tokens": 96}


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
def test_a_salt_keeps_cached_blocks_apart(mock: Maker, path: str) -> None:
    """Only requests with the same salt share blocks, by whichever endpoint."""
    text = prompt_of(100, 1)
    field = {
        "chat/completions": {"messages": [{"role": "user", "content": text}]},
        "completions": {"prompt": text},
        "responses": {"input": text},
    }[path]

    async def main() -> tuple[list[int], int]:
        async with mock() as server, aiohttp.ClientSession() as client:
            seen = []
            for salt in ("a", "b", None, "a", "b", None):
                payload = {"model": "llama", **field, "cache_salt": salt}
                url = f"{server.url}/v1/{path}"
                async with client.post(url, json=payload) as response:
                    assert response.status == 200
                    await response.read()
                (stats,) = server.stats.engines
                seen.append(stats.cached_tokens)
            payload = {"model": "llama", **field, "cache_salt": ""}
            async with client.post(url, json=payload) as response:
                error = (await response.json())["error"]
                assert error["param"] == "cache_salt"
                return seen, response.status

    seen, status = asyncio.run(main())
    assert seen == [0, 0, 0, 96, 192, 288]
    assert status == 400


@pytest.mark.parametrize(
    ("settings", "priority", "status"),
    [
        ({}, 0, 200),
        ({}, 1, 400),
        ({"scheduling_policy": "priority"}, 1, 200),
        ({"prefix_caching": False}, 0, 200),
        ({"policy": "trtllm_max_util"}, 0, 200),
    ],
)
def test_priorities_need_their_scheduler(
    mock: Maker, body: Maker, settings: dict[str, Any], priority: int, status: int
) -> None:
    """A priority is refused where it would mean nothing, as vLLM does."""
    limits = EngineLimits(
        max_num_seqs=8, max_num_batched_tokens=512, kv_blocks=100, block_size=16,
        max_model_len=200,
    )  # fmt: skip
    law = StepLaw(
        weights_ms=1, gemm_us_per_token=0, kv_ns_per_token=0, pair_ns=0, sigma=0
    )

    async def main() -> None:
        fleet = build_fleet(limits, law, engines=1, seed=1, **settings)
        async with mock(fleet) as server, aiohttp.ClientSession() as client:
            payload = body(priority=priority, max_tokens=2)
            url = f"{server.url}/v1/chat/completions"
            async with client.post(url, json=payload) as response:
                assert response.status == status, await response.text()
            asked = [entry.priority for entry in server.journal]
            assert asked == ([priority] if status == 200 else [])

    asyncio.run(main())


# ------------------------------------------------------------------------ responses


def test_events_of_a_response_are_numbered_and_complete(ask: Maker) -> None:
    """Every item is announced, told in pieces and told whole, in that order."""
    whole, events = ask(
        "/v1/responses", input="hi", reasoning={"effort": "medium"}, length=6
    )
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    told = [whole, events[-1]["response"]]
    for response in told:
        Response.model_validate(response)  # parsing does not check, this does
    kinds = [event["type"].removeprefix("response.") for event in events]
    frame = ["output_item.added", "content_part.added"]
    after = ["content_part.done", "output_item.done"]
    assert kinds == [
        "created", "in_progress",
        *frame, *["reasoning_text.delta"] * 6, "reasoning_text.done", *after,
        *frame, *["output_text.delta"] * 6, "output_text.done", *after,
        "completed",
    ]  # fmt: skip
    last = events[-1]["response"]
    assert last["usage"] == whole["usage"]
    assert last["usage"]["output_tokens_details"] == {"reasoning_tokens": 6}
    assert [item["type"] for item in last["output"]] == ["reasoning", "message"]
    told = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert told == last["output"]


def test_a_conversation_goes_on(mock: Maker) -> None:
    """What was said before counts in the prompt; what is not known is a 404."""

    async def main() -> None:
        async with mock() as server, aiohttp.ClientSession() as client:

            async def ask(status: int = 200, **fields: Any) -> Any:
                payload = {"model": "llama", "input": "four"} | fields
                url = f"{server.url}/v1/responses"
                async with client.post(url, json=payload) as response:
                    assert response.status == status
                    return await response.json()

            first = await ask()
            second = await ask(previous_response_id=first["id"])
            # "four", the answer of 20, and "four": a token of template each.
            assert second["usage"]["input_tokens"] == 2 + 21 + 2
            third = await ask(previous_response_id=second["id"], store=False)
            assert third["usage"]["input_tokens"] == 25 + 21 + 2
            for unknown in (third["id"], "resp_none"):
                refused = await ask(404, previous_response_id=unknown)
                error = refused["error"]
                assert error["param"] == "previous_response_id"

    asyncio.run(main())


# ---------------------------------------------------------------- names and places


def test_azure_paths_need_a_version_and_name_the_model(
    mock: Maker, body: Maker
) -> None:
    """The deployment is the model, whatever the body says; the key goes bare."""

    async def main() -> None:
        async with (
            mock(api_key="sesame", aliases=("gpt-x",)) as server,
            aiohttp.ClientSession() as client,
        ):
            payload = body(max_tokens=2, model="anything")
            for key, name, query, status in (
                ("sesame", "gpt-x", "?api-version=2024-10-21", 200),
                ("sesame", "gpt-x", "", 400),
                ("sesame", "gpt-y", "?api-version=1", 404),
                ("open", "gpt-x", "?api-version=1", 401),
            ):
                url = f"{server.url}/openai/deployments/{name}/chat/completions{query}"
                headers = {"api-key": key}
                async with client.post(url, json=payload, headers=headers) as response:
                    assert response.status == status
            async with client.post(
                f"{server.url}/openai/v1/chat/completions",
                json=payload | {"model": "gpt-x"},
                headers={"api-key": "sesame"},
            ) as response:
                assert (await response.json())["model"] == "llama"

    asyncio.run(main())


def test_ready_says_whether_a_request_would_be_taken(
    mock: Maker, fleet_of: Maker, body: Maker, until: Maker
) -> None:
    """It turns with the queue, while `/health` only says that the process lives."""

    async def main() -> None:
        async with (
            mock(fleet_of(max_num_seqs=1), max_waiting=1) as server,
            aiohttp.ClientSession() as client,
        ):

            async def status(path: str) -> int:
                async with client.get(server.url + path) as response:
                    return response.status

            assert await status("/ready") == 200
            url = f"{server.url}/v1/chat/completions"
            payload = body(stream=True, max_tokens=5000, ignore_eos=True)
            first = await client.post(url, json=payload)
            await until(lambda: server.fleet.engines[0].running == 1)
            second = await client.post(url, json=payload)
            assert await status("/ready") == 503
            assert await status("/health") == 200
            first.close()
            second.close()

    asyncio.run(main())


def test_tokens_and_text_go_both_ways(mock: Maker) -> None:
    """`/detokenize` undoes `/tokenize`."""

    async def main() -> None:
        async with mock() as server, aiohttp.ClientSession() as client:
            payload = {"prompt": "né là, the old map", "return_token_strs": True}
            async with client.post(f"{server.url}/tokenize", json=payload) as response:
                told = await response.json()
            assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
            async with client.post(
                f"{server.url}/detokenize", json={"tokens": told["tokens"]}
            ) as response:
                assert await response.json() == {"prompt": payload["prompt"]}

    asyncio.run(main())
