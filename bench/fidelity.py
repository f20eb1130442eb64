"""What clients see against the model: how far TPOT and TTFT are off, and who says so.

The server runs alone on the last core with the preset's own step law. On the other
cores raw sockets ask again and again (each for the next answer when it has the last
one), stamp the first and the last read of each answer, and compare with the schedule
that the truth tells. The bounds: TPOT within 1 % of the model's, TTFT late by less than
5 ms or 25 % of a step at p99, whichever is more. `client` is what was read, reading
included; `sent` is the server's part of it, by its own stamps. Where a bound is broken,
the last column says whether the lag alarm rang.

    python bench/fidelity.py
    python bench/fidelity.py --only vm --seconds 60
"""

import argparse
import json
import re
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from random import Random
from statistics import mean

from mocked import MODEL, PRESET, Setup, mocked, pin_driver

from loadstone.catalog.presets import load_preset
from loadstone.wire.tokens import prompt_of
from mock_server.capacity import raise_descriptor_limit

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-loadstone-truth: 1\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
TRUTH = re.compile(rb'"loadstone":(\{[^}]*\})')
END = b"\r\n0\r\n\r\n"
MAX_TPOT_ERROR = 0.01
MAX_TTFT_SHIFT_S = 0.005
MAX_TTFT_SHIFT_STEPS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A load: so many streams on each engine, asked for again and again."""

    engines: int
    streams: int
    interval: int = 1
    prompt: int = 50
    output: tuple[int, int] = (75, 225)
    ramp_s: float = 8.0

    def __str__(self) -> str:
        return f"{self.engines} x {self.streams}"


CASES = {
    "half": [Case(engines=4, streams=125), Case(engines=72, streams=30)],
    "full": [Case(engines=4, streams=250), Case(engines=72, streams=60)],
    # One VM as published: offline, batches of 2,048, the lengths of OpenOrca.
    "vm": [
        Case(engines=4, streams=2048, interval=interval, prompt=294,
             output=(147, 441), ramp_s=40.0)
        for interval in (8, 1)
    ],
}  # fmt: skip


class Stream:
    """One connection, and the answer it reads."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self.sent = self.first = 0.0
        self.tokens = 0
        self._last = b""

    def ask(self, body: bytes, tokens: int) -> None:
        """Send the next request."""
        self.sent, self.first, self.tokens, self._last = time.time(), 0.0, tokens, b""
        self.sock.setblocking(True)  # noqa: FBT003 - the socket's own signature
        self.sock.sendall(HEAD % (len(body), body))
        self.sock.setblocking(False)  # noqa: FBT003 - the socket's own signature

    def read(self) -> "Answer | None":
        """Read what there is; returns the answer when it is whole."""
        data = self.sock.recv(1 << 17)
        if not data:
            raise SystemExit("the server closed a stream")
        if not self.first and b"data: " in data:
            self.first = time.time()
        if not data.endswith(END):
            self._last = data
            return None
        found = TRUTH.search(self._last[-2000:] + data)
        assert found
        return Answer.of(self, time.time(), json.loads(found[1]))


@dataclass(frozen=True, slots=True)
class Answer:
    """How far one answer was off; seconds, and shares of the model's TPOT."""

    sent: float
    ttft_shift: float
    ttft_shift_sent: float
    tpot: float
    tpot_model: float
    tpot_sent: float

    @classmethod
    def of(cls, stream: Stream, end: float, truth: dict[str, float]) -> "Answer":
        """Compare the stamps of a stream with the truth."""
        gaps = max(1, stream.tokens - 1)
        model_ttft = truth["scheduled_first_s"] - truth["received_s"]
        return cls(
            sent=stream.sent,
            ttft_shift=stream.first - stream.sent - model_ttft,
            ttft_shift_sent=truth["first_sent_s"] - truth["scheduled_first_s"],
            tpot=(end - stream.first) / gaps,
            tpot_model=(truth["scheduled_last_s"] - truth["scheduled_first_s"]) / gaps,
            tpot_sent=(truth["last_sent_s"] - truth["first_sent_s"]) / gaps,
        )


class Load:
    """All streams of a case."""

    def __init__(self, case: Case, port: int) -> None:
        self.answers: list[Answer] = []
        self._poll = select.epoll()
        self._streams: dict[int, Stream] = {}
        self._next = self._requests(case)
        for index in range(case.engines * case.streams):
            stream = Stream(port)
            self._streams[stream.sock.fileno()] = stream
            self._poll.register(stream.sock.fileno(), select.EPOLLIN)
            stream.ask(*next(self._next))
            if index % 20 == 0:
                self.read(0.001)

    @staticmethod
    def _requests(case: Case) -> Iterator[tuple[bytes, int]]:
        rng = Random(1)
        for index in count():
            tokens = rng.randint(*case.output)
            prompt = prompt_of(case.prompt, index)
            fields = {
                "model": MODEL, "stream": True, "ignore_eos": True,
                "max_tokens": tokens, "messages": [{"role": "user", "content": prompt}],
            }  # fmt: skip
            yield json.dumps(fields).encode(), tokens

    def read(self, seconds: float) -> None:
        """Read for a time, asking again where an answer is whole."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for fd, _ in self._poll.poll(0.005, 256):
                answer = self._streams[fd].read()
                if answer is not None:
                    self.answers.append(answer)
                    self._streams[fd].ask(*next(self._next))

    def close(self) -> None:
        """Close all."""
        for stream in self._streams.values():
            stream.sock.close()


def p99(values: list[float]) -> float:
    """Return the nearest-rank p99."""
    return sorted(values)[int(0.99 * len(values))]


def measure(case: Case, seconds: float) -> str:
    """Run a case and return its line of the table."""
    machine = load_preset(PRESET, MODEL)
    with mocked(
        Setup(engines=case.engines, interval=case.interval, limits=machine.limits)
    ) as server:
        load = Load(case, server.port)
        load.read(case.ramp_s)
        start, began = server.sample(load.read), time.time()
        load.read(seconds)
        end = server.sample(load.read)
        load.close()
    answers = [a for a in load.answers if a.sent >= began]
    took = end.at_s - start.at_s
    model = mean(a.tpot_model for a in answers)
    error, error_sent = (
        mean(values) / model - 1
        for values in ([a.tpot for a in answers], [a.tpot_sent for a in answers])
    )
    shift = p99([a.ttft_shift for a in answers])
    shift_sent = p99([a.ttft_shift_sent for a in answers])
    bound = max(MAX_TTFT_SHIFT_S, MAX_TTFT_SHIFT_STEPS * model)
    broken = abs(error) > MAX_TPOT_ERROR or shift > bound
    alarms = end.alarms - start.alarms
    return (
        f"{case!s:9}  {case.interval:3}  {(end.tokens - start.tokens) / took:8,.0f}"
        f"  {(end.cpu_s - start.cpu_s) / took:4.0%}  {len(answers):6}"
        f"  {model * 1e3:6.1f}  {error:+7.2%} {error_sent:+7.2%}"
        f"  {shift * 1e3:7.1f} {shift_sent * 1e3:6.1f}  {bound * 1e3:5.1f}"
        f"  {'broken' if broken else 'held':6}"
        f"  {alarms} of {took:.0f} s"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=list(CASES), nargs="+", default=list(CASES))
    parser.add_argument("--seconds", type=float, default=20.0)
    asked = parser.parse_args()
    raise_descriptor_limit()
    pin_driver()
    print(
        "load       int  tokens/s  core  answers  TPOT ms  error: client, sent"
        "  TTFT p99 ms: client, sent, bound  bounds  alarm"
    )
    for name in asked.only:
        for case in CASES[name]:
            seconds = max(60.0, asked.seconds) if name == "vm" else asked.seconds
            print(measure(case, seconds), flush=True)


if __name__ == "__main__":
    main()
