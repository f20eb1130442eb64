"""Replies of OpenAI's responses endpoint: an object, or events that build it up.

A response is a list of items: reasoning, a message, function calls. In a stream each
item is announced, told in deltas, and told whole; every event has a number. The stream
ends with the whole response, and not with `[DONE]`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from ..traffic.record import Truth
from ..units import Tokens
from .answer import Answer, FinishReason, Part, Segment
from .openai_reply import LAST_CHUNK, Usage, dumps, truth_field
from .script import Run, Script

Fields = dict[str, Any]


@dataclass(slots=True)
class ResponseFormat:
    """One response. `echo` has the request's fields; `created` is since the epoch."""

    id: str
    created: int
    model: str
    answer: Answer
    echo: Mapping[str, Any]
    chunked: bool = True
    _numbers: "count[int]" = field(default_factory=count)

    def body(self, usage: Usage, truth: Truth | None) -> bytes:
        """Write the whole response."""
        return dumps(self._whole(usage) | truth_field(truth))

    def stream(self) -> "ResponseStream":
        """Return what surrounds the events of the items."""
        started = self._fields("in_progress")
        opening = self.event("response.created", response=started)
        opening += self.event("response.in_progress", response=started)
        return ResponseStream(self, self.framed(opening))

    def script(self) -> Script:
        """Return the events of the items."""
        items = zip(self.answer.parts, self.items("completed"), strict=True)
        runs = [
            _Item(self, index, segment, item).run()
            for index, (segment, item) in enumerate(items)
        ]
        return Script(runs, self.framed)

    def completed(self, usage: Usage, truth: Truth | None) -> bytes:
        """Write the last event, and end the body."""
        whole = self._whole(usage)
        data = self.event(
            f"response.{whole['status']}", response=whole, **truth_field(truth)
        )
        return self.framed(data) + (LAST_CHUNK if self.chunked else b"")

    def event(self, kind: str, **fields: Any) -> bytes:
        """Write one event under the next number."""
        data = {"type": kind, "sequence_number": next(self._numbers)} | fields
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), dumps(data))

    def framed(self, data: bytes) -> bytes:
        """Wrap `data` for the body, as one HTTP chunk where the body is chunked."""
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data

    def items(self, status: str) -> list[Fields]:
        """Return the output, item by item."""
        return [
            _item(segment, f"{self.id.removeprefix('resp_')}{index:04x}", status)
            for index, segment in enumerate(self.answer.parts)
        ]

    def _whole(self, usage: Usage) -> Fields:
        cut = self.answer.reason == "length"
        fields = self._fields("incomplete" if cut else "completed")
        if cut:
            fields["incomplete_details"] = {"reason": "max_output_tokens"}
        fields["output"] = self.items("completed")
        if cut:
            fields["output"][-1]["status"] = "incomplete"
        fields["usage"] = {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": usage.cached_tokens,
                "cache_write_tokens": 0,  # a price's word: here no write is billed
            },
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }
        return fields

    def _fields(self, status: str) -> Fields:
        def said(name: str, default: Any = None) -> Any:
            value = self.echo.get(name)
            return default if value is None else value

        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": said("instructions"),
            "max_output_tokens": said("max_output_tokens"),
            "metadata": said("metadata", {}),
            "model": self.model,
            "output": [],
            "parallel_tool_calls": said("parallel_tool_calls", default=True),
            "previous_response_id": said("previous_response_id"),
            "reasoning": {"effort": None, "summary": None} | said("reasoning", {}),
            "service_tier": "default",
            "store": said("store", default=True),
            "temperature": said("temperature", 1.0),
            "text": {"format": {"type": "text"}} | said("text", {}),
            "tool_choice": said("tool_choice", "auto"),
            "tools": said("tools", []),
            "top_p": said("top_p", 1.0),
            "truncation": "disabled",
            "usage": None,
            "user": said("user"),
        }


@dataclass(frozen=True, slots=True)
class ResponseStream:
    """The bytes around the events of one response."""

    response: ResponseFormat
    opening: bytes
    head: bytes = b""
    tail: bytes = b""

    def closing(self, _: FinishReason, usage: Usage, truth: Truth | None) -> bytes:
        """Write what follows the last token, up to the end of the body."""
        return self.response.completed(usage, truth)


@dataclass(frozen=True, slots=True)
class _Item:
    """The events of one item."""

    response: ResponseFormat
    index: int
    segment: Segment
    item: Fields

    def run(self) -> Run:
        """Return its tokens and how to write them."""
        before, delta, after = _EVENTS[self.segment.part]
        return Run(
            self.segment.pieces,
            partial(delta, self),
            before=partial(before, self),
            after=partial(after, self),
        )

    def _event(self, kind: str, **fields: Any) -> bytes:
        return self.response.event(f"response.{kind}", **fields)

    def _within(self, kind: str, **fields: Any) -> bytes:
        place = {"item_id": self.item["id"], "output_index": self.index}
        return self._event(kind, **place, **fields)

    def _added(self, **empty: Any) -> bytes:
        item = self.item | {"status": "in_progress"} | empty
        return self._event("output_item.added", output_index=self.index, item=item)

    def _done(self) -> bytes:
        return self._event("output_item.done", output_index=self.index, item=self.item)

    def call_before(self) -> bytes:
        """Announce a call."""
        return self._added(arguments="")

    def call_delta(self, text: str, *_: Tokens) -> bytes:
        """Tell a piece of a call's arguments."""
        return self._within("function_call_arguments.delta", delta=text)

    def call_after(self) -> bytes:
        """Tell a call whole."""
        told = self._within(
            "function_call_arguments.done",
            name=self.segment.name,
            arguments=self.segment.text,
        )
        return told + self._done()

    def text_before(self) -> bytes:
        """Announce a message and its one part."""
        part = self.item["content"][0] | {"text": ""}
        added = self._added(content=[])
        return added + self._within("content_part.added", content_index=0, part=part)

    def text_delta(self, text: str, *_: Tokens) -> bytes:
        """Tell a piece of a message."""
        return self._within(
            "output_text.delta", content_index=0, delta=text, logprobs=[]
        )

    def text_after(self) -> bytes:
        """Tell a message whole."""
        told = self._within(
            "output_text.done", content_index=0, text=self.segment.text, logprobs=[]
        )
        return told + self._part_done()

    def thought_delta(self, text: str, *_: Tokens) -> bytes:
        """Tell a piece of reasoning."""
        return self._within("reasoning_text.delta", content_index=0, delta=text)

    def thought_after(self) -> bytes:
        """Tell reasoning whole."""
        told = self._within(
            "reasoning_text.done", content_index=0, text=self.segment.text
        )
        return told + self._part_done()

    def _part_done(self) -> bytes:
        part = self.item["content"][0]
        done = self._within("content_part.done", content_index=0, part=part)
        return done + self._done()


_EVENTS = {
    Part.CALL: (_Item.call_before, _Item.call_delta, _Item.call_after),
    Part.CONTENT: (_Item.text_before, _Item.text_delta, _Item.text_after),
    Part.REASONING: (_Item.text_before, _Item.thought_delta, _Item.thought_after),
}


def _item(segment: Segment, name: str, status: str) -> Fields:
    text = segment.text
    if segment.part is Part.CALL:
        return {
            "id": f"fc_{name}",
            "type": "function_call",
            "status": status,
            "call_id": segment.id,
            "name": segment.name,
            "arguments": text,
        }
    if segment.part is Part.REASONING:
        return {
            "id": f"rs_{name}",
            "type": "reasoning",
            "status": status,
            "summary": [],
            "content": [{"type": "reasoning_text", "text": text}],
        }
    content = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{name}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [content],
    }


def messages_of(answers: Sequence[Answer]) -> list[Fields]:
    """Return what answers add to a conversation, as chat messages."""
    messages: list[Fields] = []
    for segment in (s for answer in answers for s in answer.parts):
        if segment.part is Part.CALL:
            function = {"name": segment.name, "arguments": segment.text}
            call = {"id": segment.id, "function": function}
            messages.append({"role": "assistant", "tool_calls": [call]})
        elif segment.part is Part.CONTENT:
            messages.append({"role": "assistant", "content": segment.text})
    return messages
