"""Locust starts here: `locust -f loadgen/locustfile.py`. Wiring only, like a verb."""

import json
import os
import signal
from typing import Any

from flask import Response
from gevent.pywsgi import WSGIServer
from locust import events

from loadgen.control import Control
from loadgen.options import OPTIONS
from loadgen.user import LoadUser
from loadgen.web import attach
from loadstone.report.table import text_of_summary
from loadstone.telemetry.client import read_client
from loadstone.telemetry.prometheus import CONTENT_TYPE, exposition

DEFAULT_USERS = 64
"""Users that the start form begins with."""
TELL_FD = "LOADSTONE_TELL_FD"
"""Names the descriptor on which `loadstone run` wants to hear how the run goes."""


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """Add loadstone's options to Locust's command line and start form."""
    for option in OPTIONS:
        parser.add_argument(
            option.flag,
            type=str,
            default=option.default,
            choices=option.choices or None,
            metavar=None if option.choices else option.metavar,
            help=option.text.replace("%", "%%"),
            include_in_web_ui=option.in_form,
            env_var=f"LOADSTONE_{option.name.upper()}",
        )


def _tell(what: str, facts: dict[str, Any]) -> None:
    fd = os.environ.get(TELL_FD)
    if fd is not None:
        try:
            os.write(int(fd), json.dumps([what, facts]).encode() + b"\n")
        except BrokenPipeError:
            # Whoever started us is gone; without them nobody would ever stop us.
            os.kill(os.getpid(), signal.SIGTERM)
    elif what == "done":
        print(text_of_summary(facts["summary"]), f"\n  run folder  {facts['folder']}\n")  # noqa: T201


@events.init.add_listener
def wire(environment: Any, **_: Any) -> None:
    """Connect Locust's events, the run and the exporters."""
    options = environment.parsed_options
    control = Control(
        environment,
        render=lambda run: exposition(lambda: read_client(run))(),
        tell=_tell,
    )
    LoadUser.control = control
    # Locust's defaults are one user, one more a second; but users are places in flight
    # here, and without all of them the schedule waits.
    options.num_users = options.num_users or DEFAULT_USERS
    options.spawn_rate = options.spawn_rate or options.num_users
    if options.run_time and not options.worker:
        options.duration, options.run_time = f"{options.run_time}s", None
    if environment.web_ui is not None:
        attach(environment.web_ui, lambda: control.run)
        environment.web_ui.app.add_url_rule(
            "/metrics",
            "metrics",
            lambda: Response(control.metrics(), content_type=CONTENT_TYPE),
        )
    if options.metrics_port and not options.worker:
        _serve_metrics(control, int(options.metrics_port))


def _serve_metrics(control: Control, port: int) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:  # noqa: ARG001 - WSGI
        start_response("200 OK", [("Content-Type", CONTENT_TYPE)])
        return [control.metrics()]

    server = WSGIServer(("127.0.0.1", port), app, log=None)
    server.start()
    _tell("metrics", {"url": f"http://127.0.0.1:{server.server_port}/metrics"})
