"""What an event costs that is more than filler, and the id of a prompt block.

CPU time of this process alone, the least of several rounds; no socket is written to.
`filler` is what a plain stream does for an event, and the measure of the others.

    python bench/script.py
"""

import time
from collections.abc import Callable
from typing import Any

from loadstone.wire.answer import Answer, call, filler, reasoning
from loadstone.wire.openai_reply import Extras, ReplyFormat
from loadstone.wire.responses_reply import ResponseFormat
from loadstone.wire.script import Script
from loadstone.wire.tokens import RING, pad
from mock_server.prefix import block_ids

EVENTS = 4000
ROUNDS = 9
BLOCK = 32
REPLY = ReplyFormat("chatcmpl-000000000000000000000001", 1_700_000_000, "llama-2-70b")


def least(run: Callable[[], object], units: int) -> float:
    """Return the CPU time in us of one unit in the best round."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times) / units * 1e6


def told(script: Callable[[], Script]) -> Callable[[], None]:
    """Return what tells a script event by event."""

    def run() -> None:
        event = script().event
        for _ in range(EVENTS):
            event(1)

    return run


def chat(answer: Answer, **extras: Any) -> Callable[[], None]:
    """Return what tells an answer as chat."""
    return told(lambda: REPLY.script(answer, 20, 0, Extras(**extras)))


def plain() -> None:
    """Do what a stream of filler does."""
    form = REPLY.stream(include_usage=False)
    head, tail = form.head, form.tail
    for i in range(EVENTS):
        head + RING[i] + tail


def main() -> None:
    """Print the table."""
    text = Answer(0, EVENTS, "stop", (filler(0, EVENTS),))
    thought = Answer(0, EVENTS, "stop", (reasoning(0, EVENTS),))
    called = Answer(0, EVENTS, "stop", (call("f", "x" * 4 * (EVENTS - 1), "id"),))
    prompt = pad(bytes(range(256)) * 16)
    blocks = len(block_ids(prompt, BLOCK))
    rows = {
        "filler": (plain, EVENTS),
        "content with a stop string": (chat(text), EVENTS),
        "reasoning": (chat(thought), EVENTS),
        "arguments of a call": (chat(called), EVENTS),
        "usage in each event": (chat(text, continuous_usage=True), EVENTS),
        "5 log probabilities": (chat(text, top_logprobs=5), EVENTS),
        "responses": (
            told(lambda: ResponseFormat("resp_1", 1, "m", text, {}).script()), EVENTS
        ),
        "id of a block of 32 tokens": (lambda: block_ids(prompt, BLOCK), blocks),
    }  # fmt: skip
    print(f"{'':30} CPU us each")
    for name, (run, units) in rows.items():
        print(f"{name:30} {least(run, units):11.2f}")


if __name__ == "__main__":
    main()
