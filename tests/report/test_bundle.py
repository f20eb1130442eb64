"""Evidence: the same bytes each time, every change named, nothing hostile unpacked."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from run_folders import made_up

from loadstone.cli.main import main
from loadstone.errors import UsageError
from loadstone.report.bundle import Finding, check, pack, unpacked
from loadstone.report.written import rendered
from loadstone.runs import RunFiles


@pytest.fixture(scope="module")
def bundle(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run's bundle."""
    path = tmp_path_factory.mktemp("bundle") / "evidence.zip"
    pack(RunFiles.open(run_folder), path)
    return path


Files = dict[str, bytes]


def rewritten(bundle: Path, to: Path, change: Callable[[Files], object]) -> Path:
    """Write the bundle again with its files changed; names are within the run."""
    with zipfile.ZipFile(bundle) as archive:
        run = archive.namelist()[0].split("/")[0]
        files = {i.filename.split("/")[1]: archive.read(i) for i in archive.infolist()}
    change(files)
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{run}/{name}", content)
    return to


def test_the_same_run_gives_the_same_bytes(
    bundle: Path, run_folder: Path, tmp_path: Path
) -> None:
    """Also from a copy with other times, reached by a link; what is no part is left."""
    copy = tmp_path / run_folder.name
    shutil.copytree(run_folder, copy)
    for path in copy.iterdir():
        path.touch()
    (copy / "locust.log").write_text("who knows")
    (copy / "key.pem").write_text("secret")
    (tmp_path / "latest").symlink_to(copy.name)
    pack(RunFiles.open(tmp_path / "latest"), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()


def test_a_sound_bundle_gives_the_same_report(bundle: Path, run_folder: Path) -> None:
    """Byte for byte, in each format, by whoever has nothing but the archive."""
    with unpacked(bundle) as (run, checked):
        assert checked.findings == ()
        assert checked.notes == ()
        for form in ("html", "json", "md", "csv"):
            here = b"".join(rendered(RunFiles.open(run_folder), form))
            assert b"".join(rendered(run, form)) == here


def test_a_killed_run_takes_its_summary_along(run_folder: Path, tmp_path: Path) -> None:
    """It is made where the plan can be drawn; elsewhere the report is the same."""
    copy = made_up(Path(shutil.copytree(run_folder, tmp_path / "killed")))
    (copy / "summary.json").unlink()
    (copy / "alive.json").write_text('{"rank": 0, "at_s": 9.0, "closed": false}')
    pack(RunFiles.open(copy), tmp_path / "killed.zip")
    with unpacked(tmp_path / "killed.zip") as (run, checked):
        assert checked.findings == ()
        assert (run.summary() or {})["complete"] is False
        assert run.pulses()
        made = b"".join(rendered(run, "html"))
    assert made == b"".join(rendered(RunFiles.open(copy), "html"))


def edit(name: str) -> Callable[[Files], object]:
    """Return a change of one byte of one file, which leaves its size."""

    def change(files: Files) -> None:
        content = bytearray(files[name])
        content[len(content) // 2] ^= 1
        files[name] = bytes(content)

    return change


NAMES = (
    "plan.toml",
    "environment.json",
    "requests.jsonl",
    "summary.json",
    "report.html",
)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        *((edit(name), Finding("changed", name)) for name in NAMES),
        (lambda files: files.pop("environment.json"),
         Finding("missing", "environment.json")),
        (lambda files: files.update({"requests.7.jsonl": b"{}\n"}),
         Finding("added", "requests.7.jsonl")),
    ],
)  # fmt: skip
def test_every_change_is_named(
    bundle: Path, tmp_path: Path, change: Callable[[Files], object], finding: Finding
) -> None:
    """One byte of any file, one file less, one more."""
    spoilt = rewritten(bundle, tmp_path / "spoilt.zip", change)
    assert check(spoilt).findings == (finding,)


def test_a_flipped_bit_of_the_archive_is_a_change(bundle: Path, tmp_path: Path) -> None:
    """Where the packed rows do not unpack, they are named as changed."""
    content = bytearray(bundle.read_bytes())
    with zipfile.ZipFile(bundle) as archive:
        (rows,) = (
            i for i in archive.infolist() if i.filename.endswith("requests.jsonl")
        )
    content[rows.header_offset + rows.compress_size // 2] ^= 0xFF
    (tmp_path / "spoilt.zip").write_bytes(content)
    found = check(tmp_path / "spoilt.zip").findings
    assert found == (Finding("changed", "requests.jsonl"),)


def test_rows_and_manifest_changed_together_need_the_quoted_hash(
    bundle: Path, tmp_path: Path
) -> None:
    """Then the report does not follow; and the manifest is not the one quoted."""

    def forge(files: Files) -> None:
        lines = files["requests.jsonl"].splitlines(keepends=True)
        files["requests.jsonl"] = b"".join(lines[:-1])
        manifest = json.loads(files["manifest.json"])
        manifest["files"]["requests.jsonl"] = {
            "bytes": len(files["requests.jsonl"]),
            "sha256": hashlib.sha256(files["requests.jsonl"]).hexdigest(),
        }
        files["manifest.json"] = json.dumps(manifest).encode()

    forged = check(rewritten(bundle, tmp_path / "forged.zip", forge))
    assert forged.findings == (Finding("report", "report.html"),)
    assert forged.manifest_sha256 != check(bundle).manifest_sha256


def test_another_release_says_that_it_did_not_render(
    bundle: Path, tmp_path: Path
) -> None:
    """Hashes are checked; the page of another release need not be the same."""

    def of_another(files: Files) -> None:
        manifest = json.loads(files["manifest.json"]) | {"loadstone": "0.0.1"}
        files["manifest.json"] = json.dumps(manifest).encode()

    checked = check(rewritten(bundle, tmp_path / "old.zip", of_another))
    assert checked.findings == ()
    assert "made by loadstone 0.0.1" in checked.notes[0]


def archived(path: Path, members: dict[str, bytes], **attributes: int) -> Path:
    """Write an archive of any names; `attributes` are of its last member."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if name == list(members)[-1]:
                for key, value in attributes.items():
                    setattr(info, key, value)
            archive.writestr(info, content)
    return path


SOUND = {"run/manifest.json": b"{}", "run/plan.toml": b""}


@pytest.mark.parametrize(
    ("members", "attributes", "told"),
    [
        ({"run/../../evil": b"x"}, {}, "has no place"),
        ({"run/sub/plan.toml": b"x"}, {}, "has no place"),
        ({"run/evil.pickle": b"x"}, {}, "has no place"),
        ({"/plan.toml": b"x"}, {}, "not of one run"),
        ({"../plan.toml": b"x"}, {}, "not of one run"),
        ({"other/plan.toml": b"x"}, {}, "not of one run"),
        ({"run/summary.json": b"/etc/passwd"}, {"external_attr": 0o120777 << 16},
         "has no place"),
        ({"run/summary.json": b"x"}, {"compress_type": zipfile.ZIP_LZMA},
         "has no place"),
        ({"run/requests.jsonl": b"\0" * (65 << 20)}, {}, "too large"),
        ({"run/summary.json": b"{}"}, {}, "its manifest cannot be read"),
    ],
)  # fmt: skip
def test_hostile_archives_are_refused(
    tmp_path: Path, members: dict[str, bytes], attributes: dict[str, int], told: str
) -> None:
    """Paths that lead out, links, bombs, other kinds of file: nothing is unpacked."""
    path = archived(tmp_path / "evil.zip", {**SOUND, **members}, **attributes)
    with pytest.raises(UsageError, match=told):
        check(path)
    assert [p.name for p in tmp_path.iterdir()] == ["evil.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    """Of two plans nobody knows which one is meant."""
    path = archived(tmp_path / "evil.zip", SOUND)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("run/plan.toml", "other")
    with pytest.raises(UsageError, match="in it twice"):
        check(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"plain"])
def test_what_is_no_archive_is_told(tmp_path: Path, content: bytes) -> None:
    """Not a traceback."""
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(UsageError, match="cannot read"):
        check(tmp_path / "x.zip")


def test_the_verb(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Packs, checks, compares with the quoted hash, and reports from the archive."""

    def ran(*args: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(list(args))
        return int(left.value.code or 0), capsys.readouterr().out

    path = tmp_path / "e.zip"
    code, out = ran("bundle", str(run_folder), "--out", str(path), "--json")
    digest = json.loads(out)["manifest_sha256"]
    assert code == 0
    assert ran("bundle", "--check", str(path), "--manifest", digest)[0] == 0
    assert ran("bundle", "--check", str(path), "--manifest", "0" * 64)[0] == 3
    assert ran("report", str(path))[0] == 0
    made = (tmp_path / "e.html").read_bytes()
    assert made == (run_folder / "report.html").read_bytes()
    spoilt = rewritten(path, tmp_path / "spoilt.zip", edit("requests.jsonl"))
    code, out = ran("bundle", "--check", str(spoilt))
    assert code == 3
    assert "CHANGED     requests.jsonl: changed" in out
    assert ran("report", str(spoilt))[0] == 2
    assert ran("bundle")[0] == 2
    assert ran("bundle", str(run_folder), "--manifest", digest)[0] == 2
