"""The dispatcher's places: each due request is taken once, whoever leaves meanwhile."""

import time

import gevent
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.scheduler import Dispatcher
from loadgen.session import MonotonicClock
from loadstone.traffic.request import Request


def dispatcher() -> Dispatcher:
    """Return one whose requests are all added by hand, and due at once."""
    return Dispatcher((), clock=MonotonicClock(), t0=time.monotonic())


def request(index: int) -> Request:
    """Return a request that is due."""
    return Request(index, 0.0, 1, 1)


def test_requests_are_taken_in_order_by_the_place_that_came_last() -> None:
    """What is due waits in order; of those who wait, the last one in goes first."""
    source = dispatcher()
    taken: list[tuple[str, int]] = []
    for name in "abc":
        gevent.spawn(lambda name=name: taken.append((name, source.take().index)))
    gevent.sleep(0)
    for index in range(2):
        source.add(request(index))
    gevent.sleep(0)
    assert taken == [("c", 0), ("b", 1)]
    assert (source.released, source.taken, source.queued) == (2, 2, 0)
    source.add(request(2))
    source.add(request(3))
    gevent.sleep(0)
    assert taken[2:] == [("a", 2)]
    assert source.queued == 1
    assert source.take().index == 3


def test_a_place_that_is_killed_when_it_was_woken_leaves_its_request() -> None:
    """Another that waits gets it."""
    source = dispatcher()
    taken: list[int] = []
    patient, doomed = (
        gevent.spawn(lambda: taken.append(source.take().index)) for _ in "ab"
    )
    gevent.sleep(0)
    source.add(request(7))
    doomed.kill(block=False)  # before the hub gets to wake it
    gevent.joinall([patient, doomed], timeout=5)
    assert taken == [7]
    assert doomed.ready()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["come", "add", "kill", "step"]), max_size=60))
def test_nothing_is_lost_and_nothing_taken_twice(acts: list[str]) -> None:
    """While places come, are killed and requests become due in any order."""
    source = dispatcher()
    taken: list[int] = []
    places: list[gevent.Greenlet[..., None]] = []
    due = 0
    for act in acts:
        if act == "come":
            places.append(gevent.spawn(lambda: taken.append(source.take().index)))
        elif act == "add":
            source.add(request(due))
            due += 1
        elif act == "kill" and places:
            places[len(places) // 2].kill(block=False)
        else:
            gevent.sleep(0)
    gevent.idle()
    assert source.taken == len(taken)
    assert source.queued == due - len(taken)
    waiting = sum(not place.ready() for place in places)
    assert not (waiting and source.queued), "somebody waits beside a due request"
    rest = [source.take().index for _ in range(source.queued)]
    assert sorted(taken + rest) == list(range(due))
    gevent.killall(places)
