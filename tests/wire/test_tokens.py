"""The token rule: both ends count the same, and filler is as long as asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.errors import UsageError
from loadstone.wire import tokens

SEEDS = st.integers()


@given(st.text())
def test_count_is_bytes_over_four_rounded_up(text: str) -> None:
    """A token is four bytes of UTF-8; a rest counts as one."""
    size = len(text.encode())
    assert tokens.count(text) == (size + 3) // 4


@given(st.integers(min_value=0, max_value=30_000), SEEDS)
def test_text_of_n_counts_n(n: int, seed: int) -> None:
    """Filler of n tokens counts n, beyond one round of the ring too."""
    text = tokens.text_of(n, seed)
    assert tokens.count(text) == n
    assert len(text.encode()) == 4 * n


@given(st.integers(min_value=tokens.LEAST_PROMPT, max_value=30_000), SEEDS)
def test_prompt_of_n_is_a_chat_prompt_of_n(n: int, seed: int) -> None:
    """The template is part of the count."""
    assert tokens.count_chat([[tokens.prompt_of(n, seed)]]) == n


@pytest.mark.parametrize("n", [tokens.LEAST_PROMPT - 1, 0, -5])
def test_prompt_below_the_least_is_refused(n: int) -> None:
    """The template alone has one token, and the error says what is the least."""
    with pytest.raises(UsageError) as caught:
        tokens.prompt_of(n, 1)
    assert "1 or more" in caught.value.hint


def test_prompts_of_different_seeds_share_no_prefix() -> None:
    """The first block of a prompt is unique, so a prefix cache finds nothing."""
    beginnings = {tokens.prompt_of(1000, seed)[:16] for seed in range(5000)}
    assert len(beginnings) == 5000


def test_every_filler_token_is_four_bytes_and_plain_json() -> None:
    """So every event of a stream is equally long and needs no escapes."""
    assert {len(token) for token in tokens.RING} == {4}
    text = b"".join(tokens.RING).decode()
    assert all(letter == " " or letter.isalpha() for letter in text)
    assert not text.isascii()


@given(st.text())
def test_tokenize_gives_one_id_for_each_token(text: str) -> None:
    """Ids are in the vocabulary, and equal text has equal ids."""
    ids = tokens.tokenize(text)
    assert len(ids) == tokens.count(text)
    assert ids == tokens.tokenize(text)
    assert all(0 <= i < tokens.VOCABULARY_SIZE for i in ids)


@given(st.lists(st.lists(st.text(max_size=20), max_size=3), max_size=4))
def test_tokenize_chat_is_as_long_as_count_chat(messages: list[list[str]]) -> None:
    """What `/tokenize` shows is what a chat prompt counts."""
    assert len(tokens.tokenize_chat(messages)) == tokens.count_chat(messages)


def test_equal_prefixes_have_equal_ids() -> None:
    """A prompt that begins like another has the same ids there, block by block."""
    head = tokens.text_of(64, 3)
    longer = tokens.tokenize(head + tokens.text_of(10, 4))
    assert longer[:64] == tokens.tokenize(head)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_detokenize_undoes_tokenize(text: str) -> None:
    """Ids are the text's own bytes."""
    assert tokens.detokenize(tokens.tokenize(text)) == text


@given(st.text())
def test_pieces_are_the_text_one_for_each_token(text: str) -> None:
    """Whole characters, however they lie across the tokens, and never late."""
    pieces = tokens.pieces(text)
    assert "".join(pieces) == text
    assert len(pieces) == tokens.count(text)
    shown = 0
    for i, piece in enumerate(pieces):
        shown += len(piece.encode())
        assert 4 * i < shown + 4 <= 4 * (i + 2)


@given(st.integers(0, 20_000), st.integers(0, 20_000))
def test_ring_text_is_the_filler(offset: int, n: int) -> None:
    """Token by token, around the ring as often as it takes."""
    assert "".join(tokens.ring_text(offset, n)) == tokens.text_of(n, offset)


@pytest.mark.parametrize(
    ("text", "may"),
    [(" the", True), ("e", True), ("\n\n", False), ("###", False), ("User:", False)],
)
def test_may_occur_knows_the_letters_of_filler(text: str, may: bool) -> None:
    """A stop string of other letters can never cut the emulated text."""
    assert tokens.may_occur(text) is may
