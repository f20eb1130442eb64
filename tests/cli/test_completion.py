"""`loadstone completion`, as a shell uses it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import PATIENCE_S, loadstone

from loadstone.catalog.models import model_names
from loadstone.catalog.plans import plan_names
from loadstone.catalog.presets import preset_names
from loadstone.catalog.tariffs import price_names
from loadstone.cli.completion import SHELLS
from loadstone.cli.main import VERBS

BIN = str(Path(sys.executable).parent)
_BASH = """
PATH={bin}:$PATH
source <(loadstone completion bash)
COMP_WORDS=({words} {begun})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
"$(complete -p loadstone | sed 's/.*-F \\([^ ]*\\).*/\\1/')" loadstone 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def run(shell: str, script: str, home: Path) -> list[str]:
    """Run a script in a shell that has nothing of the user's; return its lines."""
    quiet = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    ended = subprocess.run(
        [shell, *quiet, "-c", script], cwd=home, capture_output=True, text=True,
        timeout=PATIENCE_S, check=False,
        env={"HOME": str(home), "PATH": f"{BIN}:/usr/bin:/bin"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return [line for line in ended.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "begun", "expected"),
    [
        ("loadstone", "si", ["simulate"]),
        ("loadstone", "''", list(VERBS)),
        ("loadstone plan", "sh", ["show"]),
        ("loadstone run", "noisy", ["noisy-neighbour"]),
        ("loadstone plan show", "''", plan_names()),
        ("loadstone serve --preset", "azure", [
            name for name in preset_names() if name.startswith("azure")
        ]),
        ("loadstone serve --model", "''", model_names()),
        ("loadstone run chat --prices", "''", price_names()),
        ("loadstone run chat --api", "re", ["responses"]),
        ("loadstone run chat", "--find", ["--find-max"]),
        ("loadstone completion", "f", ["fish"]),
    ],
)  # fmt: skip
def test_bash_completes(
    tmp_path: Path, words: str, begun: str, expected: list[str]
) -> None:
    """Verbs, options, and values where there is a choice."""
    script = _BASH.format(bin=BIN, words=words, begun=begun)
    assert sorted(run("bash", script, tmp_path)) == sorted(expected)


def test_bash_is_left_the_files(tmp_path: Path) -> None:
    """Where a file is wanted, or no name fits, the shell completes its own."""
    for words, begun in (("loadstone run", "./m"), ("loadstone run chat --slo", "m")):
        script = _BASH.format(bin=BIN, words=words, begun=begun)
        assert run("bash", script, tmp_path) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_can_read_its_script(shell: str, tmp_path: Path) -> None:
    """Where the shell is here; elsewhere it is a script for loadstone all the same."""
    ended = loadstone("completion", shell)
    assert ended.returncode == 0, ended.stderr
    assert f"_LOADSTONE_COMPLETE={shell}_complete" in ended.stdout
    if shutil.which(shell) is not None:
        path = tmp_path / "script"
        path.write_text(ended.stdout)
        checked = subprocess.run(
            [shell, "-n", str(path)], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr
