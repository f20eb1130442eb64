"""Prompts of one's own: JSON lines, CSV, or ShareGPT's conversations.

    {"prompt": "What is a prefix cache?", "output_tokens": 200, "topic": "serving"}
    {"messages": [{"role": "user", "content": "Hi"}, ...]}
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": ...}]}
    {"custom_id": "1", "url": ..., "body": {"messages": [...]}}

Each line is one prompt; ShareGPT's file is one JSON list of them, the last line is
OpenAI's batch format. A CSV has the columns
`prompt` and, if it is known, `output_tokens`. An answer that is there says how long
answers are, and stands in the history of the turns that follow; `output` of the class
says it for the others. Any other field may be what results are told apart by.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import UsageError
from ..units import Tokens
from .prompt import Message, written
from .trace import SHOWN, BadRow

Count = Callable[[str], Tokens]
_ROLES: Final = {
    "system": "system", "developer": "system", "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "bard": "assistant",
    "chatgpt": "assistant",
}  # fmt: skip
"""Who speaks, by OpenAI's names and by ShareGPT's."""
_SAID: Final = (("messages", "role", "content"), ("conversations", "from", "value"))
_EXAMPLE: Final = 'write {"prompt": "...", "output_tokens": 200}, or "messages"'


@dataclass(frozen=True, slots=True)
class OwnTurn:
    """What is new in a turn, and its answer as far as it is known."""

    messages: tuple[Message, ...]
    output_tokens: Tokens | None = None
    answer: Message | None = None


@dataclass(frozen=True, slots=True)
class OwnPrompt:
    """A prompt of one turn or a conversation of several."""

    turns: tuple[OwnTurn, ...]
    slice: str = ""

    @property
    def tokens(self) -> Tokens:
        """The length of the last turn's prompt, but for answers that nobody states."""
        return sum(
            sum(m.tokens for m in turn.messages) + (turn.output_tokens or 0)
            for turn in self.turns
        )


@dataclass(frozen=True, slots=True)
class OwnPrompts:
    """What a file has, and what of it was left out."""

    prompts: list[OwnPrompt]
    skipped: int = 0
    shown: tuple[str, ...] = ()


def read_prompts(
    text: str,
    *,
    name: str,
    count: Count,
    slice_by: str | None = None,
    skip_bad: bool = False,
) -> OwnPrompts:
    """Read a file of prompts; `count` is the token rule, `name` what errors call it.

    Raises `UsageError` naming the line (in a JSON list, the entry) that is wrong,
    unless `skip_bad`: then it is left out and counted.
    """
    prompts, bad = [], []
    for line, row in _rows(text, name):
        try:
            prompts.append(_prompt(row, count, slice_by))
        except ValueError as wrong:
            bad.append(BadRow(line, str(wrong), _EXAMPLE))
            if not skip_bad:
                raise UsageError(f"{name}: {bad[0]}", hint=_EXAMPLE) from None
    if not prompts:
        raise UsageError(f"{name}: there is no prompt in it", hint=_EXAMPLE)
    return OwnPrompts(prompts, len(bad), tuple(map(str, bad[:SHOWN])))


def _rows(text: str, name: str) -> Iterator[tuple[int, Any]]:
    text = text.lstrip("\ufeff")
    first = text.lstrip()[:1]
    if first == "[":
        yield from enumerate(_list(text, name), start=1)
    elif first == "{":
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield number, _parsed(line)
    else:
        reader = csv.DictReader(text.splitlines(keepends=True))
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as wrong:
            raise UsageError(f"{name}: line {reader.line_num}: {wrong}") from None


def _list(text: str, name: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise UsageError(f"{name}: is not JSON: {wrong}") from None
    assert isinstance(found, list)
    return found


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _prompt(row: Any, count: Count, slice_by: str | None) -> OwnPrompt:
    if not isinstance(row, Mapping):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the file's fault
    if slice_by is not None and row.get(slice_by) in (None, ""):
        raise ValueError(f"no {slice_by!r} to tell it apart by")
    label = "" if slice_by is None else str(row[slice_by])
    if isinstance(row.get("body"), Mapping):
        row = row["body"]
    for field, role, said in _SAID:
        if field in row:
            return OwnPrompt(_turns(row[field], role, said, count), label)
    text = row.get("prompt")
    if not isinstance(text, str) or not text:
        raise ValueError("no prompt, no messages and no conversations")
    asked = (written("user", text, count(text)),)
    return OwnPrompt((OwnTurn(asked, _output(row.get("output_tokens"))),), label)


def _output(value: Any) -> Tokens | None:
    if value in (None, ""):
        return None
    try:
        tokens = int(value)
    except (TypeError, ValueError):
        tokens = 0
    if tokens < 1 or isinstance(value, bool) or str(tokens) != str(value).strip():
        raise ValueError(f"output_tokens {value!r:.40} is no count of at least 1")
    return tokens


def _turns(said: Any, role: str, content: str, count: Count) -> tuple[OwnTurn, ...]:
    messages = list(_messages(said, role, content, count))
    turns: list[OwnTurn] = []
    new: list[Message] = []
    for message in messages:
        if message.role != "assistant":
            new.append(message)
            continue
        if not any(each.role == "user" for each in new):
            raise ValueError("an answer before any question")
        length = max(1, sum(span.tokens for span in message.spans))
        turns.append(OwnTurn(tuple(new), length, message))
        new = []
    if any(each.role == "user" for each in new):
        turns.append(OwnTurn(tuple(new)))
    if not turns:
        raise ValueError("nobody asks anything in it")
    return tuple(turns)


def _messages(said: Any, role: str, content: str, count: Count) -> Iterable[Message]:
    if not isinstance(said, Sequence) or isinstance(said, str):
        raise ValueError("its messages are no list")  # noqa: TRY004 - the file's fault
    for number, each in enumerate(said, start=1):
        text = each.get(content) if isinstance(each, Mapping) else None
        who = _ROLES.get(str(each.get(role))) if isinstance(each, Mapping) else None
        if who is None or not isinstance(text, str):
            raise ValueError(f"message {number} has no known {role}, or no text")
        yield written(who, text, count(text))
