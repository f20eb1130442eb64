"""A run over time: nothing is lost in the bins, and none depends on the order."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.report.timeline import WIDTHS, Timeline
from loadstone.traffic.record import Outcome, RequestRecord

INSTANTS = st.floats(0, 1, allow_subnormal=False)


@st.composite
def rows(draw: st.DrawFn) -> list[RequestRecord]:
    """Draw the rows of a run that takes anything from a moment to a month."""
    span = 10 ** draw(st.floats(-2, 6))
    made = []
    for _ in range(draw(st.integers(1, 30))):
        due, sent, first, last, end = sorted(span * draw(INSTANTS) for _ in range(5))
        outcome = draw(st.sampled_from(Outcome))
        ok = outcome is Outcome.OK
        made.append(
            RequestRecord(
                id="r", scenario="chat", intended_s=due, sent_s=sent, end_s=end,
                outcome=outcome, first_s=first if ok else None,
                last_s=last if ok else None, first_event_tokens=1,
                output_tokens=draw(st.integers(1, 500)),
            )
        )  # fmt: skip
    return made


def of(records: list[RequestRecord]) -> Timeline:
    """Return the timeline of rows."""
    timeline = Timeline()
    for row in records:
        timeline.add(row)
    return timeline


@given(rows())
def test_what_is_in_the_rows_is_in_the_bins(records: list[RequestRecord]) -> None:
    """Requests, outcomes, tokens and time in flight add up, in a bounded number."""
    timeline = of(records)
    bins = timeline.bins()
    assert 1 <= len(bins) <= 71
    assert sum(b.due for b in bins) == sum(b.sent for b in bins) == len(records)
    ended: Counter[str] = sum((Counter(b.ended) for b in bins), Counter())
    assert ended == Counter(row.outcome.value for row in records)
    spans = [min(b.width_s, timeline.end_s - b.start_s) for b in bins]
    # The rates of the last bin are over a tenth of its width at least.
    spans[-1] = max(spans[-1], bins[-1].width_s / 10)
    flown = sum(b.in_flight * span for b, span in zip(bins, spans, strict=True))
    assert flown == pytest.approx(sum(row.e2e_s for row in records), rel=1e-6, abs=1e-6)
    given_ = sum(b.output_tok_s * span for b, span in zip(bins, spans, strict=True))
    assert given_ == pytest.approx(
        sum(row.output_tokens for row in records if row.ok), rel=1e-4, abs=1e-4
    )


@given(rows(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(
    records: list[RequestRecord], rng: object
) -> None:
    """Rows of several workers come one worker after the other."""
    mixed = list(records)
    rng.shuffle(mixed)
    for a, b in zip(of(records).bins(), of(mixed).bins(), strict=True):
        assert (a.start_s, a.due, a.sent, a.ended) == (
            b.start_s,
            b.due,
            b.sent,
            b.ended,
        )
        assert a.ttfts == b.ttfts
        assert a.in_flight == pytest.approx(b.in_flight, rel=1e-6, abs=1e-6)


def test_one_answer_by_hand() -> None:
    """Ten tokens from 1 s to 3 s: five a second, in flight from 0.5 s to 3 s."""
    row = RequestRecord(
        id="r", scenario="chat", intended_s=0.25, sent_s=0.5, first_s=1.0, last_s=3.0,
        end_s=3.0, outcome=Outcome.OK, output_tokens=10, first_event_tokens=1,
    )  # fmt: skip
    bins = of([row]).bins()
    assert [b.width_s for b in bins] == [pytest.approx(0.1)] * 31
    assert [b.output_tok_s for b in bins[10:30]] == [pytest.approx(5.0)] * 20
    assert sum(b.output_tok_s for b in bins[:10]) == pytest.approx(0.0, abs=1e-9)
    assert bins[5].in_flight == pytest.approx(1.0)
    assert bins[4].in_flight == pytest.approx(0.0, abs=1e-9)
    assert [(i, b.due) for i, b in enumerate(bins) if b.due] == [(2, 1)]
    assert bins[5].ttft_p50_s == pytest.approx(0.5, rel=0.01)


def test_where_all_are_sent_at_once_latencies_are_placed_by_their_tokens() -> None:
    """Else an offline run's would all stand at t0."""
    row = RequestRecord(
        id="r", scenario="chat", intended_s=0.0, sent_s=0.0, first_s=1.05, last_s=3.05,
        end_s=3.06, outcome=Outcome.OK, output_tokens=10, first_event_tokens=1,
    )  # fmt: skip

    def places(*, at_once: bool) -> tuple[list[int], list[int]]:
        timeline = Timeline(at_once=at_once)
        timeline.add(row)
        bins = timeline.bins()
        return (
            [i for i, b in enumerate(bins) if b.ttft_p50_s],
            [i for i, b in enumerate(bins) if b.tpot_p50_s],
        )

    assert places(at_once=False) == ([0], [0])
    assert places(at_once=True) == ([10], [30])


def test_widths_divide_each_other_and_end_somewhere() -> None:
    """Merged bins keep their edges; a row of next century is refused."""
    for narrow, wide in pairwise(WIDTHS):
        assert wide / narrow == pytest.approx(round(wide / narrow))
    far = RequestRecord(
        id="r", scenario="chat", intended_s=0, sent_s=0, end_s=3e9,
        outcome=Outcome.FAILED,
    )  # fmt: skip
    with pytest.raises(OverflowError):
        of([far])
