"""Several hosts as one target: how they are written, what they must have in common."""

import json
from contextlib import ExitStack
from typing import Any

import pytest
from scripted import Peer, Script, serving

from loadgen.endpoint import Endpoint
from loadgen.options import hosts_of, plan_of, read_options
from loadgen.probe import Target, probe_all
from loadstone.errors import UsageError

MOCK: dict[str, Any] = {
    "emulated": True, "preset": "p", "vms": 2, "engines": 8, "slowdown": 1.0,
    "clock": "real",
}  # fmt: skip


def endpoint(models: list[str], version: dict[str, Any] | None) -> Script:
    """Answer a probe: the models, then what the server says it is, if it does."""

    def script(peer: Peer) -> None:
        listing = {"data": [{"id": model} for model in models]}
        for status, answer in ((200, listing), (200 if version else 404, version)):
            assert peer.request()
            body = json.dumps(answer or {}).encode()
            head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
            peer.send(head.encode() + body)

    return script


def probed(*scripts: Script, model: str = "") -> Target:
    """Probe hosts that answer so, as one."""
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(script)) for script in scripts]
        return probe_all([Endpoint.parse(server.url) for server in servers], model)


def test_hosts_come_with_commas_between_them() -> None:
    """As Locust has one text for them all; one host is as it was."""
    assert hosts_of("http://a, unix:/b,http://c:1/v1") == (
        "http://a", "unix:/b", "http://c:1/v1",
    )  # fmt: skip
    assert hosts_of("http://a") == ("http://a",)
    plan = plan_of(read_options({"rate": "1"}), host="http://a,http://b", users=None)
    assert plan.hosts == ("http://a", "http://b")


@pytest.mark.parametrize("text", ["http://a,", ",http://a", "http://a,http://a", ","])
def test_hosts_that_say_nothing_are_refused(text: str) -> None:
    """An empty one would be the default's, a double one would get twice as much."""
    with pytest.raises(UsageError, match="different and not empty"):
        hosts_of(text)


def test_mocks_are_one_with_all_their_vms() -> None:
    """Cost is that of all of them."""
    target = probed(endpoint(["m"], MOCK), endpoint(["m"], MOCK | {"vms": 1}))
    assert target.models == ("m",)
    assert target.mock == MOCK | {"vms": 3, "engines": 16}


def test_real_endpoints_may_list_different_models() -> None:
    """As long as each has the one that is asked for; one may list none."""
    target = probed(
        endpoint(["a", "m"], None), endpoint(["m"], None), endpoint([], None), model="m"
    )
    assert target == Target(("a", "m"), None)


@pytest.mark.parametrize(
    ("second", "model", "said"),
    [
        (endpoint(["m"], None), "", "is not what"),
        (endpoint(["m"], MOCK | {"slowdown": 10.0}), "", "slowdown 10.0"),
        (endpoint(["m"], MOCK | {"preset": "q"}), "", "preset q"),
        (endpoint(["other"], MOCK), "", "does not list the model 'm'"),
        (endpoint(["other"], MOCK), "m", "does not list the model 'm'"),
    ],
)
def test_hosts_that_are_not_the_same_are_refused(
    second: Script, model: str, said: str
) -> None:
    """One set of figures over both would describe neither."""
    with pytest.raises(UsageError, match=said):
        probed(endpoint(["m"], MOCK), second, model=model)


def test_one_host_is_not_held_to_its_list() -> None:
    """An endpoint may serve what it does not list; the request will tell."""
    assert probed(endpoint(["a"], None), model="m").models == ("a",)


def test_a_supervisor_is_no_host() -> None:
    """Its workers are, and it says where."""
    version = {"emulated": True, "workers": ["http://a:1", "http://a:2"]}
    with pytest.raises(UsageError, match="supervisor of 2 workers") as caught:
        probed(endpoint([], version))
    assert "--host http://a:1 --host http://a:2" in caught.value.hint
