"""The master's book: nobody twice, nobody forgotten."""

from collections import Counter

from loadgen.clocks import Offset
from loadgen.ledger import Ledger, Rows, State
from loadgen.transfer import Written
from loadstone.traffic.accounts import Fate

A, B = "alpha_1f", "beta_2e"
ROWS = Written("runs/x/requests.0.jsonl", shared=False, size=10, sha256="ab")


def ledger() -> Ledger:
    """Return the book of two workers."""
    return Ledger.of({A: Offset(0.25, 0.001), B: None})


def test_ranks_are_in_order_and_clocks_are_stated() -> None:
    """A clock that was not measured is None, not zero."""
    lines = ledger().summary({})["workers"]
    assert [(w["rank"], w["host"]) for w in lines] == [(0, "alpha"), (1, "beta")]
    assert [w["clock_offset_s"] for w in lines] == [0.25, None]
    assert [w["clock_uncertainty_s"] for w in lines] == [0.001, None]


def test_a_share_is_handed_in_once() -> None:
    """A message that is repeated, or from a stranger, changes nothing."""
    book = ledger()
    assert book.hand_in(A, ROWS)
    assert not book.hand_in(A, ROWS)
    assert not book.hand_in("gamma_3d", ROWS)
    assert (book.reported, book.waited_for) == (1, {B})


def test_a_lost_worker_is_told_with_its_share() -> None:
    """Its part of the plan, what became of it, and when it was last heard of."""
    book = ledger()
    book.heard(B, 4.5)
    gone, back = book.look([A])
    assert ([w.client_id for w in gone], back) == ([B], [])
    book.hand_in(A, ROWS)
    shares = {
        0: Counter({Fate.RECORDED: 6}),
        1: Counter({Fate.RECORDED: 1, Fate.UNKNOWN: 1, Fate.DROPPED: 2}),
    }
    told = book.summary(shares)
    assert (told["expected"], told["reported"]) == (2, 1)
    assert told["lost"] == [{"rank": 1, "host": "beta", "heard_s": 4.5, "share": 0.4}]
    line = told["workers"][1]
    assert (line["planned"], line["recorded"]) == (4, 1)
    assert (line["unknown"], line["dropped"]) == (1, 2)
    assert line["state"] == "lost"


def test_a_worker_that_was_away_is_waited_for_again() -> None:
    """The same process under the same id: its share is still its own."""
    book = ledger()
    book.look([A])
    gone, back = book.look([A, B])
    assert (gone, [w.client_id for w in back]) == ([], [B])
    assert book.waited_for == {A, B}
    assert book.hand_in(B, ROWS)
    assert book.workers[B].returned


def test_a_lost_worker_may_still_hand_in() -> None:
    """Its last word came before anybody saw it again."""
    book = ledger()
    book.look([A])
    assert book.hand_in(B, ROWS)
    assert book.workers[B].state is State.HANDED_IN
    assert book.lost == []


def test_who_comes_late_has_no_share() -> None:
    """A stranger is one; a new process on the host of a lost worker is a return.

    It may be there before its forerunner is missed, and it registers again at the end.
    """
    book = ledger()
    assert book.connect(A, 1.0) is None
    assert book.connect("gamma_3d", 2.0) is not None
    assert book.connect("beta_77", 6.0) is not None
    book.look([A])
    assert book.connect("beta_77", 9.0) is None
    assert book.summary({})["late"] == [
        {"host": "gamma", "at_s": 2.0, "returned": False},
        {"host": "beta", "at_s": 6.0, "returned": True},
    ]
    assert book.waited_for == {A}


def test_a_closed_loop_has_no_planned_shares() -> None:
    """None, since nobody knows how much its users would have asked."""
    line = ledger().summary({})["workers"][0]
    assert (line["share"], line["planned"], line["dropped"]) == (None, None, None)


def test_a_worker_that_refuses_its_order_is_not_waited_for() -> None:
    """Its reason is told, and to be there does not make it one that is back."""
    book = ledger()
    assert book.refuse("gamma_3d", "who?") is None
    assert book.refuse(B, "draws another schedule") is book.workers[B]
    assert book.waited_for == {A}
    assert book.look([A, B]) == ([], [])
    (lost,) = book.summary({})["lost"]
    assert lost["why"] == "draws another schedule"
    book.hand_in(A, ROWS)
    assert book.refuse(A, "too late") is None


def test_rows_are_all_here_or_it_is_told_where_they_are() -> None:
    """Host and path, for whoever fetches them."""
    book = ledger()
    book.hand_in(A, ROWS)
    book.hand_in(B, ROWS)
    assert not book.all_rows_here
    book.workers[A].rows, book.workers[B].rows = Rows.COLLECTED, Rows.ELSEWHERE
    assert not book.all_rows_here
    first, second = book.summary({})["workers"]
    assert (first["rows"], "place" in first) == ("collected", False)
    assert second["place"] == "beta:runs/x/requests.0.jsonl"
    book.workers[B].rows = Rows.SHARED
    assert book.all_rows_here
