"""What a live trial is taken for, with the child process replaced by its result."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from rich.console import Console
from run_folders import made_up

from loadgen.workload import requests_of
from loadstone.cli import live_site
from loadstone.cli.live_site import LiveSite, most_in_flight
from loadstone.cli.run import locust_arguments
from loadstone.cli.trials import Load, Trial
from loadstone.errors import UsageError
from loadstone.traffic.probe import Bearing, Trust
from loadstone.traffic.record import Outcome, RequestRecord
from loadstone.traffic.request import Request
from loadstone.traffic.slo import Slo

LOAD = Load(rate=20.0, duration_s=10.0)
LIMIT = Slo("e2e_s", "p90", 1.0)


def row(request: Request, stay: float) -> RequestRecord:
    """Return the row of a request that stayed so long."""
    at = request.intended_s
    return RequestRecord(
        id=request.id, scenario="chat", intended_s=at, sent_s=at, end_s=at + stay,
        outcome=Outcome.OK,
    )  # fmt: skip


class Child:
    """In place of Locust: leaves a run folder whose last `unsent` rows are missing."""

    def __init__(self, verdict: str, *, unsent: int = 0, stay: float = 0.5) -> None:
        self.verdict, self.unsent, self.stay = verdict, unsent, stay
        self.sent: list[RequestRecord] = []

    def __call__(self, arguments: list[str], _: Console) -> dict[str, Any]:
        """Do as if it had run."""
        given = dict(
            a.split("=", 1) for a in arguments if a.startswith("--") and "=" in a
        )
        out = Path(given["--out"]) / "20260101-000000-chat"
        out.mkdir(parents=True)
        made_up(out)
        (out / "environment.json").write_text('{"mock": null}')
        plan = self.site.plan.retargeted(rate=LOAD.rate, duration_s=LOAD.duration_s)
        (out / "plan.toml").write_text(tomli_w.dumps({"plan": plan.to_toml()}))
        requests = requests_of(plan)
        self.due = len(requests)
        self.sent = [row(r, self.stay) for r in requests[: self.due - self.unsent]]
        (out / "requests.jsonl").write_text("".join(r.to_line() for r in self.sent))
        instrument = {"verdict": self.verdict, "reasons": ["so it was"]}
        requests_told = {"dropped": self.unsent}
        summary = {"instrument": instrument, "requests": requests_told}
        return {"folder": str(out), "summary": summary}

    site: LiveSite


Site = Callable[..., LiveSite]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    """Return a function that makes a site whose runs are a `Child`'s."""

    def make(child: Child, users: int | None = None, **given: str) -> LiveSite:
        def write(given: Mapping[str, str | None], *, users: int | None) -> list[str]:
            return locust_arguments(given, host="http://x:1", users=users)

        made = LiveSite(given, "http://x:1", users, write, Console(quiet=True))
        child.site = made
        monkeypatch.setattr(live_site, "_run", child)
        monkeypatch.setattr(live_site, "in_flight", lambda _: 0)
        return made

    return make


def try_it(site: LiveSite, folder: Path) -> tuple[Trust, tuple[str, ...], Bearing]:
    """Try 20 requests/s for 10 s."""
    bearing = Bearing([LIMIT], requests=200, warmup_s=0.0, duration_s=10.0, nats=99.0)
    trial = site.try_load(LOAD, folder, bearing, lambda: False)
    assert trial is not None
    return trial.trust, trial.notes, bearing


@pytest.mark.parametrize(
    ("verdict", "trust"),
    [
        ("ok", Trust.FULL),
        ("too_few_samples", Trust.FULL),
        ("client_limited", Trust.CEILING),
        ("rate_not_delivered", Trust.NONE),
    ],
)
def test_the_instruments_verdict_decides_what_a_probe_is_worth(
    site: Site, tmp_path: Path, verdict: str, trust: Trust
) -> None:
    """And why is told, where it is worth less."""
    found, notes, _ = try_it(site(Child(verdict)), tmp_path)
    assert found is trust
    assert notes == (() if trust is Trust.FULL else ("so it was",))


def test_a_rate_the_endpoint_held_up_is_the_endpoints_doing(
    site: Site, tmp_path: Path
) -> None:
    """All places in flight were taken: what was not sent waited for it.

    One place more, and it must have been the client that did not send.
    """
    child = Child("rate_not_delivered", unsent=30, stay=100.0)
    trust, notes, bearing = try_it(site(child, users=100), tmp_path / "a")
    most = most_in_flight(child.sent)
    assert (trust, most) == (Trust.FULL, len(child.sent))
    assert "all 100 places in flight were taken (--users)" in notes
    (tally,) = bearing.look().tallies
    assert (tally.n, tally.mean) == (child.due, 1.0)
    assert bearing.look().backlog[1] == child.due
    for users, expected in ((most, Trust.FULL), (most + 1, Trust.NONE)):
        found, _, _ = try_it(site(child, users=users), tmp_path / str(users))
        assert found is expected


def test_most_in_flight_by_hand() -> None:
    """One that ends as another begins leaves it its place."""
    assert most_in_flight([]) == 0
    times = [(0.0, 2.0), (1.0, 2.0), (2.0, 1.0), (2.5, 0.1)]
    rows = [
        row(Request(i, at, 1, 1, "chat"), stay) for i, (at, stay) in enumerate(times)
    ]
    assert most_in_flight(rows) == 3


def test_it_waits_for_an_idle_endpoint_and_owns_up_if_it_is_not(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polls until nothing is in flight; after a minute goes on, and says so."""
    now = [0.0]
    counts = iter([3, 2, 0])
    made = site(Child("ok"))
    monkeypatch.setattr(live_site.time, "monotonic", lambda: now[0])

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(live_site.time, "sleep", sleep)
    monkeypatch.setattr(live_site, "in_flight", lambda _: next(counts))
    assert try_it(made, tmp_path / "a")[1] == ()
    assert (now[0], next(counts, None)) == (1.0, None)
    monkeypatch.setattr(live_site, "in_flight", lambda _: 7)
    _, notes, _ = try_it(made, tmp_path / "b")
    assert notes == ("the endpoint still had 7 requests: somebody else's?",)
    assert 60.0 < now[0] - 1.0 < 62.0
    monkeypatch.setattr(live_site, "in_flight", lambda _: None)
    before = now[0]
    try_it(made, tmp_path / "c")
    assert now[0] - before == 2.0


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"drain": "soon"}, "--drain soon"),
        ({"arrivals": "soon"}, "--arrivals soon"),
    ],
)
def test_wrong_usage_is_told_before_anything_starts(
    site: Site, given: dict[str, str], why: str
) -> None:
    """By the option's name."""
    with pytest.raises(UsageError) as wrong:
        site(Child("ok"), **given)
    assert why in wrong.value.message


def test_the_seed_is_the_one_that_was_asked_for(site: Site) -> None:
    """The first probe has it."""
    assert site(Child("ok"), seed="7").plan.seed == 7
    assert site(Child("ok")).plan.seed == 0


@pytest.mark.parametrize(
    ("mock", "given", "gpus"),
    [
        ({"preset": "azure-nd-gb300-v6", "vms": 2}, {}, 8),
        ({"preset": "azure-nd-h100-v5", "vms": 2}, {"vms": "3"}, 24),
        ({"preset": "azure-nd-h100-v5", "vms": 2}, {"prices": "azure-nd-gb300-v6"}, 16),
        ({"preset": "mine", "vms": 2}, {}, None),
        (None, {"vms": "3", "prices": "azure-nd-gb300-v6"}, 12),
        (None, {"vms": "3"}, None),
        (None, {}, None),
    ],
)
def test_how_many_gpus_there_are(
    site: Site, tmp_path: Path, mock: object, given: dict[str, str], gpus: int | None
) -> None:
    """By the mock's preset and VMs, or by what is paid for; else it is unknown."""
    (tmp_path / "plan.toml").write_text("")
    (tmp_path / "environment.json").write_text(json.dumps({"mock": mock}))
    trial = Trial(folder=tmp_path, summary={})
    assert site(Child("ok"), **given).gpus(trial) == gpus


def test_where_keys_are_is_not_what_makes_a_search(site: Site) -> None:
    """It may have moved when the search goes on; the drain may not have."""
    one, other, third = (
        site(Child("ok"), **given).asked()
        for given in ({"api_key_env": "A"}, {"api_key_file": "f"}, {"drain": "5s"})
    )
    assert one == other != third
    assert json.dumps(one)
