"""What counts as a token, and what is read from the bytes of an answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.buckets import LogHistogram
from loadstone.traffic.record import TokensSource, Truth
from loadstone.vocabulary import TRUTH_FIELD
from loadstone.wire.chunks import ErrorObject, Kind, Usage, kind_of, opens, parse, spot
from loadstone.wire.content import MAX_UNREADABLE
from loadstone.wire.http1 import WireError
from loadstone.wire.reply import ChatReply, read_body, read_stream
from loadstone.wire.sse import EventScanner

TRUTH = {
    "received_s": 1.5, "scheduled_first_s": 2, "first_sent_s": 2.25, "last_sent_s": 3.0,
    "engine": 4, "slowdown": 10.0,
}  # fmt: skip
ROLE: dict[str, Any] = {"role": "assistant", "content": ""}
TRICKY = [
    '"finish_reason":"stop"', '"content":""', '{"delta":{"content":""}}', "\\", '\\"',
    '","content":"', "[DONE]", "\n\ndata: ", "é\U0001f600", "\ud83d", '"', "}", " ",
    f'"{TRUTH_FIELD}":', '"error":{"message":"no"}', '"usage":{"completion_tokens":9}',
]  # fmt: skip
STYLES: list[dict[str, Any]] = [
    {"separators": (",", ":")}, {}, {"separators": (" , ", " : ")},
    {"ensure_ascii": False},
]  # fmt: skip


@pytest.mark.parametrize(
    ("event", "bare"),
    [
        (b'{"id":"c","choices":[{"index":0,"delta":{"role":"assistant"}}]}', True),
        (
            (
                b'{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"",'
                b'"refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}'
            ),
            True,
        ),
        (b'{"choices":[{"delta":{"role":"assistant","content":"a"}}]}', False),
        (b'{"choices":[{"delta":{"role":"assistant"},"finish_reason":"stop"}]}', False),
        (b'{"choices":[{"delta":{"role":"assistant"}},{"delta":{}}]}', False),
        (b'{"choices":[{"delta":{"role":"assistant"}}],"usage":{}}', False),
        (b'{"usage":{},"choices":[{"delta":{"role":"assistant"}}]}', False),
        (b'{"error":{},"choices":[{"delta":{"role":"assistant"}}]}', False),
        (b'{"choices":[{"delta":{"role":"assistant"}}]', False),
        (b'{"choices":[{"delta":{}}]}', False),
    ],
)
def test_an_event_that_only_says_who_speaks_is_known_by_its_bytes(
    event: bytes, bare: bool
) -> None:
    """Whatever else it may say has to be read; bytes around it do not matter."""
    body = b"data: " + event + b"\n\ndata: x"
    assert opens(body, 6, 6 + len(event)) is bare


def chat(delta: object, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a chat chunk."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "choices": [choice], **more}


def legacy(text: str, reason: str | None = None) -> dict[str, Any]:
    """Return a chunk of `/v1/completions`."""
    return {"id": "c", "choices": [{"index": 0, "text": text, "finish_reason": reason}]}


def usage(output: int, **more: Any) -> dict[str, Any]:
    """Return a usage-only chunk."""
    counts = {"prompt_tokens": 7, "completion_tokens": output, **more}
    return {"id": "c", "choices": [], "usage": counts}


def stream(*events: object, **style: Any) -> ChatReply:
    """Read a stream of one event per read, stamped 0, 1 ...; bytes go as they are."""
    scanner = EventScanner()
    for number, item in enumerate(events):
        if isinstance(item, bytes):
            text = item
        else:
            text = json.dumps(item, **style).encode(errors="surrogatepass")
        scanner.feed(b"data: " + text + b"\n\n", float(number))
    return read_stream(scanner.events())


def test_a_whole_chat_answer() -> None:
    """Role, texts, reason, usage with the truth, `[DONE]`: each is read once."""
    reply = stream(
        chat(ROLE), chat({"content": "Hel"}), chat({"content": "lo"}),
        chat({"content": "!"}), chat({}, "length"),
        usage(3) | {TRUTH_FIELD: TRUTH}, b"[DONE]",
    )  # fmt: skip
    assert (reply.first, reply.last, reply.events) == (1.0, 3.0, 3)
    assert (reply.first_answer, reply.first_event_tokens) == (1.0, 1)
    assert (reply.output_tokens, reply.tokens_source) == (3, TokensSource.USAGE)
    assert reply.usage == Usage(input_tokens=7, output_tokens=3)
    assert (reply.finish_reason, reply.done, reply.whole) == ("length", True, True)
    assert reply.truth == Truth(1.5, 2, 2.25, 3.0, 4, 10.0)
    assert reply.text == "Hello!"
    assert reply.icl == LogHistogram(reply.icl).pairs()
    assert LogHistogram(reply.icl).quantile(0.5) == pytest.approx(1.0, rel=0.011)
    assert (reply.error, reply.unreadable) == (None, 0)
    assert "Hello" not in repr(reply)


def test_the_last_text_may_bring_all_the_rest() -> None:
    """Reason, usage and truth in the last content event are seen there."""
    last = chat({"content": "b"}, "stop", usage=usage(2)["usage"], loadstone=TRUTH)
    reply = stream(chat({"content": "a"}), last)
    assert (reply.finish_reason, reply.output_tokens, reply.text) == ("stop", 2, "ab")
    assert reply.truth is not None
    alone = stream(last)
    assert (alone.events, alone.finish_reason) == (1, "stop")


@pytest.mark.parametrize("place", range(5))
def test_the_truth_may_be_in_any_event(place: int) -> None:
    """Also in the midst of the content events that are never parsed."""
    events: list[object] = [chat({"content": f"t{n}"}) for n in range(5)]
    events[place] = chat({"content": "x"}, **{TRUTH_FIELD: TRUTH})
    reply = stream(*events)
    assert reply.truth is not None
    assert reply.truth.engine == 4


@pytest.mark.parametrize("style", STYLES)
@given(
    texts=st.lists(
        st.one_of(st.sampled_from(TRICKY), st.text(max_size=8)),
        max_size=6,
    ),
    form=st.sampled_from(["chat", "legacy"]),
)
def test_bytes_and_json_agree(
    style: dict[str, Any], texts: list[str], form: str
) -> None:
    """However JSON is spaced and whatever a text quotes, non-empty texts count."""
    texts = [t.encode(errors="ignore").decode() for t in texts]
    chunks = [legacy(t) if form == "legacy" else chat({"content": t}) for t in texts]
    reply = stream(*chunks, usage(5), b"[DONE]", **style)
    full = [float(n) for n, text in enumerate(texts) if text]
    assert reply.events == len(full)
    assert (reply.first, reply.last) == ((full[0], full[-1]) if full else (None, None))
    assert reply.text == "".join(texts)
    assert (reply.finish_reason, reply.error, reply.truth) == (None, None, None)
    assert reply.usage == Usage(7, 5)


@pytest.mark.parametrize("text", TRICKY)
def test_tricky_text_is_text(text: str) -> None:
    """Each string that looks like JSON is one content event and nothing else."""
    for chunk in (chat({"content": text}), legacy(text)):
        reply = stream(chunk, chunk, chunk)
        assert (reply.events, reply.text) == (3, text * 3)
        assert (reply.finish_reason, reply.error, reply.usage) == (None, None, None)
        assert not reply.done


def test_an_emoji_may_be_cut_into_surrogates() -> None:
    """Two events with half a character each make one character."""
    reply = stream(b'{"choices":[{"delta":{"content":"\\ud83d"}}]}',
                   b'{"choices":[{"delta":{"content":"\\ude00"}}]}')  # fmt: skip
    assert reply.text == "\U0001f600"


@pytest.mark.parametrize(
    "chunk",
    [
        chat(ROLE), chat({}), chat({"content": None}), chat({"role": "assistant"}),
        chat({"tool_calls": []}), chat({"content": "", "reasoning_content": ""}),
        chat(None), chat([]), chat("x"), usage(3), {}, {"choices": None},
        {"choices": [None, 3]}, legacy(""), {"choices": [{"delta": {}, "text": ""}]},
        chat({}, None, content_filter_results={"content": {}}),
        {"choices": [], "prompt_filter_results": [{"content_filter_results": {}}]},
        {"choices": [{"delta": {}, "logprobs": {"content": [{"token": "x"}]}}]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("style", STYLES)
def test_what_is_no_token(chunk: dict[str, Any], style: dict[str, Any]) -> None:
    """Role-only and empty deltas, usage, filters and oddities carry no token."""
    assert stream(chunk, **style).events == 0
    assert stream(chat({"content": "a"}), chunk, **style).events == 1


@pytest.mark.parametrize(
    ("delta", "kind"),
    [
        ({"content": "x"}, Kind.ANSWER),
        ({"refusal": "x"}, Kind.ANSWER),
        ({"content": [{"type": "text", "text": "x"}]}, Kind.ANSWER),
        ({"reasoning_content": "x"}, Kind.THOUGHT),
        ({"content": None, "reasoning": "x"}, Kind.THOUGHT),
        ({"content": "", "reasoning_content": "x"}, Kind.THOUGHT),
        ({"content": "y", "reasoning_content": "x"}, Kind.ANSWER),
        ({"tool_calls": [{"function": {"name": "f", "arguments": ""}}]}, Kind.TOOL),
        ({"tool_calls": [{"function": {"arguments": "{"}}]}, Kind.TOOL),
        ({"function_call": {"name": "f"}}, Kind.TOOL),
    ],
)
@pytest.mark.parametrize("style", STYLES)
def test_kinds_of_tokens(delta: object, kind: Kind, style: dict[str, Any]) -> None:
    """Text, refusals, reasoning and tool calls count; bytes never contradict JSON."""
    payload = json.dumps(chat(delta), **style).encode()
    assert kind_of(parse(payload) or {}) is kind
    spotted = spot(payload + b"\n", 0, len(payload))
    assert spotted is None or spotted[0] is kind
    reply = stream(chat(delta), chat(delta), **style)
    assert reply.events == 2
    assert reply.first_answer == (None if kind is Kind.THOUGHT else 0.0)
    assert reply.first_tool == (0.0 if kind is Kind.TOOL else None)


def test_reasoning_comes_before_the_answer() -> None:
    """TTFT ends with the first thought; the first answer is kept apart from it."""
    reply = stream(
        chat(ROLE), chat({"reasoning_content": "hm"}), chat({"reasoning_content": "m"}),
        chat({"content": "42"}), chat({"content": "."}), chat({}, "stop"),
    )  # fmt: skip
    assert (reply.first, reply.first_answer, reply.last) == (1.0, 3.0, 4.0)
    assert (reply.events, reply.text, reply.first_tool) == (4, "42.", None)


def test_tool_calls_are_seen_apart() -> None:
    """They are output like text, and the first of them has its own instant."""
    call = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}
    part = {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}
    reply = stream(
        chat(ROLE), chat({"reasoning": "hm"}), chat({"content": "Well"}),
        chat(call), chat(part), chat({}, "tool_calls"),
    )  # fmt: skip
    assert (reply.first, reply.first_answer, reply.first_tool) == (1.0, 2.0, 3.0)
    assert (reply.events, reply.text, reply.finish_reason) == (4, "Well", "tool_calls")


def test_without_usage_events_are_counted() -> None:
    """Chunks stand in for tokens, and the source says so; so for a usage of 0."""
    texts = [chat({"content": "x"})] * 4
    for reply in (stream(*texts), stream(*texts, usage(0))):
        assert (reply.output_tokens, reply.tokens_source) == (4, TokensSource.CHUNKS)
    nothing = stream(chat({}, "stop"))
    assert (nothing.output_tokens, nothing.tokens_source) == (0, TokensSource.NONE)


def test_usage_in_every_chunk() -> None:
    """The largest counts, and the first event says how many tokens it had."""
    chunks = [
        chat({"content": "ab"}, usage={"prompt_tokens": 7, "completion_tokens": n})
        for n in (4, 8, 12)
    ]
    reply = stream(*chunks, chat({}, "stop", usage={"completion_tokens": 12}))
    assert (reply.output_tokens, reply.first_event_tokens) == (12, 4)
    assert reply.usage == Usage(7, 12)


@pytest.mark.parametrize(
    ("texts", "tokens", "details", "first"),
    [
        (["abc"] * 5, 5, {}, 1),
        (["abc"] * 5, 3, {}, 1),  # more events than tokens
        (["abcabcabc"] * 5, 15, {}, 3),  # all alike: an equal share
        (["abc", *["abc" * 8] * 5], 41, {}, 1),  # the first one alone, then eights
        (["abc"] * 5, 25, {"reasoning_tokens": 20}, 21),  # hidden reasoning
        (["abcabc"] * 5, 30, {"reasoning_tokens": 20}, 22),
        (["abc"] * 5, 3, {"reasoning_tokens": 90}, 4),  # a usage that is wrong
    ],
)
def test_tokens_of_the_first_event(
    texts: list[str], tokens: int, details: dict[str, int], first: int
) -> None:
    """One, an equal share, or one after what was never streamed."""
    count = usage(tokens, completion_tokens_details=details)
    reply = stream(*(chat({"content": text}) for text in texts), count)
    assert reply.first_event_tokens == first


def test_streamed_reasoning_is_not_hidden() -> None:
    """Reasoning tokens that came as events are counted there."""
    count = usage(4, completion_tokens_details={"reasoning_tokens": 2})
    thoughts = [chat({"reasoning": "x"})] * 2
    reply = stream(*thoughts, *[chat({"content": "x"})] * 2, count)
    assert reply.first_event_tokens == 1
    assert reply.usage == Usage(7, 4, 0, 2)


def test_cached_tokens() -> None:
    """OpenAI's place for them, and DeepSeek's."""
    for more in (
        {"prompt_tokens_details": {"cached_tokens": 5}},
        {"prompt_cache_hit_tokens": 5},
    ):
        assert stream(usage(3, **more)).usage == Usage(7, 3, 5)


@pytest.mark.parametrize(
    ("chunk", "message", "kind"),
    [
        ({"error": {"message": "full", "type": "overloaded", "code": 5}}, "full",
         "overloaded"),
        ({"error": {"message": "full", "code": 503}}, "full", "503"),
        ({"error": "full", "error_type": "overloaded"}, "full", "overloaded"),
        ({"object": "error", "message": "full", "type": "T"}, "full", "T"),
        ({"detail": "full"}, "full", ""),
        ({"error": {"why": 1}}, '{"why": 1}', ""),
        ({"error": {"message": " a\n b " + "x" * 999}}, "a b " + "x" * 296, ""),
    ],
)  # fmt: skip
def test_errors_in_a_stream(chunk: object, message: str, kind: str) -> None:
    """An error in any usual shape is found, in a line, and the tokens before it too."""
    reply = stream(chat({"content": "a"}), chunk)
    assert reply.error == ErrorObject(message, kind)
    assert reply.events == 1
    assert not reply.whole


def test_null_errors_are_none() -> None:
    """A field for errors that says null is no error."""
    assert stream(chat({"content": "a"}, error=None)).error is None


@pytest.mark.parametrize("end", range(1, 60, 7))
def test_a_stream_that_breaks_off(end: int) -> None:
    """What came whole counts; half an event does not, nor is it called unreadable."""
    scanner = EventScanner()
    text = b"data: " + json.dumps(chat({"content": "word"})).encode()
    scanner.feed(text + b"\n\n" + text[:end], 1.0)
    reply = read_stream(scanner.events())
    assert (reply.events, reply.unreadable, reply.text) == (1, 0, "word")
    assert not reply.whole


def test_a_last_event_without_its_blank_line_counts() -> None:
    """If it is whole, it was read."""
    scanner = EventScanner()
    scanner.feed(b"data: " + json.dumps(chat({"content": "a"})).encode(), 1.0)
    reply = read_stream(scanner.events())
    assert (reply.events, reply.first, reply.text) == (1, 1.0, "a")


@pytest.mark.parametrize(
    "junk",
    [b"<html>", b"{", b"[1]", b"null", b"[" * 100_000, b"\xff", b'{"a":' * 20_000,
     b"9" * 5000],
)  # fmt: skip
def test_junk_is_counted_and_never_raises(junk: bytes) -> None:
    """Events that are not JSON objects are counted, up to a bound."""
    assert stream(junk, chat({"content": "a"})).unreadable == 1
    assert stream(*[junk] * 300).unreadable == MAX_UNREADABLE


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.integers(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "content", "usage", "error", TRUTH_FIELD, "engine",
                 "completion_tokens", "finish_reason", "message", "text", "tool_calls"]
            ),
            inner,
            max_size=4,
        ),
    ),
)  # fmt: skip


@given(st.lists(st.dictionaries(st.sampled_from(["choices", "usage", "error", "delta",
    TRUTH_FIELD]), HOSTILE), max_size=3))  # fmt: skip
def test_no_type_is_trusted(chunks: list[object]) -> None:
    """Whatever JSON says in whatever place, reading it gives a reply."""
    reply = stream(*chunks)
    assert isinstance(reply.text, str)
    for chunk in chunks:
        read_body(json.dumps(chunk).encode())


@pytest.mark.parametrize(
    "truth",
    [None, 3, [], {}, TRUTH | {"engine": "x"}, TRUTH | {"received_s": None},
     TRUTH | {"engine": float("inf")}],
)  # fmt: skip
def test_a_truth_that_is_none(truth: object) -> None:
    """Stamps that are missing or no numbers are no truth."""
    assert stream(usage(1) | {TRUTH_FIELD: truth}).truth is None


def test_a_plain_body() -> None:
    """Without a stream there is text and usage but no first token."""
    message = {"role": "assistant", "content": "Hi"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = usage(1) | {"choices": [choice], TRUTH_FIELD: TRUTH}
    reply = read_body(json.dumps(body).encode())
    assert (reply.text, reply.finish_reason, reply.whole) == ("Hi", "stop", True)
    assert (reply.output_tokens, reply.tokens_source) == (1, TokensSource.USAGE)
    assert (reply.first, reply.last, reply.events, reply.icl) == (None, None, 0, ())
    assert reply.truth is not None


def test_other_bodies() -> None:
    """Legacy texts, embeddings and errors have the same form; junk has none."""
    assert read_body(json.dumps(legacy("Hi", "stop")).encode()).text == "Hi"
    embeddings = read_body(b'{"data":[],"usage":{"prompt_tokens":4}}')
    assert embeddings.usage == Usage(4)
    error = read_body(b'{"error":{"message":"no"}}').error
    assert error == ErrorObject("no")
    with pytest.raises(WireError):
        read_body(b"<html>")
