"""The text of planned prompts: exact, and shared exactly as far as their names are."""

from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from loadstone.traffic.prompt import Message, Span, made, name_of
from loadstone.traffic.request import Prefix, Request
from loadstone.wire.prompts import messages_of, text_of_prompt
from loadstone.wire.tokens import count, count_chat, pad, tokenize_chat
from mock_server.prefix import block_ids as ids_of_text

BLOCK = 16
spans = st.lists(st.builds(Span, st.integers(0, 3), st.integers(0, 40)), max_size=3)
dialogues = st.lists(
    st.builds(lambda role, s: Message(role, tuple(s)),
              st.sampled_from(["system", "user", "assistant"]), spans),
    min_size=1, max_size=4,
).map(tuple)  # fmt: skip


def request(messages: tuple[Message, ...], index: int = 0) -> Request:
    """Return a request that says this."""
    return Request(index, 0.0, sum(m.tokens for m in messages), 1, messages=messages)


def ids_on_the_wire(asked: Request, salt: str = "") -> tuple[int, ...]:
    """Return the blocks that the mock's cache knows the prompt by."""
    said = [[m["content"]] for m in messages_of(asked, salt)]
    padded = b"".join(i.to_bytes(4, "little") for i in tokenize_chat(said))
    return ids_of_text(pad(padded), BLOCK)


def shared(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Return how many blocks two prompts have in common."""
    return len(
        list(takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
    )


@given(dialogues)
def test_prompts_are_exactly_as_long_as_planned(messages: tuple[Message, ...]) -> None:
    """By the token rule, message by message."""
    asked = request(messages)
    said = messages_of(asked)
    assert count_chat([[m["content"]] for m in said]) == asked.input_tokens
    assert [count(m["content"]) + 1 for m in said] == [m.tokens for m in messages]


@given(dialogues, dialogues)
def test_virtual_and_real_caches_find_the_same_blocks(
    a: tuple[Message, ...], b: tuple[Message, ...]
) -> None:
    """Names share a block if and only if the texts made of them do.

    Texts shorter than the salt may agree by chance, so spans are whole salts or none.
    """
    one, two = (
        request(tuple(
            Message(m.role, tuple(Span(n, t // 4 * 4) for n, t in m.spans)) for m in d
        ))
        for d in (a, b)
    )  # fmt: skip
    planned = shared(one.block_ids(BLOCK), two.block_ids(BLOCK))
    assert planned == shared(ids_on_the_wire(one), ids_on_the_wire(two))
    assert len(one.block_ids(BLOCK)) == one.input_tokens // BLOCK


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(0, 4))
def test_recorded_blocks_are_real_shared_prefixes(a: int, b: int, common: int) -> None:
    """Mooncake's ids, on the wire as in virtual time, at any length."""

    def recorded(tokens: int, own: int) -> Request:
        blocks = tuple(i if i < common else own + i for i in range(-(-tokens // 512)))
        return Request(own, 0.0, tokens, 1, prefix=Prefix(512, blocks))

    one, two = recorded(a, 1000), recorded(b, 2000)
    assert count_chat([[m["content"]] for m in messages_of(one)]) == a
    planned = shared(one.block_ids(BLOCK), two.block_ids(BLOCK))
    assert planned == shared(ids_on_the_wire(one), ids_on_the_wire(two))


def test_prompts_of_their_own_share_nothing() -> None:
    """Not within a run, and with another salt not with the run before."""
    first, second = Request(0, 0.0, 99, 1), Request(1, 0.0, 99, 1)
    assert shared(ids_on_the_wire(first), ids_on_the_wire(second)) == 0
    assert shared(ids_on_the_wire(first), ids_on_the_wire(first)) == 99 // BLOCK
    assert shared(ids_on_the_wire(first), ids_on_the_wire(first, "again")) == 0
    system = (made("system", name_of("s"), 60), made("user", name_of("u"), 9))
    salted = [ids_on_the_wire(request(system), s) for s in ("", "a", "a")]
    assert shared(salted[0], salted[1]) == 0
    assert shared(salted[1], salted[2]) == 69 // BLOCK


def test_text_to_embed_has_no_template() -> None:
    """As many tokens as the input, in one text."""
    assert count(text_of_prompt(Request(0, 0.0, 77, 1, kind="embed"))) == 77
