"""A browser's part in a login, without one: cookies, forms, where it is sent to."""

from http.client import HTTPConnection
from http.cookies import SimpleCookie
from urllib.parse import urlencode

from loadgen.web.guard import USER

FORM = {"content-type": "application/x-www-form-urlencoded"}


class Browser:
    """Keeps cookies, sends what headers it is told, and follows nothing."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookies: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.body = b""

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> int:
        """Ask for a path; return the status, keep headers and body."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body or None, FORM | sent)
            answer = connection.getresponse()
            self.headers = {k.lower(): v for k, v in answer.getheaders()}
            self.body = answer.read()
        finally:
            connection.close()
        for name, morsel in SimpleCookie(self.headers.get("set-cookie", "")).items():
            self.cookies[name] = morsel.value
        return answer.status

    def log_in(self, password: str, user: str = USER, **headers: str) -> int:
        """Send the form."""
        form = urlencode({"username": user, "password": password}).encode()
        return self.ask("POST", "/login/try", form, **headers)
