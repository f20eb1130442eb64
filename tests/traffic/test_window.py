"""The steady window: planted ramps, drains, steps and drifts, and plain noise."""

from collections.abc import Callable
from functools import partial
from math import inf
from random import Random

import pytest
from msgspec.structs import replace

from loadstone.errors import UsageError
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.summary import summarize
from loadstone.traffic.window import BINS, LEAST, Found, Steady, Window, find

Shape = Callable[[float], float]
DURATION = 60.0


def always(_: float) -> float:
    """Return the full rate."""
    return 1.0


def run(
    seed: int, *, rate: float, answer_s: float = 1.0, shape: Shape = always,
    slower: Shape = always,
) -> list[RequestRecord]:  # fmt: skip
    """Return rows of Poisson arrivals for a minute, answers of 30 tokens/s.

    `shape` is the arrival rate's course, as a share of `rate`, `slower` that of the
    time an answer takes; both over time.
    """
    rng, due, rows = Random(seed), 0.0, list[RequestRecord]()
    while (due := due + rng.expovariate(rate)) < DURATION:
        if rng.random() < shape(due):
            took = answer_s * rng.lognormvariate(-0.125, 0.5) * slower(due)
            rows.append(
                RequestRecord(
                    id=str(len(rows)), scenario="chat", outcome=Outcome.OK,
                    intended_s=due, sent_s=due, first_s=due + 0.1 * took,
                    last_s=due + took, end_s=due + took,
                    output_tokens=int(30 * took) + 2, first_event_tokens=1,
                )
            )  # fmt: skip
    return rows


def windows(trials: int, make: Callable[[int], list[RequestRecord]]) -> list[Window]:
    """Return the windows that are found in runs of different seeds, if any."""
    found = []
    for seed in range(trials):
        told = summarize(make(seed))["window"]
        if told["how"]:
            found.append(Window(told["start_s"], told["end_s"]))
        else:
            assert told["reason"]
            assert told["start_s"] is told["end_s"] is None
    return found


def middle(values: list[float]) -> float:
    """Return the median."""
    return sorted(values)[len(values) // 2]


def test_steady_noise_is_hardly_cut() -> None:
    """Of runs of short answers 9 in 10 keep 90 % of the time; nearly all have some."""
    found = windows(40, lambda seed: run(seed, rate=20, answer_s=0.5))
    assert len(found) >= 38
    kept = sorted((w.end_s - w.start_s) / DURATION for w in found)
    assert kept[len(kept) // 10] > 0.9


@pytest.mark.parametrize(
    ("shape", "start", "end"),
    [
        (lambda t: min(1.0, t / 20), (10, 20), (55, 60)),
        (lambda t: min(1.0, (60 - t) / 20), (0, 5), (40, 50)),
        (lambda t: min(1.0, t / 15, (60 - t) / 15), (7, 15), (45, 53)),
        # A step is the change point: the longer part is taken.
        (lambda t: 1.0 if t < 40 else 0.3, (0, 5), (38, 42)),
        (lambda t: 0.3 if t < 25 else 1.0, (24, 28), (55, 60)),
    ],
    ids=["ramp", "drain", "ramp and drain", "step down", "step up"],
)
def test_planted_ends_are_cut(
    shape: Shape, start: tuple[int, int], end: tuple[int, int]
) -> None:
    """At the half of a ramp at the latest: what is left of it is within the noise."""
    found = windows(12, lambda seed: run(seed, rate=100, shape=shape))
    assert len(found) >= 10
    assert start[0] <= middle([w.start_s for w in found]) <= start[1]
    assert end[0] <= middle([w.end_s for w in found]) <= end[1]


@pytest.mark.parametrize(
    ("shape", "slower"),
    [
        (lambda t: t / 60, always),
        (lambda t: 0.7 + 0.3 * t / 60, always),
        (lambda t: 1 - 0.5 * t / 60, always),
        # Overload: arrivals keep their rate, and answers take ever longer.
        (always, lambda t: 1 + t / 6),
    ],
    ids=["rising", "drifting up", "drifting down", "overload"],
)
def test_drifts_are_not_taken_for_steady(shape: Shape, slower: Shape) -> None:
    """It says which figure drifts, and which way."""
    make = partial(run, rate=100, shape=shape, slower=slower)
    assert len(windows(12, make)) <= 1
    told = summarize(make(0))["window"]
    assert set(told) == {"how", "reason", "start_s", "end_s"}
    assert told["reason"].startswith(("the output rate ", "the number in flight "))


def test_window_has_its_own_figures() -> None:
    """Rate, number in flight and latencies of what was due inside; by hand.

    Each second two requests of 10 tokens that take a second each: 20 tokens/s, two in
    flight, from the start.
    """
    rows = [
        RequestRecord(
            id=f"{i}", scenario="chat", outcome=Outcome.OK, intended_s=i / 2,
            sent_s=i / 2, first_s=i / 2, last_s=i / 2 + 1, end_s=i / 2 + 1,
            output_tokens=10, first_event_tokens=1,
        )
        for i in range(400)
    ]  # fmt: skip
    summary = summarize(rows)
    told = summary["window"]
    assert told["how"] == "detected"
    assert told["start_s"] < 2
    assert told["end_s"] > 197
    assert told["output_tok_s"] == pytest.approx(20, rel=0.01)
    assert summary["throughput"]["steady_output_tok_s"] == told["output_tok_s"]
    assert told["in_flight"] == pytest.approx(2, rel=0.01)
    assert told["answers"] == told["e2e_s"]["n"]
    length = told["end_s"] - told["start_s"]
    assert told["answers"] == pytest.approx(2 * length, abs=2)
    assert told["e2e_s"]["p99"] == pytest.approx(1.0)


def test_given_window_cuts_every_percentile() -> None:
    """What was due outside is in the counts and rates of the whole run only."""
    rows = run(1, rate=20)
    given = summarize(rows, window=Window(20.0, 40.0))
    inside = [row for row in rows if 20.0 <= row.intended_s < 40.0]
    alone = summarize(inside)
    assert given["requests"]["ok"] == len(rows)
    assert given["e2e_s"] == alone["e2e_s"]
    assert given["window"]["how"] == "given"
    assert (given["window"]["start_s"], given["window"]["end_s"]) == (20.0, 40.0)
    assert given["window"]["answers"] == len(inside)
    rates = given["throughput"]
    assert rates["steady_output_tok_s"] == given["window"]["output_tok_s"]
    assert rates["output_tok_s"] == summarize(rows)["throughput"]["output_tok_s"]


def test_given_window_is_cut_to_the_run() -> None:
    """An open side is the run's own; one beyond the run is no window."""
    rows = run(1, rate=20)
    told = summarize(rows, window=Window.parse("30s:"))["window"]
    assert (told["start_s"], told["end_s"]) == (30.0, max(r.end_s for r in rows))
    told = summarize(rows, window=Window.parse("10m:"))["window"]
    assert told["how"] is None
    assert told["reason"] == "the window given lies outside the run"


def test_work_that_was_all_due_at_once_is_steady_in_its_middle() -> None:
    """Ten at a time, one after another; a single wave only drains."""

    def offline(waves: int, width: int) -> list[RequestRecord]:
        base = run(0, rate=1)[0]
        return [
            replace(
                base, intended_s=0.0, sent_s=0.0, first_s=float(wave),
                last_s=wave + 1.0, end_s=wave + 1.0, output_tokens=50,
            )
            for wave in range(waves)
            for _ in range(width)
        ]  # fmt: skip

    told = summarize(offline(40, 10))
    assert told["window"]["how"] == "middle"
    assert told["window"]["start_s"] == pytest.approx(4.0)
    assert told["window"]["end_s"] == pytest.approx(36.0)
    assert told["throughput"]["steady_output_tok_s"] == pytest.approx(500.0)
    draining = [
        replace(row, first_s=0.0, last_s=(i + 1) / 10, end_s=(i + 1) / 10)
        for i, row in enumerate(offline(1, 400))
    ]
    told = summarize(draining)
    assert "the output rate falls" in told["window"]["reason"]
    assert told["throughput"]["steady_output_tok_s"] > 0


def test_too_few_answers_show_nothing() -> None:
    """And nobody answered at all; each says so."""
    assert summarize(run(0, rate=1))["window"]["reason"].endswith(
        "it takes 100 to tell"
    )
    assert summarize([])["window"]["reason"].startswith("0 answers")
    warm = [replace(row, warmup=True) for row in run(0, rate=20)]
    assert "warm-up" in summarize(warm)["window"]["reason"]


def test_warmup_is_never_in_the_window() -> None:
    """It is looked for in what follows."""
    rows = [replace(r, warmup=r.intended_s < 10) for r in run(0, rate=50)]
    assert summarize(rows)["window"]["start_s"] >= 10


def test_least_error_by_hand() -> None:
    """Zeros at both ends of a constant: only they go. A constant loses nothing."""
    flat = [3.0] * BINS
    assert find({"x": flat}) == Found(0, BINS)
    cut = [0.0] * 20 + [3.0] * (BINS - 30) + [0.0] * 10
    assert find({"x": cut}) == Found(20, BINS - 10)
    # The other series only allows what is flat in both.
    late = [0.0] * 30 + [1.0] * (BINS - 30)
    assert find({"x": cut, "y": late}) == Found(30, BINS - 10)
    assert find({"x": [0.0] * BINS}).reason == "nothing was answered"
    short = [0.0] * 60 + [1.0] * 40
    assert find({"x": short}) != Found(60, BINS)
    assert find({"x": [float(2**i) for i in range(BINS)]}).reason


@pytest.mark.parametrize(
    ("text", "window"),
    [("30s:2m", Window(30, 120)), ("30s:", Window(30, inf)), (":90", Window(-inf, 90)),
     (" 1m : 1m30s ", Window(60, 90))],
)  # fmt: skip
def test_window_is_read_from_text(text: str, window: Window) -> None:
    """Either side may be open."""
    assert Window.parse(text) == window


@pytest.mark.parametrize("text", ["", ":", "30s", "2m:30s", "30s:30s", "x:y", "1:2:3"])
def test_what_is_no_window_is_refused(text: str) -> None:
    """With what was wrong."""
    with pytest.raises(UsageError):
        Window.parse(text)


def test_window_holds_its_start_and_not_its_end() -> None:
    """So that neighbouring windows share nothing."""
    window = Window(1.0, 2.0)
    assert (0.999 in window, 1.0 in window, 2.0 in window) == (False, True, False)
    assert window.within(Window(1.5, 9.0)) == Window(1.5, 2.0)
    assert window.within(Window(2.0, 9.0)) is None
    assert Steady.given(window, Window(5.0, 6.0)).window is None
    assert LEAST == BINS // 2
