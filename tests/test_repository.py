"""Facts about the tree: what it holds, what the wheel holds, what the locks hold."""

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from loadstone import __version__

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


def build(target: str, out: Path, tree: Path = ROOT) -> Path:
    """Build the wheel or the source archive of a tree, as a release would."""
    command = f"-m hatchling build -t {target} -d {out}".split()
    subprocess.run(
        [sys.executable, *command], cwd=tree, check=True, capture_output=True
    )
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this tree."""
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel(built: Path) -> set[str]:
    """Return the names in the wheel."""
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
    # Who imports them is checked against their types (PEP 561).
    assert {f"{name}/py.typed" for name in PACKAGES} <= wheel
    assert {name for name in wheel if name.split("/")[0] in PACKAGES} == inside


def contents(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel."""
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_source_archive_makes_the_same_wheel(built: Path, tmp_path: Path) -> None:
    """Whoever builds from it gets what we ship; tests and docs come along."""
    packed = build("sdist", tmp_path / "sdist")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (p for p in tmp_path.iterdir() if p.name != "sdist")
    for name in (
        "SECURITY.md",
        "tests/test_repository.py",
        "docs/design.md",
        "Makefile",
        ".ci/run",
    ):
        assert (source / name).read_bytes() == (ROOT / name).read_bytes()
    assert not list(source.rglob("secrets"))
    assert not list(source.rglob("*.zip"))
    again = build("wheel", tmp_path / "wheel", source)
    assert contents(again) == contents(built)


def test_metadata_are_well_formed(built: Path) -> None:
    """An index takes them: each field is valid, and the README is their text."""
    (text,) = (v for k, v in contents(built).items() if k.endswith("/METADATA"))
    told = Metadata.from_email(text, validate=True)
    assert told.version == Version(__version__)
    assert told.license_expression == "Apache-2.0"
    assert told.requires_python == SpecifierSet(CONFIG["project"]["requires-python"])
    assert told.description_content_type == "text/markdown"
    assert told.description
    assert told.description.strip() == (ROOT / "README.md").read_text().strip()


def test_what_is_shipped_is_tested() -> None:
    """`make test WHEEL=1` imports the installed wheel, and so do child processes."""
    if not os.environ.get("WHEEL"):
        pytest.skip("these are tests of the tree: WHEEL=1 was not given")
    asked = "import {0}; print({0}.__file__)"
    for name in PACKAGES:
        command = [sys.executable, "-c", asked.format(name)]
        told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        for found in (import_module(name).__file__, told.stdout.decode()):
            assert found
            assert not found.startswith(f"{ROOT}/{name}"), found


def starts_python(node: ast.AST) -> bool:
    """Whether a node is a command that begins with this very Python."""
    return (
        isinstance(node, ast.List | ast.Tuple)
        and bool(node.elts)
        and ast.unparse(node.elts[0]) == "sys.executable"
    )


def test_children_take_no_module_from_the_folder_they_start_in() -> None:
    """Every command that starts Python says -P: a folder may hold a `json.py`."""
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno}": ast.unparse(node)
        for name in PACKAGES
        for path in (ROOT / name).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if starts_python(node)
    }
    assert len(found) >= 6
    safe = {where for where, command in found.items() if "'-P'" in command}
    assert set(found) == safe
