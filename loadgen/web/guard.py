"""Who may use Locust's web UI: no page of another site, and with a login one user.

Whoever reaches the UI starts load with the key that this process has. The password is
in a file, so it is on no command line and in no variable. Sessions are signed with a
secret of this process alone: they end with it.

`/metrics` is outside the login, as Prometheus has none: it holds counts, never text.
"""

import hmac
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, abort, redirect, request, session, url_for
from flask_login import LoginManager, UserMixin, login_user

from loadstone.clock import Clock
from loadstone.errors import UsageError
from loadstone.units import Seconds

from ..files import read_text

USER: Final = "admin"
MOST_BYTES: Final = 1 << 20
"""Of a request's body; Locust's start form is some kilobytes."""
TRIES: Final = 10
WINDOW_S: Final[Seconds] = 60.0
"""So many wrong passwords in so long, from everybody together, and none is tried."""
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_ALLOWING: Final = "Access-Control-Allow-Origin"


def keep_other_sites_out(app: Flask) -> None:
    """Refuse what a page of another site sends, and let it read nothing.

    Locust lets any page do both: one that is open in a browser beside a UI on
    127.0.0.1 could start load.
    """
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES

    @app.before_request
    def refuse() -> None:
        if request.method not in _SAFE and _from_elsewhere():
            abort(Response("This was sent by a page of another site.\n", status=403))

    def say_nothing(response: Response) -> Response:
        response.headers.pop(_ALLOWING, None)
        return response

    # The first of these is called last: Locust's own has set the header by then.
    app.after_request_funcs.setdefault(None, []).insert(0, say_nothing)


def _from_elsewhere() -> bool:
    """Whether a browser says that another site's page sent this; curl says nothing."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc != request.host


class Wrong:
    """The wrong passwords of late, on a clock that is passed in."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at: deque[Seconds] = deque(maxlen=TRIES)

    def __repr__(self) -> str:
        return f"<Wrong {len(self._at)} of {TRIES}>"

    def note(self) -> None:
        """Count one."""
        self._at.append(self._clock.now())

    def wait_s(self) -> Seconds:
        """Return how long nothing is to be tried; 0 if it may be now."""
        if len(self._at) < TRIES:
            return 0.0
        return max(0.0, self._at[0] + WINDOW_S - self._clock.now())


class _User(UserMixin):  # type: ignore[misc]  # flask_login has no types
    id = USER


def ask_for_login(web_ui: Any, password_file: str, clock: Clock) -> None:
    """Let nobody see or do anything without the password in that file.

    Raises `UsageError` if there is none.
    """
    password = read_text(password_file, "password file").strip()
    if not password:
        raise UsageError(
            f"the password file {password_file} is empty",
            hint="write a password into it; `make secrets` makes a random one",
        )
    app = web_ui.app
    app.secret_key = secrets.token_bytes(32)
    app.config |= {
        "SESSION_COOKIE_SAMESITE": "Strict",
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SECURE": bool(web_ui.tls_cert),
    }
    if not web_ui.web_login:
        web_ui.web_login, web_ui.login_manager = True, LoginManager(app)
    manager = web_ui.login_manager
    manager.login_view = "locust.login"
    manager.login_message = None
    manager.user_loader(lambda name: _User() if name == USER else None)
    base = web_ui.environment.parsed_options.web_base_path or None
    app.register_blueprint(_form(_checking(password), Wrong(clock)), url_prefix=base)
    # A path: to a proxy in front of it the UI has another name.
    web_ui.auth_args = {"username_password_callback": f"{base or ''}/login/try"}


def _checking(password: str) -> Callable[[str, str], bool]:
    """Return whether name and password are right, in a time that tells nothing."""
    salt = secrets.token_bytes(32)

    def hashed(text: str) -> bytes:
        return hmac.digest(salt, text.encode(errors="surrogatepass"), "sha256")

    name_hash, password_hash = hashed(USER), hashed(password)

    def right(name: str, given: str) -> bool:
        # Both are compared, whatever the first comes to.
        return hmac.compare_digest(hashed(name), name_hash) & hmac.compare_digest(
            hashed(given), password_hash
        )

    return right


def _form(right: Callable[[str, str], bool], wrong: Wrong) -> Blueprint:
    pages = Blueprint("guard", __name__)

    @pages.route("/login/try", methods=["POST"])
    def try_login() -> Any:
        wait_s = wrong.wait_s()
        if wait_s > 0:
            after = {"Retry-After": f"{wait_s:.0f}"}
            told = "Too many wrong passwords; try again later.\n"
            return Response(told, status=429, headers=after)
        if right(request.form.get("username", ""), request.form.get("password", "")):
            login_user(_User())
            return redirect(url_for("locust.index"))
        wrong.note()
        session["auth_error"] = "Wrong user or password"
        return redirect(url_for("locust.login"))

    return pages
