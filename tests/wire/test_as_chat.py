"""Answers of the responses endpoint, read as any other answer is."""

import json
from typing import Any

import pytest

from loadstone.traffic.record import TokensSource
from loadstone.wire.as_chat import as_chat, is_response
from loadstone.wire.chunks import Kind, parse, spot
from loadstone.wire.reply import ChatReply, read_body, read_stream
from loadstone.wire.sse import EventScanner


def event(kind: str, **fields: Any) -> bytes:
    """Write an event as OpenAI does: compact, with its name and number."""
    data = {"type": f"response.{kind}", "sequence_number": 1} | fields
    payload = json.dumps(data, separators=(",", ":"))
    return f"event: response.{kind}\ndata: {payload}\n\n".encode()


def response(status: str, **more: Any) -> dict[str, Any]:
    """Return a whole response."""
    usage = {
        "input_tokens": 11, "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 1},
    }  # fmt: skip
    return {"object": "response", "status": status, "usage": usage} | more


def read(*events: bytes) -> ChatReply:
    """Read a stream whose events came a second apart."""
    scanner = EventScanner()
    for second, data in enumerate(events):
        scanner.feed(data, float(second))
    return read_stream(scanner.events())


MESSAGE = {
    "type": "message",
    "content": [{"type": "output_text", "text": 'He"llo'}],
}
THOUGHT = {"type": "reasoning", "content": [{"text": "hm"}], "summary": []}


def test_a_stream() -> None:
    """Reasoning, then text; announcements and repetitions are no tokens."""
    reply = read(
        event("created", response=response("in_progress")),
        event("reasoning_text.delta", delta="hm"),
        event("output_item.added", item=MESSAGE | {"content": []}),
        event("output_text.delta", delta='He"l'),
        event("output_text.delta", delta="lo"),
        event("output_text.done", text='He"llo'),
        event("completed", response=response("completed", output=[MESSAGE])),
    )
    assert (reply.events, reply.first, reply.first_answer, reply.last) == (3, 1, 3, 4)
    assert reply.text == 'He"llo'
    assert (reply.finish_reason, reply.whole, reply.error) == ("stop", True, None)
    assert (reply.output_tokens, reply.tokens_source) == (3, TokensSource.USAGE)
    usage = reply.usage
    assert usage is not None
    assert (usage.input_tokens, usage.cached_tokens) == (11, 4)
    assert usage.reasoning_tokens == 1


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({"reason": "max_output_tokens"}, "length"),
        ({"reason": "content_filter"}, "content_filter"),
        (None, None),
        ({"reason": 4}, None),
    ],
)
def test_an_answer_that_is_cut(details: Any, reason: str | None) -> None:
    """It says why, in chat's word where there is one."""
    whole = response("incomplete", incomplete_details=details)
    reply = read(
        event("output_text.delta", delta="a"), event("incomplete", response=whole)
    )
    assert (reply.finish_reason, reply.whole) == (reason, reason is not None)


def test_tool_calls_and_failures() -> None:
    """A call is an answer; a failure is an error, in either form."""
    reply = read(event("function_call_arguments.delta", delta='{"a'))
    assert (reply.first_tool, reply.answered) == (0, True)
    failure = {"code": "server_error", "message": "it broke"}
    reply = read(event("failed", response=response("failed", error=failure)))
    assert reply.error is not None
    assert reply.error.message == "it broke"
    reply = read(b'data: {"type":"error","message":"it broke","code":"x"}\n\n')
    assert reply.error is not None
    assert reply.error.message == "it broke"


def test_a_body() -> None:
    """One piece: text, counts and reason alike."""
    reply = read_body(
        json.dumps(response("completed", output=[THOUGHT, MESSAGE])).encode()
    )
    assert (reply.text, reply.finish_reason) == ('He"llo', "stop")
    assert (reply.output_tokens, reply.answered) == (3, True)
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    assert read_body(json.dumps(response("completed", output=[call])).encode()).answered


def test_bytes_and_json_say_the_same() -> None:
    """What is seen in the bytes is what parsing would say; else it is parsed."""
    deltas = {
        "output_text": Kind.ANSWER, "reasoning_text": Kind.THOUGHT,
        "function_call_arguments": Kind.TOOL,
    }  # fmt: skip
    for name, kind in deltas.items():
        payload = json.dumps(
            {"type": f"response.{name}.delta", "delta": 'a"b'}, separators=(",", ":")
        ).encode()
        found = spot(payload, 0, len(payload))
        assert found is not None
        assert (found[0], payload[found[1] : found[1] + 3]) == (kind, b'a\\"')
    for text in ('{"type":"response.output_text.delta","delta":""}', '{"delta":"'):
        assert spot(text.encode(), 0, len(text)) is None


@pytest.mark.parametrize(
    "chunk",
    [
        {"type": "response.output_text.delta", "delta": ["x"]},
        {"type": "response.output_text.delta"},
        {"type": "response.completed", "response": "x"},
        {"type": "response.completed", "response": {"usage": 4, "status": []}},
        {"object": "response", "output": {"a": 1}},
        {"object": "response", "output": ["x", {"type": "message", "content": "x"}]},
        {"object": "response", "output": [{"type": [], "content": [4]}]},
        {"type": "error"},
    ],
)
def test_hostile_types(chunk: dict[str, Any]) -> None:
    """Nothing trusts what it was sent."""
    assert is_response(chunk)
    assert isinstance(as_chat(chunk), dict)
    assert parse(json.dumps(chunk).encode()) is not None
    read(b"data: " + json.dumps(chunk).encode() + b"\n\n")
