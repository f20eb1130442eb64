"""Locust's side: a user is a place for a request (open loop) or a person (closed)."""

from typing import TYPE_CHECKING, Any

import gevent
from locust import User, task
from locust.user.task import LOCUST_STATE_STOPPING

if TYPE_CHECKING:
    from .control import Control


class LoadUser(User):
    """Serves requests of the current run; the schedule decides when, not this class."""

    control: "Control"
    """Set once per process, before users are spawned."""

    def _stopping(self) -> bool:
        return bool(self._state == LOCUST_STATE_STOPPING)

    @task
    def serve(self) -> None:
        """Serve until the run ends, then stay, since Locust would start us again."""
        session = self.control.session
        if session is not None:
            session.serve(self._stopping)
        while not self._stopping():
            gevent.sleep(1.0)

    def wait(self) -> Any:
        """Never pause between tasks: there is one, and it paces itself."""
