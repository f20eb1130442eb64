"""Locust's side: a user is a place for a request (open loop) or a person (closed)."""

from typing import TYPE_CHECKING, Any

import gevent
from locust import User, task
from locust.dispatch import UsersDispatcher
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


class Places(UsersDispatcher):
    """Spreads the users over the workers that are there when a run begins, and stays.

    Locust's own would take users from workers when another comes, and with them the
    requests that they have in flight; and a schedule has no share for who comes late.
    """

    def __init__(self, worker_nodes: list[Any], user_classes: list[Any]) -> None:
        super().__init__(worker_nodes=worker_nodes, user_classes=user_classes)
        self.workers = [node.id for node in worker_nodes]
        """Client ids of those who have places."""

    def add_worker(self, worker_node: Any) -> None:
        """Leave it without users until the next run."""

    def remove_worker(self, worker_node: Any) -> None:
        """Leave its users to nobody: its share is not sent."""


def places(worker_nodes: list[Any], user_classes: list[Any]) -> Places:
    """Return the places of the run that is on, or give them; Locust may ask again."""
    control = LoadUser.control
    given: Places = control.places or Places(worker_nodes, user_classes)
    control.places = given
    return given
