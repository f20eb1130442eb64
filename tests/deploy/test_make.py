"""`make up` and `make secrets`: plain words where something is missing, safe files."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from stack import ROOT, settings

PASSWORDS = ("grafana_admin_password", "locust_password")
TOOLS = ("sh", "make", "mkdir", "od", "tr", "sed", "cat")

# What a docker on the PATH answers, and what `make up` must then say.
DOCKERS = {
    None: "No docker here",
    "exit 1": "not its Compose plugin",
    '[ "$1" = compose ]': "its engine does not answer",
}
WORKS = 'echo "docker $* sampled=$OTEL_TRACES_SAMPLER_ARG" >>"{log}"'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a tree with what `make up` reads, and a PATH with few programs."""
    for name in ("Makefile", ".env", "docker-compose.yml"):
        shutil.copy2(ROOT / name, tmp_path)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "bin").mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found, name
        (tmp_path / "bin" / name).symlink_to(found)
    return tmp_path


def make(tree: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run make in a tree with its own PATH."""
    return subprocess.run(
        [tree / "bin/make", *args],
        cwd=tree,
        env={"PATH": str(tree / "bin"), "HOME": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )


def install_docker(tree: Path, script: str) -> None:
    """Put a program called docker on the tree's PATH."""
    docker = tree / "bin/docker"
    docker.write_text(f"#!/bin/sh\n{script}\n")
    docker.chmod(0o755)


@pytest.mark.parametrize("goal", ["up", "down"])
@pytest.mark.parametrize(("script", "told"), DOCKERS.items(), ids=DOCKERS.values())
def test_what_is_missing_is_told(
    tree: Path, script: str | None, told: str, goal: str
) -> None:
    """Without docker, its plugin or its engine: one sentence, and nothing is made."""
    if script:
        install_docker(tree, script)
    done = make(tree, goal)
    assert done.returncode != 0
    assert told in done.stderr
    assert not (tree / "deploy/secrets").exists()


@pytest.mark.parametrize(
    ("args", "profile", "sampled"),
    [((), "", ""), (("TRACING=1",), "--profile tracing ", "0.1")],
    ids=["", "tracing"],
)
def test_up_builds_starts_and_tells_where(
    tree: Path, args: tuple[str, ...], profile: str, sampled: str
) -> None:
    """One build, then all of it, waited for; and where to look."""
    log = tree / "docker.log"
    install_docker(tree, WORKS.format(log=log))
    done = make(tree, "up", *args)
    assert done.returncode == 0, done.stderr
    assert log.read_text().splitlines()[-2:] == [
        f"docker compose {profile}build mock sampled={sampled}",
        f"docker compose {profile}up --detach --wait sampled={sampled}",
    ]
    ports = settings(ROOT / ".env")
    assert f"127.0.0.1:{ports['LOCUST_PORT']}" in done.stdout
    assert f"127.0.0.1:{ports['GRAFANA_PORT']}" in done.stdout
    for name in PASSWORDS:
        assert f"password in deploy/secrets/{name}" in done.stdout
        password = (tree / "deploy/secrets" / name).read_text()
        assert password not in done.stdout + done.stderr


def test_secrets_are_made_once_and_kept_in(tree: Path) -> None:
    """Random passwords, an empty key; only the owner gets into their folder."""
    assert make(tree, "secrets").returncode == 0
    folder = tree / "deploy/secrets"
    files = [folder / name for name in (*PASSWORDS, "api_key")]
    assert sorted(folder.iterdir()) == sorted(files)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # Containers read them as users of their own.
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o644}
    before = [file.read_text() for file in files]
    assert [len(text) for text in before] == [36, 36, 0]
    assert before[0] != before[1]
    files[-1].write_text("sk-made-up")
    assert make(tree, "secrets").returncode == 0
    assert [file.read_text() for file in files] == [*before[:-1], "sk-made-up"]
    shutil.rmtree(folder)
    assert make(tree, "secrets").returncode == 0
    assert not set(before[:-1]) & {file.read_text() for file in files}


def test_nothing_secret_is_in_the_tree() -> None:
    """What `make secrets` makes here is not for git."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    done = subprocess.run(
        ["git", "check-ignore", "deploy/secrets/api_key"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0
