"""Prompts of one's own: three formats, their slices, and what is wrong by its line."""

import json

import pytest

from loadstone.errors import UsageError
from loadstone.traffic.prompts import OwnPrompts, read_prompts

SHAREGPT = [
    {"id": "a", "conversations": [
        {"from": "human", "value": "one two"}, {"from": "gpt", "value": "three"},
        {"from": "human", "value": "four"}, {"from": "gpt", "value": "five six"},
    ]},
    {"id": "b", "conversations": [{"from": "human", "value": "seven"}]},
]  # fmt: skip


def read(text: str, **more: object) -> OwnPrompts:
    """Read prompts, whose tokens are words."""
    return read_prompts(text, name="p", count=lambda t: len(t.split()), **more)


def test_json_lines_by_hand() -> None:
    """A prompt, or messages; an answer's length where it is known."""
    lines = [
        {"prompt": "a b c", "output_tokens": 9, "topic": "x"},
        {"messages": [{"role": "system", "content": "be brief"},
                      {"role": "user", "content": "hi"}], "topic": 3},
    ]  # fmt: skip
    text = "\ufeff" + "\r\n".join(["", *map(json.dumps, lines)])
    one, two = read(text, slice_by="topic").prompts
    (turn,) = one.turns
    assert [(m.role, m.text, m.tokens) for m in turn.messages] == [("user", "a b c", 4)]
    assert (turn.output_tokens, one.slice, two.slice) == (9, "x", "3")
    (turn,) = two.turns
    assert [m.role for m in turn.messages] == ["system", "user"]
    assert (turn.output_tokens, turn.answer) == (None, None)


@pytest.mark.parametrize("form", ["list", "lines"])
def test_sharegpt_conversations_have_their_turns(form: str) -> None:
    """As one JSON list, as it is published, or a conversation a line."""
    text = json.dumps(SHAREGPT)
    if form == "lines":
        text = "\n".join(map(json.dumps, SHAREGPT))
    long, short = read(text, slice_by="id").prompts
    assert [turn.output_tokens for turn in long.turns] == [1, 2]
    assert [turn.messages[0].text for turn in long.turns] == ["one two", "four"]
    assert long.turns[0].answer is not None
    assert long.turns[0].answer.text == "three"
    assert [turn.output_tokens for turn in short.turns] == [None]
    assert (long.slice, short.slice) == ("a", "b")


def test_csv_has_columns_in_any_order() -> None:
    """With line breaks inside quotes, and lengths that nobody knows."""
    text = 'lang,output_tokens,prompt\nde,7,"guten\nTag"\nen,,hello\n'
    one, two = read(text, slice_by="lang").prompts
    assert one.turns[0].messages[0].text == "guten\nTag"
    assert [p.turns[0].output_tokens for p in (one, two)] == [7, None]
    assert (one.slice, two.slice) == ("de", "en")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not a JSON object"),
        ('{"prompt": ""}', "no prompt, no messages"),
        ('{"question": "x"}', "no prompt, no messages"),
        ('{"prompt": "x", "output_tokens": 0}', "output_tokens 0 is no count"),
        ('{"prompt": "x", "output_tokens": 1.5}', "output_tokens 1.5 is no count"),
        ('{"prompt": "x", "output_tokens": true}', "output_tokens True is no count"),
        ('{"messages": "hi"}', "its messages are no list"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "message 1 has no known"),
        (
            '{"messages": [{"role": "user", "content": ["x"]}]}',
            "message 1 has no known",
        ),
        ('{"messages": []}', "nobody asks anything"),
        ('{"conversations": [{"from": "gpt", "value": "x"}]}', "an answer before any"),
    ],
)
def test_a_bad_row_is_refused_by_line_or_counted(line: str, why: str) -> None:
    """Blank lines count."""
    good = '{"prompt": "x"}'
    text = f"{good}\n\n{line}\n{good}"
    with pytest.raises(UsageError) as caught:
        read(text)
    assert caught.value.message.startswith("p: line 3: ")
    assert why in caught.value.message
    found = read(text, skip_bad=True)
    assert (len(found.prompts), found.skipped) == (2, 1)
    assert why in found.shown[0]


def test_a_row_without_its_slice_is_bad() -> None:
    """It would be in no slice."""
    with pytest.raises(UsageError, match=r"line 1: no .lang. to tell it"):
        read('{"prompt": "x"}', slice_by="lang")


@pytest.mark.parametrize("text", ["", "[]", "prompt\n", "[1, 2"])
def test_a_file_without_prompts_is_refused(text: str) -> None:
    """Not an empty run."""
    with pytest.raises(UsageError, match=r"^p: "):
        read(text)
