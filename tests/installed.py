"""An installed loadstone, tried from a folder that has nothing of the checkout."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 120
TRAPS: Final = ("json", "random", "loadgen", "loadstone", "mock_server", "locust")
"""Modules that lie about where it is started. Whoever imports one of them fails."""


class Installed:
    """`loadstone` of an environment, run in `folder` with nothing in its variables."""

    def __init__(self, bin_: Path, folder: Path) -> None:
        self.bin = bin_
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start a verb; both outputs are on one pipe."""
        return subprocess.Popen(
            [self.bin / "loadstone", *args],
            cwd=self.folder,
            env={"PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ended(self, process: subprocess.Popen[str], *codes: int) -> str:
        """Wait for a verb; return what it said. Its exit code is one of `codes`."""
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode in codes, f"{process.args}\n{said}"
        return said

    def run(self, *args: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run a verb to its end."""
        return self.ended(self.start(*args), *codes)

    @contextmanager
    def mock(self) -> Iterator[str]:
        """Have `serve` listen on a free port; yields its URL."""
        process = self.start("serve", "--port", "0", "--grace", "1s")
        try:
            assert process.stdout is not None
            yield next(s for s in process.stdout if "listening on " in s).split()[-1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0

    def run_of(self, folder: str) -> Path:
        """Return the newest run below a folder."""
        return (self.folder / folder / "latest").resolve()


def try_the_verbs(installed: Installed) -> None:
    """Run demo, serve, run, simulate, report and verify, and believe what they leave.

    The folder begins empty but for traps: modules of known names that fail when they
    are imported, as no child process may take one from where it happens to start.
    """
    for name in TRAPS:
        (installed.folder / f"{name}.py").write_text(f"raise SystemExit('{name}!')\n")
    assert "Rehearse" in installed.run("--help")
    demo = installed.start("demo", "--duration", "1s", "--out", "shown")
    try:
        installed.run(
            "simulate", "mlperf", "--rate", "20", "--duration", "20s",
            "--out", "virtual",
        )  # fmt: skip
        with installed.mock() as url:
            installed.run(
                "run", "mlperf", "--host", url, "--rate", "20", "--duration", "1s",
                "--server-metrics", "auto", codes=(0, 4),
            )  # fmt: skip
        # Too short to tell, or not reproduced; but judged.
        installed.run("verify", "gb300-rack-1.1m", "virtual/latest", codes=(3, 4))
        installed.run("report", "runs/latest", "--format", "csv", "--out", "rows.csv")
        installed.run("audit", "runs/latest")
        installed.ended(demo, 0)
    finally:
        demo.kill()
    for folder in ("shown", "virtual", "runs"):
        found = installed.run_of(folder)
        requests = json.loads((found / "summary.json").read_text())["requests"]
        assert requests["ok"] == requests["sent"] > 0, folder
        assert b"<html" in (found / "report.html").read_bytes()
    rows = (installed.folder / "rows.csv").read_text().splitlines()
    assert len(rows) == requests["sent"] + 1
