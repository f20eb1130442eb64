"""The tables of docs/faults.md, as a server takes them."""

import json
import re
import signal
import socket
from pathlib import Path

import pytest
from processes import start

from loadstone.cli.main import main
from loadstone.cli.rows_file import read_rows
from loadstone.errors import UsageError
from mock_server.faults import KINDS, read_fault

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    """Write the tables down under the names that they give themselves, and the keys."""
    found = {}
    for block in re.findall(r"```toml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL):
        name = re.match(r"# (\w+\.toml)", block)[1]
        found[name] = tmp_path / name
        found[name].write_text(block)
    for key in ("chat", "batch", "admin"):
        (tmp_path / f"{key}.key").write_text(f"{key}-secret\n")
    return found


def get(path: Path, target: str, key: str) -> tuple[int, dict[str, object]]:
    """Get JSON over a Unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(
            f"GET {target} HTTP/1.0\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    return int(answer.split()[1]), json.loads(answer.partition(b"\r\n\r\n")[2])


def test_a_server_takes_them(tables: dict[str, Path], tmp_path: Path) -> None:
    """Faults are listed as they were written, and each tenant's key is known."""
    uds = tmp_path / "mock.sock"
    process = start(
        "serve", "--uds", str(uds), "--scheduling-policy", "fair",
        "--faults", str(tables["faults.toml"]),
        "--tenants", str(tables["tenants.toml"]),
        "--admin-key-file", str(tmp_path / "admin.key"),
    )  # fmt: skip
    try:
        assert process.stdout
        said = ""
        while "listening on " not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        assert "secret" not in said
        status, told = get(uds, "/admin/faults", "admin-secret")
        assert status == 200
        faults = told["faults"]
        assert isinstance(faults, list)
        kinds = ["error", "throttle", "stall", "vm_lost", "cold_start"]
        assert [fault["kind"] for fault in faults] == kinds
        assert [fault["active"] for fault in faults] == [True, False, True] + [
            False
        ] * 2
        assert get(uds, "/v1/models", "batch-secret")[0] == 200
        assert get(uds, "/v1/models", "admin-secret")[0] == 401
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_the_docs_name_every_kind_and_parameter() -> None:
    """And no other."""
    rows = dict(
        re.findall(r"^\| `(\w+)` \|.*\| (.*) ?\|$", DOCS.read_text(), re.MULTILINE)
    )
    assert list(rows) == list(KINDS)
    for kind, form in KINDS.items():
        assert re.findall(r"`(\w+)`", rows[kind]) == list(form.fields)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[[fault]]\nkind = 'error'\n\n[[fault]]\nkind = 'boom'", 5, "'boom'"),
        ("[[fault]]\nkind = 'error'\nstatus = 200", 3, "status"),
        ("\n[[fault]]\nkind = 'stall'", 3, "'delay'"),
        ("[[fault]]\nkind = 'error'\ncolour = 1", 3, "'colour'"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, said: str
) -> None:
    """So that it can be found."""
    path = tmp_path / "faults.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"line {line}: .*{said}"):
        read_rows(path, "fault", read_fault)


@pytest.mark.parametrize("text", ["fault = 3", "fault = [1]", "[faults]", "a = = 1"])
def test_what_is_no_table_of_rows_is_refused(tmp_path: Path, text: str) -> None:
    """Whatever else it is."""
    path = tmp_path / "faults.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"faults\.toml"):
        read_rows(path, "fault", read_fault)


TENANT = '[[tenant]]\nname = "a"\nkey_file = "chat.key"\n'


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (None, ("--scheduling-policy", "fair"), "one tenant"),
        (TENANT + "weight = 2", (), "weights have no effect"),
        (TENANT + "priority = 2", (), "priorities have no effect"),
        (TENANT.replace("chat", "nobody"), (), "nobody.key"),
        (TENANT + "\n" + TENANT, (), "of another"),
        (TENANT + "rpm = -1", (), "line 4"),
        ("", (), "no [[tenant]]"),
        (TENANT, ("--api-key-file", "chat.key"), "exclude each other"),
    ],
)
def test_idle_or_wrong_tenants_are_refused(
    tables: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    options: tuple[str, ...],
    said: str,
) -> None:
    """Nothing that is set stays without effect."""
    monkeypatch.chdir(tmp_path)
    path = tables["tenants.toml"]
    given = () if text is None else ("--tenants", str(path))
    path.write_text(text or "")
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--port", "0", *given, *options])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
