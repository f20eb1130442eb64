"""Errors by whose fault they are.

A message says what was wrong and where; a hint says what to do.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a verb's exit status means; scripts and CI jobs rely on it."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_MET = 3
    NOT_VALID = 4


class LoadstoneError(Exception):
    """Something loadstone can explain.

    `code` is stable and machine-readable (it is `error.code` under `--json`), the
    message is for people, and `hint` names the next thing to try.
    """

    code = "failed"
    exit_code = ExitCode.FAILED

    def __init__(
        self, message: str, *, hint: str = "", code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class UsageError(LoadstoneError):
    """The caller asked for something that cannot be: a wrong option, file or value."""

    code = "usage"
    exit_code = ExitCode.USAGE


class NotValidError(LoadstoneError):
    """A run that nothing can be concluded from."""

    code = "not_valid"
    exit_code = ExitCode.NOT_VALID


class CatalogError(LoadstoneError):
    """A table of facts is malformed or does not have what was asked for."""

    code = "catalog"
    exit_code = ExitCode.USAGE


class NotModelledError(UsageError):
    """A setup the timing model or the engine does not cover. Refused, never ignored."""

    code = "not_modelled"
