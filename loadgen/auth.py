"""Who we are to an endpoint: a key from the environment, a file, a command or Entra ID.

A key has one home in the process, here, and is on no command line and in nothing that
is printed. What a file or a command gives may be replaced while a run goes on: when the
endpoint says 401, and, where it is known when a token ends, before that.

A command runs as a child process, without a shell, and so does Entra ID's library
(`loadgen.entra`): its imports and handshakes would hold the loop that stamps answers
for tens of milliseconds, in a thread of ours as well.
"""

import json
import logging
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import gevent
import gevent.subprocess
from gevent.lock import RLock

from loadstone.errors import UsageError
from loadstone.units import Seconds

from .files import read_text
from .findings import fault

_log = logging.getLogger("loadstone")

COMMAND_PATIENCE_S: Final = 60.0
"""How long a command may take to tell a key: a cloud's command line needs seconds."""
_MARGIN: Final = 0.1
_LONGEST_MARGIN_S: Final = 300.0
"""A token is replaced when a tenth of its life is left, or five minutes."""
_RETRY_S: Final = 5.0
_MOST_BYTES: Final = 64 * 1024
_KEY = re.compile(r"[\x21-\x7e]+")
_TOKEN_NAMES: Final = ("token", "access_token", "accessToken")


@dataclass(frozen=True, slots=True)
class Token:
    """A key, and until when it is good, in seconds since the epoch, if that is known.

    Raises `UsageError` for what no header can carry, and never shows it.
    """

    text: str = field(repr=False)
    expires_s: Seconds | None = None

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.text):
            raise UsageError(
                "the API key has characters that no key has",
                hint="look for a space or a newline at its end, or for an empty key",
            )


class Credential:
    """The key in use. `fetch` tells a newer one; without it the key never changes."""

    def __init__(
        self,
        token: Token,
        fetch: Callable[[], Token] | None = None,
        *,
        clock: Callable[[], Seconds] = time.time,
    ) -> None:
        self._token = token
        self._fetch = fetch
        self._clock = clock
        self._fetched_s = clock()
        self._lock = RLock()
        self._retired: tuple[str, ...] = ()
        self._keeper: gevent.Greenlet[..., None] | None = None
        self.renewals = 0

    def __repr__(self) -> str:
        how = "renewable" if self._fetch else "fixed"
        return f"<Credential {how}, {self.renewals} renewals>"

    @property
    def text(self) -> str:
        """The key in use."""
        return self._token.text

    @property
    def secrets(self) -> tuple[str, ...]:
        """All keys that were in use: what must not show anywhere."""
        return (self.text, *self._retired)

    def renew(self, refused: str) -> bool:
        """Replace a key that was refused; return whether there is another one now.

        Of many that were refused at once, one asks and the others wait for it.
        """
        with self._lock:
            if self.text != refused:
                return True
            if self._fetch is None:
                return False
            try:
                token = self._fetch()
            except Exception as failed:  # noqa: BLE001 - the run goes on without
                _log.warning("no new key: %s", getattr(failed, "message", failed))
                return False
            self._fetched_s = self._clock()
            if token.text == refused:
                self._token = token
                return False
            self._retired = (refused, *self._retired[:8])
            self._token = token
            self.renewals += 1
            return True

    def keep_fresh(self) -> None:
        """Renew before expiry from now on, if it is known when that is."""
        if self._fetch is not None and self._token.expires_s is not None:
            self._keeper = gevent.spawn(self._keep)

    def close(self) -> None:
        """Renew no more."""
        if self._keeper is not None:
            self._keeper.kill()

    def due_s(self) -> Seconds | None:
        """Return when the key should be replaced, in seconds since the epoch."""
        ends = self._token.expires_s
        if ends is None:
            return None
        life = max(0.0, ends - self._fetched_s)
        return ends - min(_LONGEST_MARGIN_S, life * _MARGIN)

    def _keep(self) -> None:
        while (due := self.due_s()) is not None:
            gevent.sleep(max(0.05, due - self._clock()))
            if not self.renew(self.text):
                gevent.sleep(_RETRY_S)


def fixed(text: str) -> Credential:
    """Return a key that never changes."""
    return Credential(Token(text))


def credential_of(
    values: Mapping[str, Any], environ: Mapping[str, str]
) -> Credential | None:
    """Return the key from where the options say it is, None without one.

    Raises `UsageError` if it is nowhere, and `LoadstoneError` when a command that
    should tell it fails.
    """
    asked = {**values, "entra": values.get("auth") == "entra"}
    given = [name for name in _SOURCES if asked.get(name)]
    if len(given) > 1:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        flags = flags.replace("--entra", "--auth entra")
        raise UsageError(f"of {flags} give one, not both: a request has one key")
    if not given:
        return None
    return _SOURCES[given[0]](values, environ)


def _from_environment(
    values: Mapping[str, Any], environ: Mapping[str, str]
) -> Credential:
    name = values["api_key_env"]
    if not environ.get(name):
        raise UsageError(
            f"the environment variable {name} is not set", hint="export it first"
        )
    return fixed(environ[name].strip())


def _from_file(
    values: Mapping[str, Any],
    environ: Mapping[str, str],  # noqa: ARG001 - one signature for all sources
) -> Credential | None:
    path = values["api_key_file"]
    # A stack mounts a key file whether or not there is a key; empty says: none.
    text = read_text(path, "key file").strip()
    if not text:
        return None
    return Credential(Token(text), lambda: Token(read_text(path, "key file").strip()))


def _from_command(values: Mapping[str, Any], environ: Mapping[str, str]) -> Credential:
    return _running(shlex.split(values["api_key_cmd"]), environ)


def _from_entra(values: Mapping[str, Any], environ: Mapping[str, str]) -> Credential:
    command = [sys.executable, "-P", "-m", "loadgen.entra", values["entra_scope"]]
    return _running(command, environ)


_Source = Callable[[Mapping[str, Any], Mapping[str, str]], Credential | None]
_SOURCES: Final[Mapping[str, _Source]] = {
    "api_key_env": _from_environment,
    "api_key_file": _from_file,
    "api_key_cmd": _from_command,
    "entra": _from_entra,
}


def _running(command: list[str], environ: Mapping[str, str]) -> Credential:
    def fetch() -> Token:
        return run_command(command, environ)

    return Credential(fetch(), fetch)


def run_command(command: list[str], environ: Mapping[str, str]) -> Token:
    """Run a command that prints a key, without a shell; return what it told.

    Its standard error goes nowhere: it may name secrets.
    """
    try:
        done = gevent.subprocess.run(
            command, env=dict(environ), stdin=gevent.subprocess.DEVNULL,
            stdout=gevent.subprocess.PIPE, stderr=gevent.subprocess.DEVNULL,
            timeout=COMMAND_PATIENCE_S, check=False,
        )  # fmt: skip
    except (OSError, gevent.subprocess.TimeoutExpired) as failed:
        reason = getattr(failed, "strerror", None) or "it took too long"
        raise fault("key_command", f"{command[0]}: {reason}") from None
    if done.returncode:
        raise fault(
            "key_command", f"{command[0]} ended with status {done.returncode}",
            hint=_ENTRA_HINTS.get(done.returncode, "") if "-m" in command else "",
        )  # fmt: skip
    return read_token(done.stdout[:_MOST_BYTES].decode(errors="replace"), time.time())


_ENTRA_HINTS: Final = {
    3: "install the extra: pip install 'loadstone[azure]'",
    4: "sign in with `az login`, or set AZURE_CLIENT_ID, AZURE_TENANT_ID and a secret",
}


def read_token(printed: str, now: Seconds) -> Token:
    """Read what a command printed: the key alone, or a JSON object that has it.

    Of an object `token`, `access_token` or `accessToken` is the key; it is good until
    `expires_on` (seconds since the epoch) or for `expires_in` seconds.
    """
    text = printed.strip()
    if not text.startswith("{"):
        return Token(text)
    try:
        told = json.loads(text)
        key = next(told[name] for name in _TOKEN_NAMES if name in told)
        ends = told.get("expires_on")
        if ends is None and told.get("expires_in") is not None:
            ends = now + float(told["expires_in"])
        expires = None if ends is None else float(ends)
    except (ValueError, TypeError, StopIteration, RecursionError):
        raise fault("key_command", "what it printed has no key in it") from None
    return Token(str(key), expires)
