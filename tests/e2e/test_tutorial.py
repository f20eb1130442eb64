"""The tutorial's commands, as they are written, against the mock with everything on."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from authority import Authority
from processes import PATIENCE_S, REPOSITORY, mock_server

from loadstone.cli.main import VERBS

TUTORIAL = REPOSITORY / "docs" / "tutorial-real-endpoint.md"
_BLOCK = re.compile(
    r"^```sh(?P<later> later)?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
KEY = "sk-of-the-tutorial"
LIMITED = """[[tenant]]
name = "poc"
key_file = "key.txt"
rpm = 600
tpm = 500000
"""


@dataclass
class Step:
    """A block of the tutorial that was run."""

    text: str
    code: int
    out: str


def blocks() -> list[str]:
    """Return the blocks of commands, but for verbs that there are not."""
    found = []
    for match in _BLOCK.finditer(TUTORIAL.read_text(encoding="utf-8")):
        verbs = set(re.findall(r"^loadstone (\w+)", match["text"], re.MULTILINE))
        missing = verbs - set(VERBS)
        assert not missing or match["later"], missing
        if not missing:
            found.append(match["text"])
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Step]]:
    """Run them in order, in one folder."""
    home = tmp_path_factory.mktemp("tutorial")
    authority = Authority(home)
    authority.server("127.0.0.1")
    (home / "key.txt").write_text(KEY + "\n")
    (home / "tenants.toml").write_text(LIMITED)
    pair = str(home / "127.0.0.1.pem")
    bin_folder = str(Path(sys.executable).parent)
    steps = []
    with mock_server(
        "--tenants", str(home / "tenants.toml"),
        "--ssl-certfile", pair, "--ssl-keyfile", pair,
    ) as url:  # fmt: skip
        environ = dict(os.environ) | {
            "PATH": bin_folder + os.pathsep + os.environ["PATH"],
            "LLM_URL": url, "LLM_KEY": KEY,
        }  # fmt: skip
        for text in blocks():
            if text.startswith("export "):
                assert re.findall(r"export (\w+)=", text) == ["LLM_URL", "LLM_KEY"]
                continue
            ended = subprocess.run(
                ["bash", "-c", text], cwd=home, env=environ, capture_output=True,
                text=True, timeout=PATIENCE_S, check=False,
            )  # fmt: skip
            steps.append(Step(text, ended.returncode, ended.stdout + ended.stderr))
    return home, steps


def test_every_command_does_what_is_said(done: tuple[Path, list[Step]]) -> None:
    """Exit code 0; runs as short as these have too few answers, and say so."""
    _, steps = done
    assert len(steps) >= 6
    for step in steps:
        allowed = (0, 4) if " --out runs" in step.text else (0,)
        assert step.code in allowed, step.text + step.out
        assert KEY not in step.out


def test_what_they_leave(done: tuple[Path, list[Step]]) -> None:
    """A check, runs with the server's metrics and a budget, and an agreement."""
    home, _ = done
    checked = json.loads((home / "check.json").read_text())
    assert "error" not in checked
    assert [c["name"] for c in checked["checks"]][:2] == ["connection", "answer"]
    assert "limits" in [c["name"] for c in checked["checks"]]
    summaries = [
        json.loads(path.read_text())
        for path in sorted((home / "runs").glob("2*/summary.json"))
    ]
    first, second = summaries
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
