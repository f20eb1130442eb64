"""A page that many ask for is made once a second, and lets the loop turn."""

import gevent

from loadgen.kept import KEEP_S, Kept


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        """Return the instant."""
        return self.at


def test_a_page_is_kept_for_a_second() -> None:
    """Both sides of the limit; what is asked for first is never old."""
    clock, made = Hand(), 0

    def make() -> bytes:
        nonlocal made
        made += 1
        return b"page %d" % made

    page = Kept(make, clock)
    assert [page() for _ in range(160)] == [b"page 1"] * 160
    clock.at += KEEP_S * 0.999
    assert page() == b"page 1"
    clock.at += KEEP_S * 0.001
    assert page() == b"page 2"
    assert repr(page) == "<Kept page of 6 bytes>"


def test_who_asks_for_many_lets_others_run() -> None:
    """Between any two pages the loop has its turn, and with it whoever reads."""
    page, turns, seen = Kept(lambda: b"page", Hand()), 0, []

    def reader() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    beside = gevent.spawn(reader)
    gevent.sleep(0)
    for _ in range(50):
        page()
        seen.append(turns)
    beside.kill()
    assert seen == sorted(set(seen)), "two pages in one turn of the loop"
