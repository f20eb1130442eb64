"""The login before Locust's web UI, over HTTP, with real processes of Locust."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import Browser
from chromium import chromium
from processes import PATIENCE_S, REPOSITORY, fetch_when_up, free_port

from loadgen.web.guard import MOST_BYTES, TRIES, USER, WINDOW_S, Wrong
from loadstone.clock import ManualClock

PASSWORD = "correct horse"
LOCUST = (sys.executable, "-m", "locust", "-f", "loadgen/locustfile.py")
# What shows something or does something, of Locust and of ours.
READS = (
    "/", "/stats/requests", "/stats/report", "/stats/requests/csv", "/exceptions",
    "/logs", "/tasks", "/worker-count", "/llm", "/llm/data", "/llm/table.csv",
)  # fmt: skip
WRITES = ("/swarm", "/stop", "/stats/reset", "/user")

# As a hand does: React hears of what is typed, not of what is set.
FILL = """function fill(name, value) {
    const field = document.querySelector(`input[name=${name}]`);
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value")
        .set.call(field, value);
    field.dispatchEvent(new Event("input", {bubbles: true}));
}"""


@contextmanager
def locust(
    folder: Path, *options: str, password: str | None = PASSWORD
) -> Iterator[int]:
    """Run Locust with its web UI; yields the port."""
    port = free_port()
    command = [*LOCUST, "--host", "http://127.0.0.1:9", "--web-host", "127.0.0.1"]
    command += ["--web-port", str(port), "--out", str(folder / "runs")]
    if password is not None:
        (folder / "password").write_text(f"{password}\n")
        command += ["--web-password-file", str(folder / "password")]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        fetch_when_up(f"http://127.0.0.1:{port}/metrics")
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run one with a login for the tests that do no harm."""
    with locust(tmp_path_factory.mktemp("locust")) as port:
        yield port


def test_nothing_is_seen_or_done_without_the_password(port: int) -> None:
    """Every page sends a stranger to the login, every action is refused."""
    stranger = Browser(port)
    for method, paths in (("GET", READS), ("POST", WRITES)):
        for path in paths:
            assert stranger.ask(method, path, b"user_count=1") == 302, path
            assert stranger.headers["location"].startswith("/login?"), path
    assert stranger.ask("GET", "/login") == 200
    assert PASSWORD.encode() not in stranger.body


def test_metrics_are_for_prometheus(port: int) -> None:
    """It asks without a login, as the health check of the stack does."""
    assert Browser(port).ask("GET", "/metrics") == 200


@pytest.mark.parametrize(
    ("user", "password"),
    [
        (USER, "wrong"), (USER, ""), (USER, PASSWORD[:-1]), (USER, PASSWORD + "x"),
        ("root", PASSWORD), ("", PASSWORD), (USER, "\udcff\0'\"<script>"),
    ],
)  # fmt: skip
def test_wrong_logins_are_told_and_let_nobody_in(
    port: int, user: str, password: str
) -> None:
    """One message for all of them, and the page shows nothing of what was given."""
    stranger = Browser(port)
    shown = password.encode(errors="replace").decode()
    assert stranger.log_in(shown, user) == 302
    assert stranger.headers["location"] == "/login"
    assert stranger.ask("GET", "/login") == 200
    assert b"Wrong user or password" in stranger.body
    assert b"<script>'" not in stranger.body
    assert stranger.ask("GET", "/llm/data") == 302


def test_who_knows_the_password_sees_it_all(tmp_path: Path) -> None:
    """The cookie is for this site and no script; a changed one is none."""
    with locust(tmp_path) as port:
        user = Browser(port)
        assert user.log_in(PASSWORD) == 302
        assert user.headers["location"] == "/"
        cookie = user.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        for path in READS:
            assert user.ask("GET", path) == 200, path
        assert user.ask("GET", "/llm/data") == 200
        assert json.loads(user.body)["run"] is None
        assert user.ask("POST", "/stats/reset") == 200
        forger = Browser(port)
        forger.cookies = {k: v[:-3] + "AAA" for k, v in user.cookies.items()}
        assert forger.ask("GET", "/llm/data") == 302
    with locust(tmp_path) as port:
        again = Browser(port)
        again.cookies = user.cookies
        assert again.ask("GET", "/llm/data") == 302, "another process, another secret"


def test_guessing_is_slow(tmp_path: Path) -> None:
    """After so many wrong ones not even the right one is tried."""
    with locust(tmp_path) as port:
        stranger = Browser(port)
        tries = [stranger.log_in("wrong") for _ in range(TRIES + 1)]
        assert tries == [302] * TRIES + [429]
        assert 0 < float(stranger.headers["retry-after"]) <= WINDOW_S
        assert stranger.log_in(PASSWORD) == 429


def test_wrong_ones_are_forgotten() -> None:
    """A window after the first of them there is one more try."""
    clock = ManualClock()
    wrong = Wrong(clock)
    for _ in range(TRIES):
        assert wrong.wait_s() == 0
        wrong.note()
        clock.advance_to(clock.now() + 1)
    assert wrong.wait_s() == WINDOW_S - TRIES
    clock.advance_to(WINDOW_S)
    assert wrong.wait_s() == 0
    wrong.note()
    assert wrong.wait_s() == 1


@pytest.mark.parametrize("password", [None, PASSWORD], ids=["open", "login"])
def test_pages_of_other_sites_do_nothing_and_read_nothing(
    tmp_path: Path, password: str | None
) -> None:
    """With a login and without: what a browser marks as another's is refused."""
    with locust(tmp_path, password=password) as port:
        page = Browser(port)
        here = f"http://127.0.0.1:{port}"
        for elsewhere in (
            {"Origin": "https://evil.example"}, {"Origin": "null"},
            {"Origin": f"http://127.0.0.1:{port + 1}"},
            {"Sec_Fetch_Site": "cross-site", "Origin": here},
            {"Sec_Fetch_Site": "same-site", "Origin": here},
        ):  # fmt: skip
            for path in (*WRITES, "/login/try"):
                assert page.ask("POST", path, b"x=1", **elsewhere) == 403, path
            page.ask("GET", "/metrics", **elsewhere)
            assert "access-control-allow-origin" not in page.headers
        own = {"Origin": here, "Sec_Fetch_Site": "same-origin"}
        assert page.ask("POST", "/stats/reset", **own) in (200, 302)
        assert page.ask("POST", "/swarm", b"x=" + b"y" * MOST_BYTES) in (302, 413)


@pytest.mark.parametrize(
    ("options", "content", "told"),
    [
        (("--web-login",), None, "--web-login needs a password"),
        (("--web-password-file", "{}"), "\n", "is empty"),
        (("--web-password-file", "{}"), None, "cannot read the password file"),
    ],
)
def test_without_a_password_there_is_no_ui(
    tmp_path: Path, options: tuple[str, ...], content: str | None, told: str
) -> None:
    """A login that cannot be asked for is an error, and not an open door."""
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
    given = [option.format(file) for option in options]
    done = subprocess.run(
        [*LOCUST, "--web-port", str(free_port()), *given],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_the_form_logs_in_from_a_browser(port: int, tmp_path: Path) -> None:
    """Locust's own page has the form, and Chromium comes through it to the UI."""
    with chromium(tmp_path / "profile") as page:
        page.online()
        page.visit(f"http://127.0.0.1:{port}/llm")
        page.until("document.querySelector('input[name=password]') !== null")
        page.ask(f"{FILL}; fill('username', '{USER}'); fill('password', '{PASSWORD}')")
        page.ask("document.querySelector('button[type=submit]').click()")
        page.until("location.pathname === '/' && document.title === 'Locust'")
        page.visit(f"http://127.0.0.1:{port}/llm")
        page.until("document.querySelectorAll('canvas').length === 4")
