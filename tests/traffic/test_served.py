"""What servers counted against what the rows say: exact where it can be."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.traffic.record import Outcome, RequestRecord, TokensSource
from loadstone.traffic.served import Sent, Served, differences


def row(outcome: Outcome = Outcome.OK, **more: Any) -> RequestRecord:
    """Return a row of a request of 10 and 5 tokens."""
    ok = outcome is Outcome.OK
    usual: dict[str, Any] = {
        "id": "1", "scenario": "chat", "intended_s": 0.0, "sent_s": 0.0, "end_s": 1.0,
        "outcome": outcome, "status": 200 if ok else None,
        "input_tokens": 10 * ok, "output_tokens": 5 * ok,
        "tokens_source": TokensSource.USAGE if ok else TokensSource.NONE,
    }  # fmt: skip
    return RequestRecord(**(usual | more))


def found(
    rows: list[RequestRecord],
    statuses: dict[int, int],
    *,
    tokens: tuple[int, int] | None = None,
    unfinished: int = 0,
    unknown: int = 0,
) -> list[str]:
    """Return what differs from a server that counted that."""
    sent = Sent()
    for each in rows:
        sent.add(each)
    if tokens is None:
        tokens = sent.input_tokens, sent.output_tokens
    return list(differences(sent, Served(statuses, unfinished, *tokens), unknown))


OK = [row()] * 3


@pytest.mark.parametrize("seen", [2, 4])
def test_one_too_few_and_one_too_many(seen: int) -> None:
    """Where all rows are ok there is one number, and no other."""
    assert found(OK, {200: 3}) == []
    assert found(OK, {200: seen})[0] == (
        f"requests answered with 200: it has {seen}, the rows 3"
    )


def test_tokens_are_the_same_or_it_is_said() -> None:
    """Either kind; but not where the client made up the count itself."""
    assert found(OK, {200: 3}, tokens=(30, 15)) == []
    for tokens in ((31, 15), (29, 15), (30, 14), (30, 16)):
        assert len(found(OK, {200: 3}, tokens=tokens)) == 1
    guessed = [*OK, row(tokens_source=TokensSource.CHUNKS)]
    assert found(guessed, {200: 4}, tokens=(1, 1)) == []


@pytest.mark.parametrize("ended", [Outcome.CANCELLED, Outcome.INCOMPLETE])
def test_one_that_was_given_up_may_have_had_any_end(ended: Outcome) -> None:
    """Answered, noticed, still under way, refused, or never heard of; but one end."""
    rows = [*OK, row(ended)]
    whole = (40, 20)
    assert found(rows, {200: 4}, tokens=whole) == []
    assert found(rows, {200: 3, 499: 1}) == []
    assert found(rows, {200: 3}, unfinished=1) == []
    assert found(rows, {200: 3, 429: 1}) == []
    assert found(rows, {200: 3}) == []
    assert found(rows, {200: 5}, tokens=whole)
    assert found(rows, {200: 3, 499: 2})
    assert found(rows, {200: 3, 499: 1}, unfinished=1)
    assert found(rows, {200: 3, 499: 1}, tokens=(29, 15))


def test_a_refusal_is_counted_by_its_status() -> None:
    """A 429 is no 500; attempts before the last had their answers too."""
    rows = [*OK, row(Outcome.THROTTLED, status=429)]
    assert found(rows, {200: 3, 429: 1}) == []
    assert found(rows, {200: 3, 500: 1})
    assert found(rows, {200: 3})
    again = [*OK, row(retries=2)]
    assert found(again, {200: 4, 429: 2}) == []
    assert found(again, {200: 4, 429: 1, 401: 1}) == []
    assert found(again, {200: 4, 429: 1})
    assert found(again, {200: 4, 429: 3})


def test_what_is_not_known_to_have_been_sent_may_be_there() -> None:
    """A lost process, and a connection that died under a request."""
    assert found(OK, {200: 4}, tokens=(40, 20), unknown=1) == []
    assert found(OK, {200: 5}, tokens=(40, 20), unknown=1)
    assert found([*OK, row(reconnects=1)], {200: 4, 499: 1}) == []


ENDS = st.sampled_from(
    [
        (row(), 200), (row(Outcome.THROTTLED, status=429), 429),
        (row(Outcome.FAILED, status=503), 503), (row(Outcome.CANCELLED), 499),
        (row(Outcome.FAILED), None), (row(Outcome.FAILED, status=200), 499),
        (row(Outcome.INCOMPLETE), 200),
    ]
)  # fmt: skip


@given(st.lists(ENDS, max_size=30), st.data())
def test_what_can_have_happened_is_never_called_wrong(
    ends: list[tuple[RequestRecord, int | None]], data: st.DataObject
) -> None:
    """And a lost row, of an ok answer among nothing unsure, always is."""
    rows = [each for each, _ in ends]
    statuses = Counter(status for _, status in ends if status is not None)
    whole = 10 * statuses[200], 5 * statuses[200]
    assert found(rows, statuses, tokens=whole) == []
    sure = [pair for pair in ends if pair[1] and pair[0].status == pair[1]]
    if sure:
        lost = data.draw(st.integers(0, len(sure) - 1))
        statuses = Counter(status for _, status in sure if status is not None)
        left = [each for i, (each, _) in enumerate(sure) if i != lost]
        assert found(left, statuses)


def counts(**more: Any) -> dict[str, Any]:
    """Return what a server tells of a run."""
    return {
        "run": "ab", "server": "s", "forgotten": 0, "statuses": {"200": 2, "429": 1},
        "unfinished": 0, "input_tokens": 7, "output_tokens": 3,
    } | more  # fmt: skip


def told(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return what a run keeps of two servers, the first of which is sound."""
    sound = {"url": "http://a", "before": counts(), "after": counts()}
    return {"servers": [sound, {"url": "http://b", "before": before, "after": after}]}


def test_several_servers_are_one() -> None:
    """Their counts are added up."""
    assert Served.read(told(counts(), counts())) == Served({200: 4, 429: 2}, 0, 14, 6)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (counts(), counts(server="t"), "restarted"),
        (counts(), counts(forgotten=1), "let go"),
        (counts(), {"error": "network refused"}, "after the run: network refused"),
        ({"error": "timeout"}, counts(), "before the run: timeout"),
        (counts(), {}, "not the mock"),
    ],
)
def test_counts_that_are_not_whole_say_why(
    before: dict[str, Any], after: dict[str, Any], why: str
) -> None:
    """They are not compared: they would accuse a run that is in order."""
    read = Served.read(told(before, after))
    assert isinstance(read, str)
    assert read.startswith("http://b ")
    assert why in read
