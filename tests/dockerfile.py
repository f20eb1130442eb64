"""Enough of Dockerfiles to replay one without Docker: its steps, in order, in a folder.

The folder stands for the image's root: `/opt/x` in a step is `<folder>/opt/x` here.
What takes an engine (the base image, users) is not replayed.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

Instruction = tuple[str, str]


@dataclass(frozen=True)
class Stage:
    """One `FROM` and what follows it."""

    base: str
    name: str
    steps: tuple[Instruction, ...]

    def values(self, word: str) -> list[str]:
        """Return the arguments of each instruction of this kind."""
        return [rest for kind, rest in self.steps if kind == word]


def instructions(text: str) -> Iterator[Instruction]:
    """Yield instructions with their arguments; comments and line ends taken out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), re.sub(r"\s+", " ", rest).strip()


def read(text: str) -> tuple[dict[str, str], list[Stage]]:
    """Return the arguments ahead of the first stage, by name, and the stages."""
    arguments: dict[str, str] = {}
    stages: list[tuple[str, list[Instruction]]] = []
    for word, rest in instructions(text):
        if word == "FROM":
            stages.append((rest, []))
        elif stages:
            stages[-1][1].append((word, rest))
        else:
            assert word == "ARG", word
            name, _, default = rest.partition("=")
            arguments[name] = default
    return arguments, [
        Stage(base=head.split()[0], name=head.partition(" AS ")[2], steps=tuple(steps))
        for head, steps in stages
    ]


def pairs(rest: str) -> dict[str, str]:
    """Return what one ENV or LABEL sets."""
    return dict(word.split("=", 1) for word in shlex.split(rest))


@dataclass
class Replay:
    """The state of a build in `root`: where its steps run, and with which variables."""

    root: Path
    context: Path
    environ: dict[str, str]
    skip: tuple[str, ...] = ()
    """Variables whose ENV is left out."""
    cwd: Path = field(init=False)

    def __post_init__(self) -> None:
        self.cwd = self.root

    def run(self, stage: Stage) -> None:
        """Do all steps of a stage; raises `CalledProcessError` where one fails."""
        for word, rest in stage.steps:
            getattr(self, f"_{word.lower()}")(rest)

    def inside(self, text: str) -> str:
        """Put the absolute paths of an image's text under `root`."""
        return re.sub(r"(?<![\w./\[\])}])/(?=[a-z])", f"{self.root}/", text)

    def _env(self, rest: str) -> None:
        for name, value in pairs(rest).items():
            if name not in self.skip:
                full = self.inside(value)
                for known in re.findall(r"\$(\w+)", value):
                    full = full.replace(f"${known}", self.environ[known])
                self.environ[name] = full

    def _workdir(self, rest: str) -> None:
        self.cwd = self.root / rest.lstrip("/")
        self.cwd.mkdir(parents=True, exist_ok=True)

    def _copy(self, rest: str) -> None:
        assert "--from" not in rest, rest
        *sources, target = rest.split()
        for source in sources:
            path, to = self.context / source, self.cwd / target
            if path.is_dir():
                shutil.copytree(path, to, dirs_exist_ok=True)
            else:
                shutil.copy2(path, to)

    def _run(self, rest: str) -> None:
        subprocess.run(
            ["/bin/sh", "-ec", self.inside(rest)],
            cwd=self.cwd,
            env=self.environ,
            check=True,
            capture_output=True,
            text=True,
        )


def ignored(path: str, patterns: Sequence[str]) -> bool:
    """Whether .dockerignore's lines leave a path out: the last that matches decides."""
    out = False
    for pattern in patterns:
        if _matches(path, pattern.removeprefix("!").strip("/")):
            out = not pattern.startswith("!")
    return out


def _matches(path: str, pattern: str) -> bool:
    """Whether a pattern names the path or a folder above it."""
    parts = PurePosixPath(path).parts
    heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    if pattern.startswith("**/"):
        rest = pattern.removeprefix("**/")
        return any(fnmatchcase(part, rest) for part in parts)
    return any(
        head.count("/") == pattern.count("/") and fnmatchcase(head, pattern)
        for head in heads
    )


def copy_context(tree: Path, target: Path) -> set[str]:
    """Copy what a build of `tree` is sent, as .dockerignore says; return the names."""
    lines = (tree / ".dockerignore").read_text().splitlines()
    patterns = [line.strip() for line in lines if line.strip() and line[0] != "#"]
    # As a folder that is left out may hold something taken in again, all are entered
    # but those that are large and certainly out.
    tops = [p for p in tree.iterdir() if p.name not in {".git", ".venv", ".tools"}]
    sent = set()
    for top in tops:
        for path in [top] if top.is_file() else top.rglob("*"):
            name = path.relative_to(tree).as_posix()
            if path.is_file() and not ignored(name, patterns):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target / name)
                sent.add(name)
    return sent
