"""Evidence: a run in one archive, every change to which is detected and named.

The archive holds `<run>/<file>` for a fixed list of names, and `<run>/manifest.json`
with the SHA-256 of each. The manifest's own SHA-256 is what a contract quotes: whoever
has that number and the archive can tell whether they belong together, and make the
report anew. It says that nothing was changed since, not by whom it was made: that takes
a signature over the same number, by whatever tool both sides trust.

The same run gives the same bytes: names are sorted, times fixed. An archive is hostile
input: names are checked against the list, sizes bounded, and nothing is ever unpacked
by the name that the archive gives.
"""

import hashlib
import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final

from .. import __version__
from ..errors import LoadstoneError, UsageError
from ..runs import (
    ENVIRONMENT,
    METRICS,
    PLAN,
    SERVER_COUNTS,
    SERVER_METRICS,
    SUMMARY,
    SWEEP,
    RunFiles,
)
from .document import gather
from .html import page
from .written import REPORT, rendered

MANIFEST: Final = "manifest.json"
FORMAT: Final = 1
NAMES: Final = (
    PLAN, ENVIRONMENT, SUMMARY, METRICS, SERVER_METRICS, SERVER_COUNTS,
    "agreement.json", REPORT,
)  # fmt: skip
"""What goes in, if it is there; and of each worker the rows and the last sign of life.
Logs do not: nobody knows what they say."""
_BY_WORKER: Final = re.compile(r"(requests(\.\d{1,6})?\.jsonl|alive(\.\d{1,6})?\.json)")
_RUN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_MOST_FILES: Final = 4096
_MOST_BYTES: Final = 64 << 20
_MOST_RATIO: Final = 100
"""A bundle may unpack to so many bytes, or to so many times its own size: rows shrink
to a tenth."""
_MOST_MANIFEST: Final = 4 << 20
_CHUNK: Final = 1 << 20
_PLAIN_FILE: Final = (0, 0o10)
"""Kinds of file, as Unix has them: not said, and regular. A link is neither."""
_ENCRYPTED: Final = 1
"""The flag of a member that needs a password."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The first instant that an archive can name, for every file in it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which a bundle is not what its manifest says."""

    what: str
    """`changed`, `missing`, `added`, or `report`: it does not follow from the rows."""
    name: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What a bundle holds, and what is wrong with it: nothing, for a sound one."""

    run: str
    manifest_sha256: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    """What could not be checked, and why."""


def pack(run: RunFiles, path: Path) -> str:
    """Write a run's bundle; return its manifest's SHA-256.

    The report is made anew, so that it is this run's. Raises `UsageError` for a run
    whose name cannot stand in an archive, `LoadstoneError` if it cannot be written.
    """
    if not _RUN.fullmatch(run.name):
        raise UsageError(
            f"{run.name!r} cannot be the name of a bundle",
            hint="name the run's folder with letters, digits, dots and dashes",
        )
    if (run.path / SWEEP).exists():
        raise UsageError(
            f"{run.path} is a sweep, not a run",
            hint="give the folder of one of its runs",
        )
    part = path.with_name(path.name + ".part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            files = dict(_added(archive, run))
            manifest = _manifest(run, files)
            _write(archive, f"{run.name}/{MANIFEST}", [manifest])
        part.replace(path)
    except OSError as failed:
        raise LoadstoneError(
            f"cannot write {path}: {failed.strerror}", hint="choose another --out"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return hashlib.sha256(manifest).hexdigest()


def _added(
    archive: zipfile.ZipFile, run: RunFiles
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Add every file of the run that belongs in; yield name, size and hash.

    A killed run's summary is made here, where its plan can be drawn again.
    """
    document = gather(run)
    made = {
        REPORT: page(document),
        SUMMARY: (json.dumps(document.summary, indent=2) + "\n").encode(),
    }
    for name in sorted({*_names(run.path), *made}):
        if name == REPORT or not (run.path / name).exists():
            yield name, _write(archive, f"{run.name}/{name}", [made[name]])
        else:
            with (run.path / name).open("rb") as file:
                yield name, _write(archive, f"{run.name}/{name}", _chunks(file))


def _names(folder: Path) -> Iterator[str]:
    """Yield what of a run belongs in. A link is not followed."""
    for path in folder.iterdir():
        if _belongs(path.name) and path.is_file() and not path.is_symlink():
            yield path.name


def _belongs(name: str) -> bool:
    return name in NAMES or _BY_WORKER.fullmatch(name) is not None


def _write(archive: zipfile.ZipFile, name: str, pieces: Any) -> dict[str, Any]:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    digest, size = hashlib.sha256(), 0
    with archive.open(info, "w", force_zip64=True) as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _manifest(run: RunFiles, files: Mapping[str, Any]) -> bytes:
    content = {
        "format": FORMAT,
        "run": run.name,
        "loadstone": __version__,
        "plan_hash": run.plan().get("plan_hash"),
        "files": files,
    }
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


# ----------------------------------------------------------------------- reading again


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[RunFiles, Checked]]:
    """Unpack a bundle for a `with` block; yields its run and what is wrong with it.

    Raises `UsageError` for what is not a bundle, or one that no `pack` made.
    """
    with TemporaryDirectory(prefix="loadstone-bundle-") as scratch:
        try:
            with zipfile.ZipFile(path) as archive:
                members = _members(archive, path)
                manifest = _read_manifest(archive, members, path)
                folder = Path(scratch) / manifest["run"]
                folder.mkdir()
                found = {
                    name: _extract(archive, info, folder / name)
                    for name, info in members.items()
                    if name != MANIFEST
                }
                raw = archive.read(members[MANIFEST])
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as wrong:
            raise UsageError(f"cannot read {path} as a bundle: {wrong}") from None
        run = RunFiles.open(folder)
        findings = list(_differences(manifest["files"], found))
        notes = []
        if manifest["loadstone"] != __version__:
            notes.append(
                f"the report was made by loadstone {manifest['loadstone']} and this is"
                f" {__version__}: that it follows from the rows was not checked"
            )
        elif not findings and not _same_report(run):
            findings.append(Finding("report", REPORT))
        yield (
            run,
            Checked(
                run.name, hashlib.sha256(raw).hexdigest(), tuple(findings), tuple(notes)
            ),
        )


def check(path: Path) -> Checked:
    """Say whether a bundle is as it was made; see `unpacked`."""
    with unpacked(path) as (_, checked):
        return checked


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the archive's files by their plain names; refuse all that is not ours.

    The directory of an archive says of each file what it will unpack to, and reading
    never gives more than that.
    """
    infos = archive.infolist()
    runs = {info.filename.split("/")[0] for info in infos}
    if len(runs) != 1 or not _RUN.fullmatch(next(iter(runs))):
        raise UsageError(f"{path} is not a bundle: it is not of one run")
    unpacked_size = sum(info.file_size for info in infos)
    most = max(_MOST_BYTES, _MOST_RATIO * path.stat().st_size)
    if len(infos) > _MOST_FILES or unpacked_size > most:
        raise UsageError(f"{path}: too large to be a bundle")
    members = {}
    for info in infos:
        _, _, name = info.filename.partition("/")
        plain = (
            info.external_attr >> 28 in _PLAIN_FILE
            and info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            and not info.flag_bits & _ENCRYPTED
        )
        if not plain or not (_belongs(name) or name == MANIFEST):
            raise UsageError(
                f"{path}: {_printable(info.filename)} has no place in a bundle"
            )
        if name in members:
            raise UsageError(f"{path}: {name} is in it twice")
        members[name] = info
    for needed in (MANIFEST, PLAN):
        if needed not in members:
            raise UsageError(f"{path} is not a bundle: no {needed} in it")
    return members


def _printable(name: str) -> str:
    return name.encode("unicode_escape").decode()[:200]


def _read_manifest(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], path: Path
) -> dict[str, Any]:
    if members[MANIFEST].file_size > _MOST_MANIFEST:
        raise UsageError(f"{path}: its manifest is too large")
    try:
        manifest = json.loads(archive.read(members[MANIFEST]))
        sound = (
            manifest["format"] == FORMAT
            and manifest["run"] == members[MANIFEST].filename.split("/")[0]
            and isinstance(manifest["loadstone"], str)
            and all(_belongs(name) for name in manifest["files"])
            and all(set(f) == {"bytes", "sha256"} for f in manifest["files"].values())
        )
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise UsageError(f"{path}: its manifest cannot be read: {wrong}") from None
    if not sound:
        raise UsageError(f"{path}: its manifest is not one that loadstone wrote")
    assert isinstance(manifest, dict)
    return manifest


def _extract(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path
) -> dict[str, Any]:
    """Unpack one file to a path of ours; return its size and hash.

    One that does not unpack was changed: it is left as far as it came.
    """
    with (
        path.open("xb") as file,
        suppress(zipfile.BadZipFile, zlib.error, EOFError),
        archive.open(info) as packed,
    ):
        shutil.copyfileobj(packed, file, _CHUNK)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _differences(
    said: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[Finding]:
    for name in sorted({*said, *found}):
        if name not in found:
            yield Finding("missing", name)
        elif name not in said:
            yield Finding("added", name)
        elif said[name] != found[name]:
            yield Finding("changed", name)


def _same_report(run: RunFiles) -> bool:
    """Whether the report that lies there is what its rows give."""
    kept = (run.path / REPORT).read_bytes()
    return kept == b"".join(rendered(run, "html"))
