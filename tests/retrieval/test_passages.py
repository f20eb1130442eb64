"""Documents are cut into passages that lose nothing and are never too long."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import UsageError
from loadstone.retrieval.passages import Cut, Document
from loadstone.wire.tokens import count

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n"), max_size=400
)
CUTS = st.integers(1, 30).flatmap(
    lambda size: st.builds(Cut, st.just(size), st.integers(0, size - 1))
)


def texts(cut: Cut, text: str) -> list[str]:
    """Cut a text."""
    return [passage.text for passage in cut.passages(Document("d", text))]


@given(text=TEXTS, cut=CUTS)
def test_passages_are_stretches_and_leave_nothing_out(text: str, cut: Cut) -> None:
    """Each is a part of the text, they come in order, and every word is in one."""
    at = end = 0
    for passage in texts(cut, text):
        begin = text.index(passage, at)
        assert not text[end:begin].strip()
        assert begin == 0 or begin >= at
        at, end = begin, max(end, begin + len(passage))
    assert not text[end:].strip()


@given(text=TEXTS, cut=CUTS)
def test_no_passage_is_too_long(text: str, cut: Cut) -> None:
    """At most `size` tokens, unless one character alone has more."""
    for passage in texts(cut, text):
        assert count(passage) <= cut.size or len(passage) == 1


@given(text=TEXTS.filter(str.strip), cut=CUTS)
def test_positions_count_up(text: str, cut: Cut) -> None:
    """From 0, under the document's name."""
    found = list(cut.passages(Document("d", text)))
    assert [p.position for p in found] == list(range(len(found)))
    assert {p.document for p in found} == {"d"}


def test_overlap_is_of_whole_words_up_to_the_bound() -> None:
    """Words of one token each with their space: sizes can be counted by hand."""
    text = " ".join(f"w{i:02d}" for i in range(10))  # "w00 " is four bytes
    assert texts(Cut(4, 0), text) == [
        "w00 w01 w02 w03", "w04 w05 w06 w07", "w08 w09",
    ]  # fmt: skip
    assert texts(Cut(4, 2), text) == [
        "w00 w01 w02 w03", "w02 w03 w04 w05", "w04 w05 w06 w07", "w06 w07 w08 w09",
    ]  # fmt: skip


def test_a_long_word_is_cut_between_characters() -> None:
    """Of two bytes each here: no passage splits one."""
    pieces = texts(Cut(2, 0), "ö" * 9)
    assert pieces == ["ö" * 4, "ö" * 4, "ö"]


def test_a_blank_document_has_no_passage() -> None:
    """There is nothing to find in it."""
    assert texts(Cut(), " \n\t ") == []


def test_a_long_document_costs_linear_time() -> None:
    """Each word is looked at a bounded number of times; counted, not timed."""
    words = 20_000
    found = texts(Cut(64, 8), "word " * words)
    assert sum(len(re.findall("word", text)) for text in found) < 1.3 * words


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (4, 4), (4, -1), (4, 9)])
def test_cuts_that_cannot_be(size: int, overlap: int) -> None:
    """An overlap as long as the passage would never come to an end."""
    with pytest.raises(UsageError, match="overlap"):
        Cut(size, overlap)
