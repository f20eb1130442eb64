"""Prompt blocks as a prefix cache knows them: each by its tokens and all before it."""

from hashlib import blake2b
from struct import unpack
from typing import Final

from loadstone.engine.core import Engine
from loadstone.units import Tokens
from loadstone.wire.tokens import BYTES_PER_TOKEN

_ID_BYTES: Final = 8
"""A million blocks meet by chance once in 40 million servers' lives."""


def block_ids(padded: bytes, block_size: Tokens, salt: str = "") -> tuple[int, ...]:
    """Return the ids of a prompt's whole blocks; `padded` has its tokens.

    A `salt` makes them differ from those of the same prompt with another or none.

    Ids do not depend on the process, so that a journal's mean the same when replayed.
    """
    width = block_size * BYTES_PER_TOKEN
    digests = []
    before = _digest(salt.encode()) if salt else b""
    for start in range(0, len(padded) - width + 1, width):
        block = padded[start : start + width]
        before = _digest(before + block)
        digests.append(before)
    return unpack(f"<{len(digests)}Q", b"".join(digests))


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=_ID_BYTES).digest()


def caches(engine: Engine) -> bool:
    """Say whether an engine has a use for ids."""
    return engine.prefix_caching and engine.policy.extras
