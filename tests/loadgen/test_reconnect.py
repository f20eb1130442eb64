"""A kept connection that dies: when a request is sent again, and when it has failed."""

import threading
import time

import pytest
from scripted import ANSWER, PATIENCE_S, Peer, Script, ask, check, client, once, serving

import loadgen.client
from loadgen.client import StreamingClient
from loadgen.connection import Connection


def lost_race(reset: bool) -> Script:
    """Make a script that answers one request and closes at the sight of the next."""

    def script(peer: Peer) -> None:
        assert peer.request()
        peer.send(ANSWER)
        assert peer.request()
        (peer.reset if reset else peer.close)()

    return script


@pytest.fixture
def opened_at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return when connections began to be opened."""
    instants: list[float] = []
    really = StreamingClient._open

    def noted(made: StreamingClient) -> Connection:
        instants.append(time.monotonic())
        return really(made)

    monkeypatch.setattr(StreamingClient, "_open", noted)
    return instants


@pytest.mark.parametrize("reset", [False, True])
def test_a_request_that_met_a_close_is_sent_again(
    reset: bool,
    monkeypatch: pytest.MonkeyPatch,
    opened_at: list[float],
) -> None:
    """Once, on a new connection, stamped by the first attempt, and visibly."""
    # The script has to see the request before it closes: a thread may need a while.
    monkeypatch.setattr(loadgen.client, "RACE_S", PATIENCE_S)
    with serving(lost_race(reset), once(ANSWER)) as server, client(server.url) as made:
        check(ask(made))
        again = ask(made)
        check(again)
        assert (again.reconnects, made.opened) == (1, 2)
        assert again.sent < opened_at[1]


def test_a_race_lasts_no_longer_than_a_close_is_under_way() -> None:
    """Milliseconds; a server that worked for longer had the request."""
    assert 0 < loadgen.client.RACE_S <= 0.005


@pytest.mark.parametrize(("reset", "error"), [(False, "closed_early"), (True, "reset")])
def test_a_server_that_works_and_then_resets_has_failed(
    reset: bool,
    error: str,
) -> None:
    """It had the request, so it gets no second one, and the row says so."""

    def script(peer: Peer) -> None:
        assert peer.request()
        peer.send(ANSWER)
        assert peer.request()
        time.sleep(0.05)
        (peer.reset if reset else peer.close)()

    with serving(script) as server, client(server.url) as made:
        check(ask(made))
        failed = ask(made)
        assert (failed.error, failed.reconnects, made.opened) == (error, 0, 1)
        assert failed.end - failed.sent > 0.04


def test_a_request_that_could_not_be_written_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, opened_at: list[float]
) -> None:
    """Then the server never had it, however long that took to find out."""
    monkeypatch.setattr(loadgen.client, "RACE_S", 0.0)
    gone = threading.Event()

    def script(peer: Peer) -> None:
        assert peer.request()
        peer.send(ANSWER)
        peer.reset()
        gone.set()

    with serving(script, once(ANSWER)) as server, client(server.url) as made:
        check(ask(made))
        assert gone.wait(PATIENCE_S)
        # As if the reset had come just after we looked.
        monkeypatch.setattr(Connection, "alive", lambda _: True)
        again = ask(made)
        check(again)
        assert (again.reconnects, made.opened) == (1, 2)
        assert again.sent < opened_at[1]
