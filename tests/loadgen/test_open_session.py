"""What the options say reaches the client that a session sends with."""

from pathlib import Path

import pytest

from loadgen.connection import Timeouts
from loadgen.coordinator import Order, open_session
from loadgen.options import plan_of, read_options
from loadstone.traffic.plan import plan_hash


def test_a_session_sends_as_the_options_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timeouts, the way and the key; the key from this process's environment."""
    given = {
        "connect_timeout": "1s", "first_byte_timeout": "2s", "idle_timeout": "3s",
        "total_timeout": "4s", "proxy": "http://p:3128", "api_key_env": "MY_KEY",
        "model": "m",
    }  # fmt: skip
    values = read_options(given)
    plan = plan_of(values, host="http://rack.test", users=2)
    order = Order(0, 1, 0.0, plan.to_toml(), plan_hash(plan, []), str(tmp_path), values)

    def unexpected(failed: OSError) -> None:
        raise AssertionError(failed)

    session = open_session(order, {"MY_KEY": "sk"}, lambda _: None, unexpected)
    (client,) = session._clients.own
    assert client.timeouts == Timeouts(connect=1, first_byte=2, idle=3, total=4)
    assert str(client.endpoint.proxy) == "http://p:3128"
    assert client.endpoint.headers() == {"authorization": "Bearer sk"}
    assert session.stats.recv_lags is client.lags
    session.stop()
