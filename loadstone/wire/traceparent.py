"""W3C Trace Context: the `traceparent` header, both ways.

`version-traceid-parentid-flags`, all in lower-case hex. Of the flags only the first bit
means something here: whether the caller may have recorded the trace. A header that is
not well formed is as good as none; the standard asks for that, and whoever sends one
must not be able to do harm with it.
"""

import re
from typing import Final, Self

import msgspec

_FORM: Final = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
RUN_BITS: Final = 64
"""Below the half of a trace's id that all requests of one run of ours share."""
_NO_VERSION: Final = "ff"
_SAMPLED: Final = 1


class TraceParent(msgspec.Struct, frozen=True, gc=False):
    """A place in a trace: the trace, and the span that is the parent of what follows.

    `trace_id` has 128 bits and `span_id` 64; neither is zero.
    """

    trace_id: int
    span_id: int
    sampled: bool

    def __str__(self) -> str:
        """Return the header's value."""
        return f"00-{self.trace_hex}-{self.span_id:016x}-{self.sampled:02x}"

    @property
    def trace_hex(self) -> str:
        """The trace's id as headers, rows and exemplars write it: 32 hex digits."""
        return f"{self.trace_id:032x}"

    @property
    def run_hex(self) -> str:
        """The left half of the trace's id: in traces of a load generator, its run."""
        return f"{self.trace_id >> RUN_BITS:016x}"

    @classmethod
    def parse(cls, header: str | None) -> Self | None:
        """Read a header's value; None for what the standard does not allow.

        A later version than 00 is read as far as 00 goes, as the standard wants it.
        """
        found = _FORM.fullmatch(header or "")
        if found is None:
            return None
        version, trace_id, span_id, flags, rest = found.groups()
        if version == _NO_VERSION or (version == "00" and rest is not None):
            return None
        trace, span = int(trace_id, 16), int(span_id, 16)
        if not trace or not span:
            return None
        return cls(trace, span, bool(int(flags, 16) & _SAMPLED))
