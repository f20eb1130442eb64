"""Run folders to report on, made once."""

from pathlib import Path

import pytest

from loadstone.cli.main import main

SLO = """
[[slo]]
metric = "ttft_intended_s"
stat = "p99"
max_s = 60.0
[[slo]]
metric = "tpot_s"
stat = "p99"
max_s = 0.0001
"""


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run in virtual time: one objective met, one missed."""
    home = tmp_path_factory.mktemp("report")
    (home / "slo.toml").write_text(SLO)
    with pytest.raises(SystemExit):
        main([
            "simulate", "--vms", "1", "--rate", "30", "--duration", "20s",
            "--warmup", "2s", "--slo", str(home / "slo.toml"), "--json",
            "--out", str(home / "runs"),
        ])  # fmt: skip
    return (home / "runs" / "latest").resolve()
