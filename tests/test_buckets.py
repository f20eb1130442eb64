"""Histograms: the right bucket at each bound, percentiles to 1 %, lossless merging."""

from math import ceil, inf, nextafter

import pytest
from ddsketch.mapping import LogarithmicMapping
from hypothesis import given
from hypothesis import strategies as st

from loadstone.buckets import (
    GROWTH,
    BucketArray,
    Exemplar,
    LogHistogram,
    TracedArray,
    bucket_of,
    bucket_value,
)

BOUNDS = (0.1, 0.5, 2.0)
VALUES = st.floats(0.0, 1e5) | st.floats(1e-9, 1e-6)


@pytest.mark.parametrize(
    ("value", "bucket"),
    [
        (-1.0, 0),
        (0.0, 0),
        (0.1, 0),
        (nextafter(0.1, inf), 1),
        (0.5, 1),
        (nextafter(0.5, inf), 2),
        (2.0, 2),
        (nextafter(2.0, inf), 3),
        (1e9, 3),
    ],
)
def test_bound_belongs_to_the_bucket_below_it(value: float, bucket: int) -> None:
    """`le` means less than or equal; what is above the last bound is in +Inf."""
    array = BucketArray(BOUNDS)
    array.add(value)
    assert array.counts == [int(i == bucket) for i in range(4)]


def test_weights_count_and_sum() -> None:
    """A value added five times counts five times: in its bucket, count and sum."""
    array = BucketArray(BOUNDS)
    array.add(0.25, 5)
    array.add(3.0)
    assert (array.counts, array.count, array.total) == ([0, 5, 0, 1], 6, 4.25)
    assert repr(array) == "<BucketArray n=6 sum=4.25 le=2>"


def test_the_newest_exemplar_of_a_bucket_stays() -> None:
    """In the bucket its value is in, a bound in the one below it."""
    array = TracedArray(BOUNDS)
    for trace_id, value in (("old", 0.2), ("new", 0.5), ("high", 9.0)):
        array.add(value)
        array.trace(Exemplar(trace_id, value, 1.0))
    assert {i: e.trace_id for i, e in array.exemplars.items()} == {1: "new", 3: "high"}
    assert array.counts == [0, 2, 0, 1]


def test_arrays_merge_bucket_by_bucket() -> None:
    """And only when they have as many buckets; a failed merge changes nothing."""
    array = BucketArray(BOUNDS)
    array.add(0.25, 2)
    array.merge([1, 2, 3, 4], 50.0)
    assert (array.counts, array.total) == ([1, 4, 3, 4], 50.5)
    for shape in ([1, 2, 3], [1, 2, 3, 4, 5]):
        with pytest.raises(
            ValueError, match=f"cannot merge {len(shape)} buckets into 4"
        ):
            array.merge(shape, 1.0)
    assert (array.counts, array.total) == ([1, 4, 3, 4], 50.5)


@given(st.floats(1e-9, 1e9))
def test_bucket_value_is_within_one_percent(value: float) -> None:
    """From nanoseconds to years, and the bucket's bounds are 2 % apart."""
    assert bucket_value(bucket_of(value)) == pytest.approx(value, rel=0.01)
    assert bucket_of(value * GROWTH * 1.0001) in (
        bucket_of(value) + 1,
        bucket_of(value) + 2,
    )


@given(st.floats(1e-9, 1e9))
def test_buckets_are_the_library_s(value: float) -> None:
    """The expression of the hot path is DDSketch's own mapping, but at a bound.

    There the two round a logarithm differently, and either bucket is right.
    """
    mapping = LogarithmicMapping.from_gamma_offset(GROWTH, 0.0)
    ours, theirs = bucket_of(value), mapping.key(value)
    bound = min(abs(value / GROWTH**k - 1) for k in (theirs - 1, theirs))
    assert ours == theirs or bound < 1e-9


@given(VALUES | st.just(-1.0), VALUES)
def test_buckets_keep_order(a: float, b: float) -> None:
    """A larger value is never in a lower bucket, next to zero too."""
    low, high = sorted((a, b))
    assert bucket_of(low) <= bucket_of(high)


def test_zero_and_below_share_the_bucket_of_a_nanosecond() -> None:
    """Nothing is lost, and no logarithm of zero is taken."""
    histogram = LogHistogram()
    for value in (0.0, -3.0, 1e-12, 1e-9):
        histogram.add(value)
    assert histogram.pairs() == ((bucket_of(1e-9), 4),)
    assert bucket_of(1.03e-9) > bucket_of(1e-9)


@given(st.lists(VALUES, min_size=1, max_size=60), st.floats(0.001, 1.0))
def test_quantile_is_the_nearest_rank_to_one_percent(
    values: list[float], q: float
) -> None:
    """The ceil(q n)-th smallest value, found through its bucket."""
    histogram = LogHistogram()
    for value in values:
        histogram.add(value)
    exact = max(sorted(values)[ceil(q * len(values)) - 1], 1e-9)
    assert histogram.quantile(q) == pytest.approx(exact, rel=0.01)


def test_quantiles_by_hand() -> None:
    """Of ten values the median is the fifth, p90 the ninth, p91 the tenth."""
    histogram = LogHistogram()
    for i in range(1, 11):
        histogram.add(float(i))
    for q, value in (
        (0.01, 1),
        (0.1, 1),
        (0.11, 2),
        (0.5, 5),
        (0.9, 9),
        (0.91, 10),
        (1, 10),
    ):
        assert histogram.quantile(q) == pytest.approx(value, rel=0.01)
    assert (histogram.count, histogram.total) == (10, 55.0)
    assert repr(histogram) == "<LogHistogram n=10 in 10 buckets>"


def test_empty_histogram_has_no_quantile() -> None:
    """None, not zero."""
    assert LogHistogram().quantile(0.5) is None


@given(st.lists(VALUES, max_size=40), st.lists(VALUES, max_size=40))
def test_merged_histograms_are_one_fed_with_both(
    a: list[float], b: list[float]
) -> None:
    """In either order; the sum is right to 1 %, for a bucket stands for its values."""
    parts = []
    both = LogHistogram()
    for values in (a, b):
        part = LogHistogram()
        for value in values:
            part.add(value)
            both.add(value)
        parts.append(part.pairs())
    there, back = LogHistogram(parts[0]), LogHistogram(parts[1])
    there.merge(parts[1])
    back.merge(parts[0])
    assert there.pairs() == back.pairs() == both.pairs()
    assert there.total == pytest.approx(back.total)
    assert there.total == pytest.approx(both.total, rel=0.01, abs=1e-7)


@given(st.lists(VALUES, max_size=40), st.lists(VALUES, max_size=40))
def test_what_is_absorbed_is_as_if_it_had_been_added(
    first: list[float], second: list[float]
) -> None:
    """And is the other's own still: what either is given later stays with it."""
    one, other, both = LogHistogram(), LogHistogram(), LogHistogram()
    for value in first:
        one.add(value)
    for value in second:
        other.add(value)
    for value in first + second:
        both.add(value)
    one.absorb(other)
    assert (one.pairs(), one.count) == (both.pairs(), both.count)
    assert one.total == pytest.approx(both.total)
    before = other.pairs()
    one.add(1.0)
    assert other.pairs() == before
    other.add(2.0)
    assert one.count == both.count + 1


def test_weight_is_as_many_values() -> None:
    """So one addition stands for a whole batch."""
    one, many = LogHistogram(), LogHistogram()
    one.add(0.03, 500)
    for _ in range(500):
        many.add(0.03)
    assert one.pairs() == many.pairs()
    assert one.total == pytest.approx(many.total)


@given(st.lists(st.floats(0, 12), max_size=30), st.sampled_from([0.01, 0.5, 0.99, 1.0]))
def test_quantile_of_bounds_is_the_bound_above_the_value(
    values: list[float], q: float
) -> None:
    """By nearest rank; what lies beyond all bounds is given as the last one."""
    array = BucketArray((0.5, 1.0, 5.0, 10.0))
    for value in values:
        array.add(value)
    if not values:
        assert array.quantile(q) is None
        return
    true = sorted(values)[max(1, ceil(q * len(values))) - 1]
    above = [bound for bound in array.bounds if bound >= true]
    assert array.quantile(q) == (above[0] if above else 10.0)
