"""README.md and the tutorials, followed: each command is run as it is written."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from authority import Authority
from documents import SHELLS, Step, blocks, steps, unseen
from followed import Followed, alone, follow
from processes import REPOSITORY, mock_server

pytestmark = pytest.mark.timeout(300)

TUTORIALS = sorted((REPOSITORY / "docs").glob("tutorial-*.md"))
JUDGED = re.compile(r"\bloadstone (run|demo|simulate)\b")
"""A run may end with 4: a machine that is busy with other things says so."""

KEY = "sk-of-the-tutorial"
LIMITED = """[[tenant]]
name = "poc"
key_file = "key.txt"
rpm = 600
tpm = 500000
"""


@contextmanager
def endpoint(home: Path) -> Iterator[Mapping[str, str]]:
    """Be the endpoint of which a reader has the URL: https, a key, and limits."""
    secret = home.with_name("endpoint")
    secret.mkdir()
    authority = Authority(secret)
    authority.server("127.0.0.1")
    (secret / "key.txt").write_text(KEY + "\n")
    (secret / "tenants.toml").write_text(LIMITED)
    (home / "ca.pem").write_bytes((secret / "ca.pem").read_bytes())
    pair = str(secret / "127.0.0.1.pem")
    with mock_server(
        "--tenants", str(secret / "tenants.toml"),
        "--ssl-certfile", pair, "--ssl-keyfile", pair,
    ) as url:  # fmt: skip
        yield {"LLM_URL": url, "LLM_KEY": KEY}


STAGES: dict[str, Callable[[Path], AbstractContextManager[Mapping[str, str]]]] = {
    "tutorial-real-endpoint.md": endpoint,
}
"""What a reader of a document already has; of any other nothing."""


@pytest.fixture(scope="module")
def namespace() -> tuple[str, ...]:
    """Give documents a loopback of their own."""
    return alone()


def followed(path: Path, home: Path, namespace: tuple[str, ...]) -> list[Followed]:
    """Follow a document in a folder that has nothing but what it says one has."""
    home.mkdir()
    text = path.read_text(encoding="utf-8")
    staged = STAGES.get(path.name)
    with staged(home) if staged else nullcontext({}) as environ:
        yours = {
            name
            for block in blocks(text)
            if block.told("yours") is not None
            for name in re.findall(r"^export (\w+)=", block.text, re.MULTILINE)
        }
        assert yours == set(environ)
        # What is staged listens outside.
        inside = () if staged else namespace
        return follow(steps(text), home, environ=environ, inside=inside)


def check(done: list[Followed]) -> None:
    """Each ended as the document says, and said what it shows."""
    for each in done:
        where = f"line {each.step.line}:\n{each.step.text}\n{each.code}: {each.said}"
        allowed = {each.step.code}
        if JUDGED.search(each.step.text):
            allowed.add(4)
        assert each.code in allowed, where
        assert not unseen(each.step.shown, each.said), where


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial(path: Path, tmp_path: Path, namespace: tuple[str, ...]) -> None:
    """From an empty folder to its end."""
    home = tmp_path / "home"
    done = followed(path, home, namespace)
    check(done)
    assert len(done) >= 4
    assert not [each.step.text for each in done if KEY in each.said]
    left = LEFT.get(path.name)
    if left is not None:
        left(home)


def endpoint_left(home: Path) -> None:
    """Look for a check, runs with metrics and a budget, and an agreement."""
    checked = json.loads((home / "check.json").read_text())
    assert "error" not in checked
    assert [c["name"] for c in checked["checks"]][:2] == ["connection", "answer"]
    assert "limits" in [c["name"] for c in checked["checks"]]
    first, second = (
        json.loads(path.read_text())
        for path in sorted((home / "runs").glob("2*/summary.json"))
    )
    assert first["requests"]["ok"] == first["requests"]["sent"] == 20
    assert first["budget"]["stopped_by"] == "max_requests"
    assert first["requests"]["dropped"] == 0
    assert {s["source"] for s in first["server"]["sources"]} == {"vllm", "dcgm"}
    assert first["server"]["running"]["max"] > 0
    timeline = first["server"]["timeline"]
    assert any("waiting" in at and at["ttft_p50_s"] for at in timeline)
    assert len(first["slo"]) == 2
    assert 1 <= second["requests"]["ok"] == second["requests"]["sent"] <= 8
    told = json.loads((home / "agreement.json").read_text())
    assert (told["prompts"], told["answered"]) == (3, 3)


LEFT: dict[str, Callable[[Path], None]] = {"tutorial-real-endpoint.md": endpoint_left}
"""What there is at a document's end, and what its figures are."""


def test_readme(tmp_path: Path, namespace: tuple[str, ...]) -> None:
    """What can be run of it here, as it is written."""
    check(followed(REPOSITORY / "README.md", tmp_path / "home", namespace))


def test_a_step_that_fails_is_seen(tmp_path: Path) -> None:
    """Its code, its words, and that what goes on did come up and was ended."""
    (tmp_path / "home").mkdir()
    taken = [
        Step("echo ready; exec sleep 77", 1, until="ready"),
        Step("x=3; echo to stderr >&2", 2, shown="to stderr"),
        Step("echo x is $x; false", 3, shown="y is 3"),
        Step("echo gone; exit 7", 4, until="never"),
    ]
    up, first, second, gone = follow(taken, tmp_path / "home")
    assert (up.code, first.code, second.code, gone.code) == (0, 0, 1, -1)
    assert second.said == "x is 3\n"
    check([up, first])
    for wrong in (second, gone):
        with pytest.raises(AssertionError, match=f"line {wrong.step.line}"):
            check([wrong])


def test_tutorials_show_their_commands_in_fences() -> None:
    """So that none of them is only quoted."""
    for path in TUTORIALS:
        text = path.read_text(encoding="utf-8")
        assert {b.language for b in blocks(text)} & set(SHELLS), path.name
