"""`retreg serve`: the HTTP server."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retreg.errors import InputError
from retreg_server.commands.alive import ADDRESS_FILE
from retreg_server.serving import setting_sources
from retreg_server.serving.settings import Settings

if TYPE_CHECKING:
    import uvicorn

HELP = "start the server"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    setting_sources.add_arguments(parser)
    parser.add_argument(
        "--stop-with-parent",
        action="store_true",
        help="stop when standard input ends, as it does when the program that started this ends",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; prints one line with the address when ready.

    Raises InputError when a setting cannot be used, or the address needs a token.
    """
    from retreg_server.serving.app import create_app
    from retreg_server.serving.http.server import HttpServer

    settings = setting_sources.settings_from(args, os.environ)
    if settings.state_dir is None and settings.port:
        settings = replace(settings, state_dir=state_folder(settings.port))
    log_to_standard_error(settings.log_format)
    raise_limit_of_open_files()
    with (
        listening_socket(settings.host, settings.port) as listener,
        _stopping_in_order() as asked_to_stop,
    ):
        address = _address(settings, listener.getsockname()[1])
        app = create_app(settings, on_ready=lambda: _announce(address))
        note = app.state.service.store.folder / ADDRESS_FILE
        try:
            with suppress(OSError):  # a full disk is told elsewhere
                note.write_text(address, "ascii")
            server = HttpServer(app, settings, asked_to_stop)
            _check_certificate(server.config)
            if args.stop_with_parent:
                threading.Thread(target=_stop_with_input, args=(server,), daemon=True).start()
            gc.freeze()  # what is loaded now lives as long as the server
            server.run(sockets=[listener])
        finally:
            with suppress(OSError):
                note.unlink()
            app.state.service.store.close()  # where the server was stopped before it had begun
    return 0


@contextmanager
def _stopping_in_order() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, at whatever moment they come; uvicorn raises them too
    once more when it has stopped."""
    asked = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: asked.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(address: str) -> None:
    sys.stdout.write(f"RetReg server ready at {address}\n")
    sys.stdout.flush()


def state_folder(port: int) -> Path:
    """Where the results of a server stay that was not told where."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "retreg" / f"server-{port}"


def log_to_standard_error(log_format: str) -> None:
    """Log as text or JSON."""
    from retreg_server.serving.middleware.request_log import JsonFormatter, TextFormatter

    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def raise_limit_of_open_files() -> None:
    """As far as an ordinary user may; each connection and each large image takes one."""
    with suppress(ImportError, ValueError, OSError):  # not on Windows, and not always on macOS
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _stop_with_input(server: uvicorn.Server) -> None:
    # Not through sys.stdin, whose lock a thread must not hold when Python ends.
    while os.read(0, 4096):
        pass
    server.should_exit = True


def _address(settings: Settings, port: int) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'http' if settings.tls_cert is None else 'https'}://{host}:{port}"


def _check_certificate(config: uvicorn.Config) -> None:
    """Raise InputError when the files for TLS cannot be used."""
    try:
        config.load()
    except (OSError, ValueError):  # an ssl.SSLError is an OSError
        raise InputError(
            "The TLS certificate or its key cannot be used; check --tls-cert and --tls-key: PEM "
            "files that belong together."
        ) from None


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket; bound here, so that a free port is known before the server runs."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only with its protocol named does asyncio switch off Nagle's algorithm, which would hold
    # back the body of each answer until its header is acknowledged: 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError):
        listener.close()
        raise InputError(
            f"The address {host} with the port {port} cannot be used; it is taken or not one of "
            "this machine. Try --port 0."
        ) from None
    listener.listen(1024)
    return listener
