"""The one token rule: a token is four bytes of UTF-8.

No tokenizer is downloaded, so both ends must agree on something simpler. Every string
counts `ceil(bytes / 4)`, and each message of a chat prompt one more for its template.
Real templates add a few, but recorded traces hold prompts of two tokens, and a replay
must be exact. English has about four bytes to a token under real tokenizers, so lengths
stay in proportion; they are exact on the mock only.

The filler is made of words that are exactly one token: a space and three letters.
"""

from codecs import getincrementaldecoder
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import pairwise
from random import Random
from struct import pack, unpack
from typing import Final

from ..errors import UsageError
from ..traffic.prompt import TEMPLATE_TOKENS
from ..units import Tokens

BYTES_PER_TOKEN: Final = 4
PER_MESSAGE: Final[Tokens] = TEMPLATE_TOKENS
LEAST_PROMPT: Final[Tokens] = PER_MESSAGE
"""The shortest prompt that `prompt_of` can write: one message without content."""
SPECIAL: Final = "\0" * BYTES_PER_TOKEN
"""The text of the one special token, id 0: what a chat template has for a message."""
VOCABULARY_SIZE: Final = 1 << 32
"""Ids are below this: an id is the four bytes themselves, so that text comes back."""

_WORDS: Final = """
    act add age air all and any arc art ask bay bed big bit box bus buy can car cut
    day dew did dig dot dry ear eat egg end eye fan far few fig fit fly fog for fox
    fun gap get got had hat her him his hot how ice ink its jar job joy key kit lab
    law lay leg let lid lot low map may met mix new nor not now oak odd off oil old
    one our out own pay pen pie pin put ray red rim row run sad saw say sea see set
    she sit six sky son sun tax tea ten the tin tip top toy try two use van war was
    way web wet who why win yes yet you zoo né là où dé pâ sœ fû
""".split()  # noqa: SIM905 - as a list it would fill two screens
# Three bytes each. The last ones hold a letter of two bytes, so that a reader which
# splits events inside a character, or takes characters for bytes, is found out.

RING_TOKENS: Final = 1 << 13
"""Tokens of filler before it repeats; a power of two, so that a mask wraps an index."""
RING: Final[tuple[bytes, ...]] = tuple(
    f" {word}".encode() for word in Random(4).choices(_WORDS, k=RING_TOKENS)
)
"""The filler, token by token: four bytes each, and nothing that JSON would escape."""
_BLOCK: Final = b"".join(RING)
_RING_TEXT: Final = [token.decode() for token in RING]
_FILLER_LETTERS: Final = frozenset("".join(_WORDS) + " ")
_SALT_TOKENS: Final = 4


def count(text: str) -> Tokens:
    """Return the tokens of `text`; raises `UnicodeEncodeError` for lone surrogates."""
    # NOTE: `isascii` is a flag of the string: most prompts are counted without a copy.
    size = len(text) if text.isascii() else len(text.encode())
    return -(-size // BYTES_PER_TOKEN)


def count_chat(messages: Iterable[Iterable[str]]) -> Tokens:
    """Return the tokens of a chat prompt; a message is given as its strings."""
    return sum(
        PER_MESSAGE + sum(count(text) for text in strings) for strings in messages
    )


def tokenize(text: str) -> list[int]:
    """Return one id for each token of `text`: its four bytes, padded with zeros."""
    return ids_of(pad(text.encode()))


def pad(data: bytes) -> bytes:
    """Fill the last token up with zeros."""
    return data + bytes(-len(data) % BYTES_PER_TOKEN)


def ids_of(padded: bytes) -> list[int]:
    """Return the ids of whole tokens."""
    return list(unpack(f"<{len(padded) // BYTES_PER_TOKEN}I", padded))


def bytes_of(ids: Sequence[int]) -> bytes:
    """Return the whole tokens that have these ids, all below `VOCABULARY_SIZE`."""
    return pack(f"<{len(ids)}I", *ids)


def detokenize(ids: Sequence[int]) -> str:
    """Return the text of ids: `tokenize` undone, but for zeros and the template."""
    return bytes_of(ids).replace(b"\0", b"").decode(errors="replace")


def pieces(text: str) -> list[str]:
    """Return what of `text` each of its tokens shows: whole characters only.

    A character that is cut by the end of a token comes with the next one.
    """
    if text.isascii():
        return [text[i : i + BYTES_PER_TOKEN] for i in range(0, len(text), 4)]
    data = text.encode()
    ends = [*range(BYTES_PER_TOKEN, len(data), BYTES_PER_TOKEN), len(data)]
    whole = [_boundary(data, end) for end in ends]
    return [data[a:b].decode() for a, b in pairwise([0, *whole])]


def shown(ids: Sequence[int]) -> list[str]:
    """Return what each token of these ids shows, by the same rule: `detokenize`, cut.

    Bytes that are no text show as U+FFFD.
    """
    decoder = getincrementaldecoder("utf-8")(errors="replace")
    last = len(ids) - 1
    return [
        decoder.decode(bytes_of([token]).replace(b"\0", b""), final=i == last)
        for i, token in enumerate(ids)
    ]


def _boundary(data: bytes, end: int) -> int:
    """Return the last place up to `end` where a character begins or the text ends."""
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end -= 1
    return end


def ring_text(offset: int, n_tokens: Tokens) -> list[str]:
    """Return a stretch of the filler, token by token."""
    start = offset % RING_TOKENS
    if start + n_tokens <= RING_TOKENS:
        return _RING_TEXT[start : start + n_tokens]
    rounds = -(-(start + n_tokens) // RING_TOKENS)
    return (_RING_TEXT * rounds)[start : start + n_tokens]


def tokenize_chat(messages: Iterable[Iterable[str]]) -> list[int]:
    """Return the ids of a chat prompt: the template's own token is 0."""
    ids: list[int] = []
    for strings in messages:
        ids.extend([0] * PER_MESSAGE)
        for text in strings:
            ids.extend(tokenize(text))
    return ids


def text_of(n_tokens: Tokens, seed: int) -> str:
    """Return filler of exactly `n_tokens`, each of them four bytes."""
    return _filler(n_tokens, seed % RING_TOKENS)


def prompt_of(n_tokens: Tokens, seed: int | str) -> str:
    """Return the content of a user message that makes a chat prompt of `n_tokens`.

    It begins with a salt drawn from `seed`, so that two prompts share no prefix that a
    cache could keep. Raises `UsageError` below `LEAST_PROMPT` tokens.
    """
    content = n_tokens - PER_MESSAGE
    if content < 0:
        raise UsageError(
            f"a chat prompt of {n_tokens} tokens cannot be written",
            hint=f"its template has {PER_MESSAGE}: ask for {LEAST_PROMPT} or more",
        )
    return salted(content, str(seed))


def salted(n_tokens: Tokens, name: str) -> str:
    """Return filler of exactly `n_tokens` that begins with a salt drawn from `name`.

    Texts of different names differ from the first token on. A shorter text of a name is
    the beginning of a longer one.
    """
    salt = blake2b(name.encode(), digest_size=2 * _SALT_TOKENS).hexdigest()
    if n_tokens <= _SALT_TOKENS:
        return salt[: n_tokens * BYTES_PER_TOKEN]
    return salt + _filler(n_tokens - _SALT_TOKENS, int(salt[:4], 16) % RING_TOKENS)


def may_occur(text: str) -> bool:
    """Say whether `text` could be found in filler, by its letters."""
    return _FILLER_LETTERS.issuperset(text)


def _filler(n_tokens: Tokens, offset: int) -> str:
    start = offset * BYTES_PER_TOKEN
    end = start + n_tokens * BYTES_PER_TOKEN
    rounds = -(-end // len(_BLOCK))
    return (_BLOCK * rounds)[start:end].decode()
