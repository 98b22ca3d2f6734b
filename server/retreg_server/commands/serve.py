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
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retreg.errors import InputError
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
    import uvicorn

    from retreg_server.serving.app import create_app
    from retreg_server.serving.http.server import config_of

    settings = setting_sources.settings_from(args, os.environ)
    if settings.state_dir is None and settings.port:
        settings = replace(settings, state_dir=state_folder(settings.port))
    log_to_standard_error(settings.log_format)
    raise_limit_of_open_files()
    listener = listening_socket(settings.host, settings.port)
    address = _address(settings, listener.getsockname()[1])

    def announce() -> None:
        sys.stdout.write(f"RetReg server ready at {address}\n")
        sys.stdout.flush()

    config = config_of(create_app(settings, on_ready=announce), settings)
    _check_certificate(config)
    # uvicorn stops in order on both signals, and then raises them once more.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server = uvicorn.Server(config)
    if args.stop_with_parent:
        threading.Thread(target=_stop_with_input, args=(server,), daemon=True).start()
    gc.freeze()  # what is there now stays; the collector need not look at it again and again
    with suppress(KeyboardInterrupt):  # the way to stop a server that was started by hand
        server.run(sockets=[listener])
    return 0


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
