"""The image: what its Dockerfile says, and its steps replayed without Docker.

No image is built here. The steps of the build stage run as they stand, in their order,
from a copy of what .dockerignore lets through, with a fresh environment of this Python
in the place of the base image.
"""

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import dockerfile
import pytest
from dockerfile import Replay, Stage, copy_context, ignored, pairs
from installed import Installed, try_the_verbs
from stack import ROOT, fetch, stack

from loadstone import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
ARGUMENTS, (BUILD, FINAL) = dockerfile.read((ROOT / "Dockerfile").read_text())
PREFIX = "/opt/loadstone"
PATIENCE_S = 60

# Installing takes 20 s from pip's cache; the first time there is none.
pytestmark = pytest.mark.timeout(300)


def only_for_the_build() -> set[str]:
    """Return the lock's packages that nothing but the build tools needs."""
    names, current = set(), ""
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if found := re.match(r"([a-z0-9-]+)==", line):
            current = found[1]
        elif found := re.match(r"\s+# via (.*)", line):
            why = {w.strip() for w in found[1].split(",")}
            why = {w for w in why if not w.startswith("-c ")}
            if why <= {"hatchling", "loadstone (pyproject.toml:build)"}:
                names.add(current)
    return names


def test_base_image_is_pinned_once() -> None:
    """Both stages are of one slim Python that the package supports."""
    assert {BUILD.base, FINAL.base} == {"${PYTHON_IMAGE}"}
    found = re.fullmatch(
        r"python:(3\.\d+)(\.\d+)?-slim(-[a-z]+)?(@sha256:\w{64})?",
        ARGUMENTS["PYTHON_IMAGE"],
    )
    assert found
    assert (
        f"Programming Language :: Python :: {found[1]}"
        in (PROJECT["project"]["classifiers"])
    )


def test_final_image_runs_as_nobody_special() -> None:
    """Its user is a number other than 0, and it starts `loadstone`."""
    assert FINAL.values("USER") == ["10001:10001"]
    assert FINAL.values("ENTRYPOINT") == ['["loadstone"]']
    assert FINAL.values("COPY") == [f"--from=build {PREFIX} {PREFIX}"]
    assert f"{PREFIX}/bin" in pairs(FINAL.values("ENV")[0])["PATH"].split(":")
    for user in (s["user"] for n, s in stack()["services"].items() if "locust" in n):
        assert user == FINAL.values("USER")[0]


def test_no_tool_of_the_build_is_in_the_final_image() -> None:
    """What only builds goes, of the lock, and pip goes from both stages."""
    removed = set()
    for step in BUILD.values("RUN"):
        for found in re.findall(r"pip uninstall --yes ([^&]*)", step):
            removed |= set(found.split())
    assert only_for_the_build() >= {"hatchling", "trove-classifiers"}
    assert removed == only_for_the_build() | {"pip"}
    assert any("pip uninstall" in step for step in FINAL.values("RUN"))
    assert not any("apt-get" in step for step in FINAL.values("RUN"))


def test_nothing_unpinned_is_installed() -> None:
    """From the lock with its hashes, or without an index from what is there."""
    for step in BUILD.values("RUN"):
        for command in step.split("&&"):
            if re.search(r"pip (install|wheel)", command):
                assert "--no-deps" in command
                pinned = (
                    "--require-hashes" in command and "requirements.lock" in command
                )
                assert pinned or "--no-index" in command


def test_every_package_is_copied() -> None:
    """The wheel in the image has what the wheel anywhere has."""
    copied = {name for step in BUILD.values("COPY") for name in step.split()[:-1]}
    assert set(PACKAGES) <= copied


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("loadstone/cli/main.py", False),
        ("requirements.lock", False),
        ("loadstone/__pycache__/units.cpython-313.pyc", True),
        ("loadgen/old.pyc", True),
        ("deploy/secrets/api_key", True),
        ("runs/latest/requests.jsonl", True),
        (".env", True),
        ("tests/conftest.py", True),
        ("requirements-dev.lock", True),
    ],
)
def test_what_the_build_is_sent(path: str, *, out: bool) -> None:
    """Code and locks; no secrets, runs, tests or caches."""
    assert ignored(path, (ROOT / ".dockerignore").read_text().split("\n")[1:]) is out


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Replay the build stage; return the folder that stands for the image's root."""
    folder = tmp_path_factory.mktemp("image")
    root, context, python = (folder / name for name in ("root", "context", "python"))
    root.mkdir()
    sent = copy_context(ROOT, context)
    assert {name.split("/")[0] for name in sent} == {
        *PACKAGES, "requirements.lock", "pyproject.toml", "README.md", "LICENSE",
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", "venv", python], check=True)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environ["PATH"] = f"{python}/bin:{environ['PATH']}"
    # pip's cache is left on: it is for those who do this again and again.
    replay = Replay(root, context, environ, skip=("PIP_NO_CACHE_DIR",))
    try:
        replay.run(BUILD)
    except subprocess.CalledProcessError as failed:
        pytest.fail(f"{failed.cmd[-1]}\n{failed.stdout}\n{failed.stderr}")
    return root


def in_image(root: Path, stage: Stage = FINAL) -> dict[str, str]:
    """Return the environment of a container, as far as the image sets it."""
    environ = {"HOME": str(root)}
    for step in stage.values("ENV"):
        environ |= pairs(step)
    environ["PATH"] = f"{root}{PREFIX}/bin:/usr/bin:/bin"
    return environ


def test_the_installed_command_runs(root: Path, tmp_path: Path) -> None:
    """`loadstone` starts from the installed wheel, away from the tree."""
    done = subprocess.run(
        ["loadstone", "--version"],
        cwd=tmp_path,
        env=in_image(root),
        executable=f"{root}{PREFIX}/bin/loadstone",
        capture_output=True,
        text=True,
        check=True,
    )
    assert __version__ in done.stdout


def test_the_installed_mock_serves(root: Path, tmp_path: Path) -> None:
    """It listens, says that it is well, and ends when told to."""
    process = subprocess.Popen(
        [f"{root}{PREFIX}/bin/loadstone", "serve", "--port", "0", "--grace", "1s"],
        cwd=tmp_path,
        env=in_image(root),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        url = next(s for s in process.stderr if "listening on " in s).split()[-1]
        assert fetch(f"{url}/health")[0] == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_the_installed_locust_finds_its_file(root: Path, tmp_path: Path) -> None:
    """Locust loads the file that the stack names, and finds its user."""
    environment = stack()["services"]["locust-master"]["environment"]
    file = environment["LOCUST_LOCUSTFILE"]
    done = subprocess.run(
        [f"{root}{PREFIX}/bin/locust", "-f", f"{root}{file}", "--list"],
        cwd=tmp_path,
        env=in_image(root),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "LoadUser" in done.stdout + done.stderr


def test_the_installed_environment_is_whole_and_bare(
    root: Path, tmp_path: Path
) -> None:
    """Each requirement is met at its version, and nothing that builds is left."""
    python = f"{root}{PREFIX}/bin/python"
    check = [sys.executable, "-m", "pip", "--python", python, "check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    asked = (
        "from importlib.util import find_spec as find;"
        "print(*(n for n in ('pip', 'hatchling', 'trove_classifiers') if find(n)));"
        "print(find('loadstone').origin)"
    )
    told = subprocess.run(
        [python, "-c", asked],
        cwd=tmp_path,
        env=in_image(root),
        capture_output=True,
        text=True,
        check=True,
    )
    left, home = told.stdout.splitlines()
    assert left == ""
    assert home.startswith(f"{root}{PREFIX}/lib/")


@pytest.mark.timeout(240)
def test_the_installed_verbs_work(root: Path, tmp_path: Path) -> None:
    """Demo, serve, run, simulate, report, verify and audit, with only the wheel."""
    try_the_verbs(Installed(Path(f"{root}{PREFIX}/bin"), tmp_path / "elsewhere"))
