"""Asks an endpoint how many requests it still has, where it tells."""

from collections.abc import Sequence
from typing import Final

from .client import Endpoint, StreamingClient, Timeouts

GAUGES: Final = (
    ("vllm:num_requests_running", "vllm:num_requests_waiting"),
    ("sglang:num_running_reqs", "sglang:num_queue_reqs"),
    ("tgi_batch_current_size", "tgi_queue_size"),
)
"""What servers call the requests that run and those that wait, in their `/metrics`: of
vLLM (and loadstone's mock), SGLang and TGI."""
_TIMEOUTS: Final = Timeouts(connect=5.0, first_byte=5.0, total=10.0)


def in_flight(endpoints: Sequence[Endpoint]) -> int | None:
    """Return how many requests they run or queue; None if one of them does not tell.

    Blocks for as long as a `GET /metrics` of each takes, ten seconds at most.
    """
    counts = [_in_flight(endpoint) for endpoint in endpoints]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _in_flight(endpoint: Endpoint) -> int | None:
    client = StreamingClient(endpoint, timeouts=_TIMEOUTS)
    try:
        answer = client.send(path="/metrics", method="GET")
    finally:
        client.close()
    return (
        None if answer.error else read_in_flight(answer.body.decode(errors="replace"))
    )


def read_in_flight(text: str) -> int | None:
    """Add the gauges up over their labels; None where there are none.

    What a line says is the server's word: one that is not a number is left out.
    """
    for names in GAUGES:
        found = [
            value
            for line in text.splitlines()
            if line.split("{")[0].split(" ")[0] in names
            and (value := _value(line)) is not None
        ]
        if found:
            return round(sum(found))
    return None


def _value(line: str) -> float | None:
    """Return a sample's value; labels may hold spaces, and a time may follow."""
    try:
        value = float(line.rpartition("}")[2].split()[0 if "}" in line else 1])
    except (ValueError, IndexError):
        return None
    return value if 0.0 <= value < 1e9 else None
