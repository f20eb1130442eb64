"""Facts about the tree: what it holds, what the wheel holds, what the locks hold."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = CONFIG["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
RUNTIME, DEV = "requirements.lock", "requirements-dev.lock"

LONGEST_MODULE = 600
# Where people keep homes and checkouts: a path that starts so is of one machine.
HOMES = ("home", "root", "Users", "work")
MACHINE_PATH = re.compile(rf"(?<![\w.:/-])/(?:{'|'.join(HOMES)})/")
SCRATCH = {"__pycache__", "build", "dist", "runs"}


def tree() -> Iterator[Path]:
    """Yield the files that belong to the tree: no environment, cache, run or build."""
    for folder, names, files in os.walk(ROOT):
        names[:] = {n for n in names if n[0] != "." or n == ".ci"} - SCRATCH
        yield from (Path(folder, name) for name in files)


def pins(lock: str) -> dict[str, Requirement]:
    """Return what a lock pins, by name."""
    lines = (ROOT / lock).read_text().replace("\\\n", " ").splitlines()
    bare = (line.split(" --hash")[0] for line in lines if line and line[0] not in " #")
    return {canonicalize_name(r.name): r for r in map(Requirement, bare)}


def required(*groups: str) -> list[Requirement]:
    """Return what pyproject asks for at run time and in dependency groups."""
    asked = list(CONFIG["project"]["dependencies"])
    for group in groups:
        asked += [r for r in CONFIG["dependency-groups"][group] if isinstance(r, str)]
    return [Requirement(text) for text in asked]


@pytest.mark.parametrize(
    ("lock", "groups"), [(RUNTIME, ("build",)), (DEV, ("build", "dev"))]
)
def test_lock_satisfies_pyproject(lock: str, groups: tuple[str, ...]) -> None:
    """Each requirement is pinned to a version that it allows; else `make lock`."""
    locked = pins(lock)
    for wanted in required(*groups):
        pin = locked[canonicalize_name(wanted.name)]
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert wanted.specifier.contains(exact.version, prereleases=True), wanted
        assert pin.marker is None, f"{pin} is not for everybody"


def test_lock_of_developers_holds_that_of_users() -> None:
    """What is tested is what is shipped: the same versions in both locks."""
    dev = pins(DEV)
    assert {n: p.specifier for n, p in pins(RUNTIME).items()}.items() <= {
        n: p.specifier for n, p in dev.items()
    }.items()


@pytest.mark.parametrize("lock", [RUNTIME, DEV])
def test_lock_is_hashed_and_names_no_index(lock: str) -> None:
    """A lock says what, not from where: it works behind any mirror."""
    text = (ROOT / lock).read_text()
    assert text.count("--hash=sha256:") >= len(pins(lock))
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)


def test_build_group_is_the_build_system() -> None:
    """The locks pin the very tools that build the wheel."""
    assert CONFIG["dependency-groups"]["build"] == CONFIG["build-system"]["requires"]


def imported(module: Path) -> Iterator[str]:
    """Yield the top-level packages that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


PLUGINS = {
    ROOT / f"{name.replace('.', '/')}.py"
    for name in CONFIG["project"]["entry-points"]["pytest11"].values()
}


EXTRAS = {"azure"}
"""Import packages of optional dependencies."""


def test_what_is_imported_is_asked_for() -> None:
    """An install from the wheel alone has every package that the code imports."""
    modules = {p for name in PACKAGES for p in (ROOT / name).rglob("*.py")}
    foreign = {name for module in modules - PLUGINS for name in imported(module)}
    # A plugin is imported by pytest alone, so pytest is there.
    foreign |= {name for plugin in PLUGINS for name in imported(plugin)} - {"pytest"}
    # An extra is imported where it was asked for, and may not be installed here.
    foreign -= sys.stdlib_module_names | set(PACKAGES) | EXTRAS
    found = packages_distributions()
    # Several distributions share a namespace such as opentelemetry.
    homes = {
        name: {canonicalize_name(home) for home in found.get(name, [name])}
        for name in foreign
    }
    asked = {canonicalize_name(r.name) for r in required()}
    assert not {name for name, at in homes.items() if not at & asked}
    assert not asked - set().union(*homes.values())


def test_no_module_is_too_long() -> None:
    """A module over the limit has parts with clearer names."""
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in tree()
        if path.suffix == ".py"
    }
    assert lengths
    assert not {name: n for name, n in lengths.items() if n > LONGEST_MODULE}


def test_no_path_of_a_machine() -> None:
    """Nothing in the tree names a folder that only exists where it was written."""
    found = []
    for path in tree():
        text = path.read_bytes().decode("utf-8", "replace")
        if MACHINE_PATH.search(text) or str(ROOT) in text:
            found.append(str(path.relative_to(ROOT)))
    assert not found


def test_machine_paths_are_recognised() -> None:
    """The check above sees a home folder, and lets an address alone."""
    assert MACHINE_PATH.search(f'out = "/{HOMES[0]}/me/runs"')
    assert not MACHINE_PATH.search("https://example.com/home/paper and a/Users/x")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Build the wheel of this tree and return the names in it."""
    out = tmp_path_factory.mktemp("wheel")
    build = f"-m hatchling build -t wheel -d {out}".split()
    subprocess.run([sys.executable, *build], cwd=ROOT, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return set(ZipFile(built).namelist())


def test_wheel_holds_the_packages_and_nothing_else(wheel: set[str]) -> None:
    """An install adds our import packages to the world: no tests, no bench."""
    tops = {name.split("/")[0] for name in wheel}
    (info,) = {top for top in tops if top.endswith(".dist-info")}
    assert tops - {info} == set(PACKAGES)
    assert {f"{info}/entry_points.txt", f"{info}/licenses/LICENSE"} <= wheel


def test_wheel_holds_every_file_of_the_packages(wheel: set[str]) -> None:
    """Tables and pages travel with their package; nothing is lost on the way."""
    files = {str(path.relative_to(ROOT)) for path in tree()}
    inside = {name for name in files if name.split("/")[0] in PACKAGES}
    assert any(name.startswith("loadstone/catalog/") for name in inside)
    assert {name for name in wheel if name.split("/")[0] in PACKAGES} == inside
