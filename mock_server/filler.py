"""What the mock answers: how long, why it ended there, and which filler.

An answer is a stretch of the ring of filler tokens, so token `i` of a stream that
starts at `offset` is `RING[(offset + i) & RING_MASK]`: no text is made per request.
Where it starts, and how long it is when it ends by itself, follow from the server's
seed and the prompt alone, so the same prompt gets the same answer, as under greedy
decoding.
"""

from dataclasses import dataclass
from random import Random
from typing import Final

from loadstone.units import Tokens
from loadstone.wire.openai_reply import FinishReason
from loadstone.wire.openai_request import ChatRequest
from loadstone.wire.tokens import RING, RING_TOKENS

from .config import LengthDistribution

RING_MASK: Final = RING_TOKENS - 1
_SPREAD: Final = 0x9E3779B97F4A7C15
"""An odd multiplier (2^64 / golden ratio): seeds 0, 1, 2 start far apart on the ring.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request will be given.

    `offset` is the place of its first token on the ring.
    """

    offset: int
    tokens: Tokens
    finish_reason: FinishReason

    def text(self) -> str:
        """Return the whole answer."""
        places = range(self.offset, self.offset + self.tokens)
        return b"".join([RING[i & RING_MASK] for i in places]).decode()


def choose_answer(
    asked: ChatRequest, limit: Tokens, *, seed: int, lengths: LengthDistribution
) -> Answer:
    """Choose the answer to a request that may have at most `limit` tokens."""
    mixed = (seed * _SPREAD + asked.prompt.hash) % (1 << 64)
    offset = (mixed ^ mixed >> 32) & RING_MASK
    if asked.ignore_eos:
        return Answer(offset, limit, "length")
    natural = max(lengths(Random(mixed)), asked.min_tokens, 1)
    if natural > limit:
        return Answer(offset, limit, "length")
    return Answer(offset, natural, "stop")
