"""Requests read and replies written, as bytes; nothing here opens a socket."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadstone.traffic.record import Truth
from loadstone.wire.answer import Answer
from loadstone.wire.openai_error import ApiError
from loadstone.wire.openai_reply import ReplyFormat, Usage
from loadstone.wire.openai_request import (
    GenerationRequest,
    parse_chat,
    parse_completion,
    parse_detokenize,
    parse_tokenize,
)
from loadstone.wire.tokens import RING, count_chat, prompt_of, ring_text

HI = [{"role": "user", "content": "hi"}]
REPLY = ReplyFormat("chatcmpl-7", 1_700_000_000, "llama")
TRUTH = Truth(1.5, 2.0, 2.25, 3.0, 4, 10.0)


def chat(**fields: Any) -> bytes:
    """Return the body of a minimal request with some more fields."""
    return json.dumps({"model": "llama", "messages": HI} | fields).encode()


def refused(body: bytes) -> ApiError:
    """Return the error a body is refused with."""
    with pytest.raises(ApiError) as caught:
        parse_chat(body)
    return caught.value


def refusal(parse: Callable[[bytes], object], body: bytes) -> ApiError | None:
    """Return the error a body is refused with, if it is."""
    try:
        parse(body)
    except ApiError as error:
        return error
    return None


# ------------------------------------------------------------------ what is accepted


def test_minimal_request_has_the_defaults() -> None:
    """Nothing but model and messages is needed."""
    asked = parse_chat(chat())
    assert asked.prompts[0].tokens == 1 + 1
    assert (asked.stream, asked.include_usage, asked.max_tokens) == (False, False, None)


def test_all_that_matters_is_read() -> None:
    """Streaming, limits and vLLM's extensions reach the request."""
    asked = parse_chat(
        chat(
            stream=True, stream_options={"include_usage": True}, max_tokens=9,
            max_completion_tokens=9, min_tokens=3, ignore_eos=True,
        )
    )  # fmt: skip
    assert asked == GenerationRequest(
        model="llama", prompts=asked.prompts, stream=True, include_usage=True,
        max_tokens=9, min_tokens=3, ignore_eos=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.7, "top_p": 1, "seed": -3, "user": "u", "store": False},
        {"presence_penalty": -2, "frequency_penalty": 2.0, "logit_bias": {"5": 1}},
        {"metadata": {}, "service_tier": "auto", "parallel_tool_calls": True},
        {"top_k": -1, "min_p": 0.1, "repetition_penalty": 1.1},
        {"n": 1, "logprobs": False, "tools": [], "response_format": {"type": "text"}},
        {"n": None, "tools": None, "max_tokens": None, "stream": None, "audio": None},
        {"stop": ["\n\n", "###"], "modalities": ["text"], "tool_choice": "auto"},
        {"something_new": {"of": ["any", "kind"]}},
        {"bad_words": [], "continue_final_message": False},
        {
            "messages": [
                {"role": "user", "content": "hi"},
                # A message as the SDK hands it over, and as programs hand it back.
                {
                    "role": "assistant",
                    "content": "x",
                    "refusal": None,
                    "annotations": [],
                    "audio": None,
                    "function_call": None,
                    "tool_calls": [],
                    "reasoning_content": "y",
                },
            ]
        },
    ],
)
def test_harmless_fields_are_accepted(fields: dict[str, Any]) -> None:
    """Sampling does not change how long emulated text is, nor its shape."""
    parse_chat(chat(**fields))


def test_a_prompt_counts_by_the_token_rule() -> None:
    """Names, parts, tool calls and tool results count; so does the template."""
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "be brief", "name": "ops"},
        {"role": "user", "content": [{"type": "text", "text": "añb"}] * 2},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "42", "tool_call_id": "x"},
    ]
    strings = [["be brief", "ops"], ["añb", "añb"], ["f", "{}"], ["42", "x"]]
    asked = parse_chat(chat(messages=messages))
    assert asked.prompts[0].tokens == count_chat(strings)


def test_generated_prompt_counts_exactly() -> None:
    """What the load generator writes is what the server reads."""
    messages = [{"role": "user", "content": prompt_of(777, 5)}]
    assert parse_chat(chat(messages=messages)).prompts[0].tokens == 777


def test_other_prompts_hash_differently() -> None:
    """The hash picks the answer, so other prompts get other answers."""
    hashes = {
        parse_chat(chat(messages=[{"role": "user", "content": f"hi {i}"}]))
        .prompts[0]
        .hash
        for i in range(100)
    }
    assert len(hashes) == 100


# ------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 5}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "king", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": [], "content": ""}]}, "messages[0].role"),
        ({"messages": [*HI, {"role": "user"}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        (
            {"stream": True, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
        ),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 5.0}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"stop": 5}, "stop"),
        ({"n": 0}, "n"),
        ({"n": "1"}, "n"),
    ],
)
def test_a_wrong_value_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """The error names the field at fault, down to the part of the message."""
    error = refused(chat(**fields))
    assert (error.status, error.param) == (400, param)
    assert json.loads(error.body())["error"]["param"] == param


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_field_is_refused_by_name(missing: str) -> None:
    """Both required fields are named when they are absent or null."""
    fields = {"model": "llama", "messages": HI} | {missing: None}
    assert refused(json.dumps(fields).encode()).param == missing


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("functions", [{}]), ("audio", {}), ("modalities", ["audio"]),
        ("continue_final_message", True), ("bad_words", ["a"]),
        ("allowed_token_ids", [1]), ("return_tokens_as_token_ids", True),
        ("best_of", 2), ("use_beam_search", True), ("prompt_logprobs", 1),
        ("structured_outputs", {}), ("guided_json", {}), ("echo", True),
        ("truncate_prompt_tokens", 5), ("stop_token_ids", [5]),
    ],
)  # fmt: skip
def test_what_is_not_modelled_is_refused(name: str, value: object) -> None:
    """Nothing that would change the answer's shape is silently ignored."""
    error = refused(chat(**{name: value}))
    assert (error.status, error.code, error.param) == (400, "not_modelled", name)


def test_stream_options_not_modelled_are_refused() -> None:
    """It would change every chunk."""
    error = refused(chat(stream=True, stream_options={"include_obfuscation": True}))
    assert error.code == "not_modelled"
    assert error.param == "stream_options.include_obfuscation"


def test_an_image_is_not_modelled() -> None:
    """Only text has a token count here."""
    parts = [{"type": "image_url", "image_url": {"url": "x"}}]
    error = refused(chat(messages=[{"role": "user", "content": parts}]))
    assert (error.code, error.param) == ("not_modelled", "messages[0].content[0]")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"{'a': 1}",
        '{"model": "m"}'.encode("utf-16"), b"[" * 100_000, b'{"a":' * 50_000,
        b'{"max_tokens": ' + b"9" * 5000 + b"}", b'{"temperature": NaN}',
        b'{"temperature": -Infinity}', chat()[:-1], b"\xef\xbb\xbf" + chat(),
    ],
)  # fmt: skip
def test_what_is_not_a_json_object_is_refused(body: bytes) -> None:
    """Junk is the client's fault, never ours."""
    error = refused(body)
    assert (error.status, error.code) == (400, "invalid_json")


def test_a_float_that_overflows_is_refused() -> None:
    """JSON has no infinity, but 1e400 reads as one."""
    body = chat(temperature=1).replace(b'"temperature": 1', b'"temperature": 1e400')
    assert refused(body).param == "temperature"


def test_a_long_value_is_not_repeated_whole() -> None:
    """An error does not send a megabyte back."""
    assert len(refused(chat(temperature="x" * 1_000_000)).body()) < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "tool_calls", "function"]
            )
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
FIELD = st.sampled_from(
    ["model", "messages", "stream", "stream_options", "max_tokens", "stop", "n",
     "tools", "min_tokens", "temperature", "logit_bias", "response_format", "prompt"]
)  # fmt: skip


@given(st.dictionaries(FIELD, JSON))
@example({"model": "m", "messages": [{"role": "assistant", "tool_calls": [{}]}]})
def test_any_json_is_read_or_refused(fields: dict[str, Any]) -> None:
    """Whatever the values are, the outcome is a request or a 4xx."""
    full = {"model": "llama", "messages": HI} | fields
    for parse in (parse_chat, parse_completion, parse_tokenize, parse_detokenize):
        for payload in (fields, full):
            error = refusal(parse, json.dumps(payload).encode())
            if error is not None:
                assert 400 <= error.status < 500
                assert json.loads(error.body())["error"]["message"]


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(body: bytes) -> None:
    """Random bytes are never a request, and never a crash."""
    assert refused(body).status == 400


# --------------------------------------------------------------------- context length


def test_the_limit_is_what_was_asked_or_what_fits() -> None:
    """Without `max_tokens` an answer may fill the context."""
    assert parse_chat(chat(max_tokens=5)).output_limit(100) == 5
    assert parse_chat(chat()).output_limit(100) == 98
    assert parse_chat(chat(max_tokens=98)).output_limit(100) == 98


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": 99}, "you requested 101 tokens (2 in the messages, 99 in the"),
        (
            {"messages": [{"role": "user", "content": prompt_of(100, 1)}]},
            "your messages resulted in 100 tokens",
        ),
    ],
)
def test_too_long_a_request_is_refused_as_openai_does(
    fields: dict[str, Any], words: str
) -> None:
    """The code and the words that clients look for."""
    with pytest.raises(ApiError) as caught:
        parse_chat(chat(**fields)).output_limit(100)
    assert caught.value.code == "context_length_exceeded"
    assert "maximum context length is 100 tokens" in caught.value.message
    assert words in caught.value.message


def test_more_least_than_most_is_refused() -> None:
    """`min_tokens` above `max_tokens` cannot be honoured."""
    with pytest.raises(ApiError) as caught:
        parse_chat(chat(min_tokens=6, max_tokens=5)).output_limit(100)
    assert caught.value.param == "min_tokens"


# ------------------------------------------------------------------------- tokenize


def test_tokenize_reads_a_prompt_or_messages() -> None:
    """Both shapes of vLLM's request."""
    assert len(parse_tokenize(b'{"prompt": "hello"}').ids) == 2
    assert len(parse_tokenize(json.dumps({"messages": HI}).encode()).ids) == 2


@pytest.mark.parametrize("body", [b"{}", b'{"prompt": 5}', b'{"prompt": "\\ud800"}'])
def test_tokenize_refuses_other_prompts(body: bytes) -> None:
    """The error names the prompt."""
    with pytest.raises(ApiError) as caught:
        parse_tokenize(body)
    assert caught.value.param == "prompt"


# -------------------------------------------------------------------------- replies


def events(stream: bytes) -> list[Any]:
    """Read framed events back: JSON values, and the last one as text."""
    body = b""
    while stream:
        size, _, rest = stream.partition(b"\r\n")
        n = int(size, 16)
        assert rest[n : n + 2] == b"\r\n"
        body, stream = body + rest[:n], rest[n + 2 :]
    parts = body.decode().split("\n\n")
    assert parts.pop() == ""
    assert parts[-1] == "data: [DONE]"
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-1]]


def test_stream_chunks_have_openais_shape() -> None:
    """Role, content, finish reason, usage, [DONE]."""
    form = REPLY.stream(include_usage=True)
    tail = form.closing("stop", Usage(8, 2), None)
    role, first, _, final, usage = events(
        form.opening + b"".join(form.head + t + form.tail for t in RING[:2]) + tail
    )
    common = {
        "id": "chatcmpl-7", "object": "chat.completion.chunk",
        "created": 1_700_000_000, "model": "llama",
    }  # fmt: skip

    def choice(delta: dict[str, str], reason: str | None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]

    assert role == common | {
        "choices": choice({"role": "assistant", "content": ""}, None)
    }
    assert first == common | {"choices": choice({"content": RING[0].decode()}, None)}
    assert final == common | {"choices": choice({}, "stop")}
    counts = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
    assert usage == common | {"choices": [], "usage": counts}


def test_token_events_are_equally_long() -> None:
    """The HTTP chunk header of a token event is a constant."""
    form = REPLY.stream(include_usage=False)
    assert len({len(form.head + token + form.tail) for token in RING}) == 1


@pytest.mark.parametrize("include_usage", [True, False])
def test_truth_is_in_the_last_json_event(include_usage: bool) -> None:
    """One event carries it, and it is the last."""
    form = REPLY.stream(include_usage=include_usage)
    *others, last = events(form.closing("length", Usage(1, 1), TRUTH))
    assert Truth(**last["loadstone"]) == TRUTH
    assert not any("loadstone" in other for other in others)


def test_body_has_openais_shape() -> None:
    """A whole answer as one object, with usage and truth."""
    answer = Answer(5, 2, "length")
    text = "".join(ring_text(5, 2))
    body = json.loads(REPLY.body([answer], Usage(8, 2), TRUTH))
    assert body["object"] == "chat.completion"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    assert body["usage"]["total_tokens"] == 10
    assert Truth(**body["loadstone"]) == TRUTH
    assert "loadstone" not in json.loads(REPLY.body([answer], Usage(8, 2), None))


def test_without_chunking_there_is_no_framing() -> None:
    """An HTTP/1.0 client gets bare events; the connection's end ends them."""
    form = ReplyFormat("a", 1, "m", chunked=False).stream(include_usage=False)
    stream = form.opening + form.head + RING[0] + form.tail
    stream += form.closing("stop", Usage(8, 1), None)
    assert stream.startswith(b"data: {")
    assert stream.endswith(b"data: [DONE]\n\n")


def test_error_repr_says_it_all() -> None:
    """For a log, and for a tired human."""
    assert repr(ApiError.bad_key()) == (
        "<ApiError 401 invalid_api_key: Incorrect API key provided.>"
    )
