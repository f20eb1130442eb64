"""Recording and alerting rules, by Prometheus's own tool."""

import re
import subprocess
from pathlib import Path

from panels import RULES, read_boards
from prometheus_process import tool

TESTS = Path(__file__).with_name("rules_test.yml")


def promtool(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool to its end."""
    return subprocess.run(
        [tool("promtool"), *args], capture_output=True, text=True, check=False
    )


def test_rules_are_well_formed() -> None:
    """Prometheus can load them."""
    done = promtool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_do_what_they_say() -> None:
    """On made series they record and fire as `rules_test.yml` works out by hand."""
    done = promtool("test", "rules", TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_both_ways() -> None:
    """Each fires in one test, is silent in one, and is explained in the document."""
    tests = TESTS.read_text()
    document = (TESTS.parents[2] / "docs" / "dashboards.md").read_text()
    for alert in re.findall(r"alert: (\w+)", RULES.read_text()):
        expected = tests.split(f"alertname: {alert}\n")[1:]
        assert any("exp_labels" in one.split("alertname:")[0] for one in expected), (
            alert
        )
        assert f"`{alert}`" in document


def test_alerts_lead_to_dashboards_that_exist() -> None:
    """The link in an annotation is the address of one of ours."""
    uids = {board["uid"] for board in read_boards().values()}
    linked = set(re.findall(r"dashboard: /d/(\S+)", RULES.read_text()))
    assert linked
    assert linked <= uids
