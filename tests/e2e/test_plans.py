"""Plans against the mock, over real sockets: turns, branches, caches, embeddings."""

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from processes import latest, loadstone, mock_server

CHAT = """
[options]
duration = "3s"
drain = "10s"

[[class]]
name = "talk"
turns = 3
think = "100ms"
system = 200
input = [40, 90]
output = [5, 15]

[[class]]
name = "task"
turns = 2
branches = 2
input = 60
output = 8
branch_input = 50
branch_output = 6
branch_time = "50ms"

[[class]]
name = "passages"
kind = "embed"
input = [20, 60]
"""
BLOCK = 32
"""Of the preset's KV cache."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the rows of one run of all three, on a router that knows prefixes."""
    folder = tmp_path_factory.mktemp("plans")
    plan, out = folder / "mixed.toml", folder / "runs"
    plan.write_text(CHAT)
    with mock_server("--router", "prefix_affine") as url:
        done = loadstone(
            "run", str(plan), "--rate", "8", "--host", url, "--out", str(out)
        )
    assert done.returncode in (0, 4), done.stderr
    found = latest(out)
    assert found.summary["requests"]["sent"] == found.summary["requests"]["ok"]
    assert found.summary["requests"]["dropped"] == 0
    return found.rows


def of(rows: list[dict[str, Any]], name: str) -> dict[str, list[dict[str, Any]]]:
    """Return the conversations of a class, each in order."""
    found = defaultdict(list)
    for row in sorted(rows, key=lambda row: str(row["id"])):
        if row["scenario"] == name:
            found[row.get("conversation", row["id"])].append(row)
    return found


def test_lengths_are_exact(rows: list[dict[str, Any]]) -> None:
    """As the server counts them."""
    for row in rows:
        assert row["input_tokens"] == row["asked_input_tokens"]
        if row["scenario"] != "passages":
            assert row["output_tokens"] == row["asked_output_tokens"]


def test_what_was_said_before_is_in_the_servers_cache(
    rows: list[dict[str, Any]],
) -> None:
    """All whole blocks of the turn before: the text is the same to the byte."""
    followed = 0
    for said in of(rows, "talk").values():
        for before, after in pairwise(said):
            assert after["intended_s"] >= before["end_s"]
            whole = before["input_tokens"] // BLOCK * BLOCK
            assert after["cached_tokens"] >= whole
            followed += 1
    assert followed > 3


def test_calls_are_sent_side_by_side(rows: list[dict[str, Any]]) -> None:
    """And the last step once both are answered."""
    tasks = [each for each in of(rows, "task").values() if len(each) == 4]
    assert tasks
    for first, one, two, last in tasks:
        assert (one["stage"], two["stage"]) == ("tool", "tool")
        assert one["intended_s"] == two["intended_s"] >= first["end_s"]
        assert last["intended_s"] >= max(one["end_s"], two["end_s"]) - 1e-5


def test_passages_are_embedded(rows: list[dict[str, Any]]) -> None:
    """Answered whole, in a stage of their own."""
    embedded = of(rows, "passages")
    assert embedded
    assert {row["stage"] for (row,) in embedded.values()} == {"embed"}


def test_a_run_is_run_again_from_its_folder(tmp_path: Path) -> None:
    """The same plan hash, though the plan's own file is gone."""
    plan, out = tmp_path / "short.toml", tmp_path / "runs"
    plan.write_text(CHAT.replace('"3s"', '"1s"'))
    with mock_server() as url:
        given = ("--host", url, "--out", str(out))
        first = loadstone("run", str(plan), "--rate", "4", "--json", *given)
        plan.unlink()
        again = loadstone("run", str(out / "latest" / "plan.toml"), "--json", *given)
    hashes = {json.loads(done.stdout)["plan_hash"] for done in (first, again)}
    assert len(hashes) == 1
