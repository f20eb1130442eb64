"""Runs of the verbs in this process."""

from pathlib import Path

import pytest
from simulated import Ran, Simulate

from loadstone.cli.main import main


@pytest.fixture
def simulate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Simulate:
    """Return a function that runs the verb, its folders below a temporary one."""

    def run(*args: str, json: bool = True) -> Ran:
        out = tmp_path / "runs"
        given = ["simulate", *args, "--out", str(out), *(["--json"] if json else [])]
        with pytest.raises(SystemExit) as left:
            main(given)
        said = capsys.readouterr()
        return Ran(
            int(left.value.code or 0), said.out, said.err, (out / "latest").resolve()
        )

    return run
