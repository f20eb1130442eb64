"""Locust starts here: `locust -f loadgen/locustfile.py`. Wiring only, like a verb."""

import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent.socket
from flask import Response
from gevent.pywsgi import WSGIServer
from locust import events

from loadgen.control import Control
from loadgen.kept import Kept
from loadgen.options import OPTIONS, TELL_FD
from loadgen.session import MonotonicClock
from loadgen.user import LoadUser, places
from loadgen.web import attach
from loadgen.web.guard import USER, ask_for_login
from loadstone.errors import UsageError
from loadstone.report.table import text_of_summary
from loadstone.telemetry.client import read_client
from loadstone.telemetry.otel.settings import Settings, read_settings
from loadstone.telemetry.prometheus import CONTENT_TYPE, exposition

DEFAULT_USERS = 64
"""Users that the start form begins with."""


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
            env_var=option.variable,
        )
    parser.add_argument(
        "--web-password-file",
        type=str,
        default="",
        metavar="FILE",
        help=f"ask for a login before the web UI: user {USER}, password in this file",
        include_in_web_ui=False,
        env_var="LOADSTONE_WEB_PASSWORD_FILE",
    )


def _tell(what: str, facts: dict[str, Any]) -> None:
    fd = os.environ.get(TELL_FD)
    if fd is not None:
        _write(int(fd), json.dumps([what, facts]).encode() + b"\n", what)
    elif what == "done":
        print(text_of_summary(facts["summary"]), f"run folder  {facts['folder']}\n")  # noqa: T201 - the terminal is its place


def _write(fd: int, line: bytes, what: str) -> None:
    """Write to a pipe, without stopping the hub where nobody reads it."""
    os.set_blocking(fd, False)
    while line:
        try:
            line = line[os.write(fd, line) :]
        except BlockingIOError:
            if what == "progress":
                return  # the next one says more
            gevent.socket.wait_write(fd)
        except BrokenPipeError:
            # Whoever started us is gone; without them nobody would ever stop us.
            os.kill(os.getpid(), signal.SIGTERM)
            return


@events.init.add_listener
def wire(environment: Any, **_: Any) -> None:
    """Connect Locust's events, the run and the exporters."""
    options = environment.parsed_options
    settings = _otel_settings()
    control = Control(
        environment,
        render=lambda run: exposition(lambda: read_client(run))(),
        tell=_tell,
        sampled=settings.sampled if settings else 0.0,
    )
    LoadUser.control = control
    environment.dispatcher_class = places
    # A master sends no request; its workers export what they sent.
    if settings is not None and not options.master:
        _export(control, environment, settings)
    # Locust's defaults are one user, one more a second; but users are places in flight
    # here, and without all of them the schedule waits.
    options.num_users = options.num_users or DEFAULT_USERS
    options.spawn_rate = options.spawn_rate or options.num_users
    if options.run_time and not options.worker:
        options.duration, options.run_time = f"{options.run_time}s", None
    page = Kept(control.metrics, MonotonicClock())
    if environment.web_ui is not None:
        _guard(environment.web_ui, options)
        attach(environment.web_ui, lambda: control.run, control.abandon_start)
        environment.web_ui.app.add_url_rule(
            "/metrics",
            "metrics",
            lambda: Response(page(), content_type=CONTENT_TYPE),
        )
    if options.metrics_port and not options.worker:
        _serve_metrics(page, int(options.metrics_port))


@contextmanager
def _ending() -> Iterator[None]:
    """End Locust, in words, where something cannot be done as it was asked for."""
    try:
        yield
    except UsageError as wrong:
        logging.getLogger("loadstone").error("%s (%s)", wrong.message, wrong.hint)  # noqa: TRY400 - no traceback: it is not our fault
        raise SystemExit(int(wrong.exit_code)) from None


def _otel_settings() -> Settings | None:
    with _ending():
        return read_settings(os.environ)


def _guard(web_ui: Any, options: Any) -> None:
    """Put a login before the UI, if one is asked for; it takes a password."""
    if not (options.web_login or options.web_password_file):
        return
    with _ending():
        if not options.web_password_file:
            raise UsageError(
                "--web-login needs a password",
                hint="write one into a file and name it by --web-password-file",
            )
        ask_for_login(web_ui, options.web_password_file, MonotonicClock())


def _export(control: Control, environment: Any, settings: Settings) -> None:
    # Imported only when it is on: it takes a fifth of a second.
    from loadstone.telemetry.otel.client import LoadTelemetry  # noqa: PLC0415 - slow, and not always wanted

    telemetry = LoadTelemetry(settings)
    control.observe(telemetry)
    environment.events.quitting.add_listener(lambda **_: telemetry.close())


def _serve_metrics(page: Callable[[], bytes], port: int) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:  # noqa: ARG001 - WSGI
        start_response("200 OK", [("Content-Type", CONTENT_TYPE)])
        return [page()]

    server = WSGIServer(("127.0.0.1", port), app, log=None)
    try:
        server.start()
    except OSError as taken:
        message = f"cannot serve metrics on port {port}: {taken.strerror}"
        hint = "choose another --metrics-port; 0 takes a free one"
        _tell("failed", {"code": "port_in_use", "message": message, "hint": hint})
        raise SystemExit(f"{message} ({hint})") from None
    _tell("metrics", {"url": f"http://127.0.0.1:{server.server_port}/metrics"})
