"""A listening socket that refuses whom there is no descriptor for."""

import errno
import logging
import os
import socket
from typing import Any, Final, NoReturn

_LOG: Final = logging.getLogger(__name__)
_NONE_LEFT: Final = (errno.EMFILE, errno.ENFILE)


class Listener(socket.socket):
    """Accepts; where descriptors have run out, takes the next client to close it.

    Left to itself asyncio tries as often as the backlog is long, writes a traceback
    each time, and serves nobody meanwhile. The client would wait for an answer that
    does not come; so it is told at once. A descriptor kept aside makes it possible.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._spare: int | None = _spare()
        self._told = False

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; raises `BlockingIOError` when there is none to have."""
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in _NONE_LEFT:
                raise
            self._refuse(error)

    def _refuse(self, error: OSError) -> NoReturn:
        if not self._told:
            self._told = True
            _LOG.warning("connections are refused: %s; raise `ulimit -n`", error)
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        try:
            super().accept()[0].close()
        except OSError:  # somebody was quicker: with the descriptor, or by hanging up
            pass
        finally:
            self._spare = _spare()
        raise BlockingIOError(errno.EAGAIN, "the connection was refused") from error

    def close(self) -> None:
        """Listen no more."""
        super().close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def _spare() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
