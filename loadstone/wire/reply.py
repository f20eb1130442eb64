"""What an answer said and when, taken from its bytes after the last one was read.

**What is a token?** Only `usage` knows; failing that, each content event counts as one
(`tokens_source` says which).

**How many tokens had the first event?** What the `usage` of that event says, where a
server sends one with each. Else one, if there are at least as many events as tokens.
Else events carry several: one again if the first text is less than half as long as the
mean (engines that coalesce send the first token alone), or else an equal share.
Reasoning tokens that were counted but never streamed came before any event, and are
added to it.
"""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from operator import sub

from ..buckets import bucket_of
from ..traffic.record import TokensSource, Truth
from ..units import Seconds, Tokens
from .chunks import ErrorObject, Kind, Usage, answer_of, has_vectors, kind_of, parse
from .content import ContentScan, Notes, Words
from .http1 import WireError
from .sse import Events


# NOTE: a value, which nobody changes; frozen it takes seven times as long to make.
@dataclass(slots=True, kw_only=True)
class ChatReply:
    """An answer, whole or as far as it came. Instants are on the clock of the reads."""

    events: int = 0
    """Events that carried tokens; 0 for an answer that was not streamed."""
    first: Seconds | None = None
    """First content event of any kind: the end of TTFT. None if nothing was
    streamed."""
    first_answer: Seconds | None = None
    """First content event that was not reasoning: text, or a tool call."""
    first_tool: Seconds | None = None
    """First content event that was of a tool call."""
    last: Seconds | None = None
    """Last content event."""
    first_event_tokens: Tokens = 0
    output_tokens: Tokens = 0
    tokens_source: TokensSource = TokensSource.NONE
    usage: Usage | None = None
    finish_reason: str | None = None
    answered: bool = False
    """Whether it holds a token of any kind, or its usage counts some that were not
    shown (hidden reasoning), or it holds embeddings."""
    done: bool = False
    """Whether `[DONE]` came, or the body was a whole one."""
    error: ErrorObject | None = None
    truth: Truth | None = None
    icl: tuple[tuple[int, int], ...] = ()
    """Gaps between content events, as `LogHistogram` pairs."""
    unreadable: int = 0
    """Events that were not JSON objects."""
    words: Words | str = field(default="", repr=False, compare=False)

    @property
    def text(self) -> str:
        """The visible answer; joined each time it is asked for."""
        return self.words if isinstance(self.words, str) else self.words.text()

    @property
    def whole(self) -> bool:
        """Whether the answer came to its end: a reason to finish, or `[DONE]`."""
        return self.done or self.finish_reason is not None


def read_body(body: bytes) -> ChatReply:
    """Read an answer in one piece; raises `WireError` if it is no JSON object."""
    chunk = parse(body)
    if chunk is None:
        raise WireError("the answer is not a JSON object")
    notes = Notes()
    notes.take(chunk)
    usage = notes.usage
    tokens = usage.output_tokens if usage else 0
    return ChatReply(
        output_tokens=tokens,
        tokens_source=TokensSource.USAGE if usage else TokensSource.NONE,
        usage=usage,
        finish_reason=notes.finish_reason,
        answered=tokens > 0 or kind_of(chunk) is not None or has_vectors(chunk),
        done=True,
        error=notes.error,
        truth=notes.truth,
        words=answer_of(chunk),
    )


def read_stream(events: Events) -> ChatReply:
    """Read a stream, also one that broke off. Never raises for what it holds."""
    scan = ContentScan(events)
    notes, stamps = scan.notes, scan.stamps
    source, tokens = _count(notes.usage, len(stamps))
    return ChatReply(
        events=len(stamps),
        first=stamps[0] if stamps else None,
        first_answer=scan.first_answer,
        first_tool=scan.first_tool,
        last=stamps[-1] if stamps else None,
        first_event_tokens=_first_event_tokens(scan) if stamps else 0,
        output_tokens=tokens,
        tokens_source=source,
        usage=notes.usage,
        finish_reason=notes.finish_reason,
        answered=tokens > 0,
        done=notes.done,
        error=notes.error,
        truth=notes.truth,
        icl=_gaps(stamps),
        unreadable=notes.unreadable,
        words=scan.words,
    )


def _count(usage: Usage | None, events: int) -> tuple[TokensSource, Tokens]:
    """Return who counted the output tokens, and the count; a usage of 0 is wrong."""
    if usage is not None and (usage.output_tokens or not events):
        return TokensSource.USAGE, usage.output_tokens
    return (TokensSource.CHUNKS if events else TokensSource.NONE), events


def _gaps(stamps: "array[float]") -> tuple[tuple[int, int], ...]:
    """Return the gaps between stamps as `LogHistogram` pairs."""
    if len(stamps) < 2:
        return ()
    gaps = map(sub, islice(stamps, 1, None), stamps)
    return tuple(sorted(Counter(map(bucket_of, gaps)).items()))


def _first_event_tokens(scan: ContentScan) -> Tokens:
    """Say how many tokens came with the first content event; at least one."""
    usage, events = scan.notes.usage, len(scan.stamps)
    if usage is None:
        return 1
    if scan.first_usage is not None and scan.first_usage.output_tokens:
        return scan.first_usage.output_tokens
    hidden = min(usage.reasoning_tokens, usage.output_tokens)
    if hidden and any(kind is Kind.THOUGHT for _, kind in scan.words.runs):
        hidden = 0  # they were streamed
    tokens = usage.output_tokens - hidden
    if tokens <= events:
        return hidden + 1
    lengths = scan.words.lengths()
    if lengths and 2 * events * lengths[0] < sum(lengths):
        return hidden + 1
    return hidden + round(tokens / events)
