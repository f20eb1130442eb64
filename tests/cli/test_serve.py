"""`loadstone serve` as a user starts it: options, their file, and what is said."""

import json
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import start

from loadstone.cli.main import main


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Give what runs `loadstone serve`, which must refuse, and returns what it says."""

    def run(*args: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["serve", *args])
        assert caught.value.code == 2
        return capsys.readouterr().err

    return run


def ask(path: Path, target: str) -> dict[str, object]:
    """Get JSON over a Unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(f"GET {target} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    body: dict[str, object] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return body


def test_options_come_from_a_file_and_the_command_line_wins(tmp_path: Path) -> None:
    """And what the server is, it says at the start and in `/version`."""
    uds, config = tmp_path / "mock.sock", tmp_path / "mock.toml"
    config.write_text(f'vms = 1\nslowdown = 4\nstream-interval = 8\nuds = "{uds}"\n')
    process = start("serve", "--config", str(config), "--slowdown", "2.5")
    try:
        assert process.stdout
        lines: list[str] = []
        while not lines or "listening on " not in lines[-1]:
            lines.append(process.stdout.readline())
        assert "2.5 times slowed down" in lines[0]
        assert re.match(r"room for \d+ connections \(\d+ open files\)", lines[1])
        assert lines[2].strip() == f"listening on unix:{uds}"
        version = ask(uds, "/version")
        assert (version["slowdown"], version["stream_interval"]) == (2.5, 8)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert not uds.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vms = 1\nslowdwon = 3\n", ("line 2", "'slowdwon'", "'slowdown'")),
        ("\n\nport = 'http'", ("line 3", "port", "not a valid integer")),
        ("port = 70000", ("line 1", "port", "70000")),
        ("vms = true", ("line 1", "vms", "True")),
        ("vms = [1, 2]", ("line 1", "vms", "[1, 2]")),
        ("[serve]\nvms = 1", ("line 1", "'serve'")),
        ("config = 'other.toml'", ("line 1", "'config'")),
        ("\nvms = 1\nport = = 2", ("not TOML", "line 3")),
        ("slowdown = -1", ("slowdown", "-1")),
        ("slowdown = nan", ("slowdown", "nan")),
    ],
)
def test_a_file_with_an_error_is_refused(
    tmp_path: Path, refused: Callable[..., str], text: str, said: tuple[str, ...]
) -> None:
    """With the file, the line and the key; nothing is started."""
    config = tmp_path / "mock.toml"
    config.write_text(text)
    message = refused("--config", str(config), "--port", "0")
    for words in said:
        assert words in message


def test_a_file_that_is_not_there_is_named(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    """Not a traceback."""
    assert "absent.toml" in refused("--config", str(tmp_path / "absent.toml"))


def test_too_many_connections_are_refused_at_the_start(
    refused: Callable[..., str],
) -> None:
    """Rather than at the moment they come."""
    assert "open files" in refused("--expect-connections", "10000000")
