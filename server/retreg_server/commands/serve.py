"""`retreg serve`: the HTTP server."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from retreg.errors import InputError

HELP = "start the server"

GRACE_S = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=8600, help="0 takes a free one (default: 8600)")
    parser.add_argument(
        "--token-file",
        type=Path,
        help="file with the token that clients must send (default: the variable RETREG_TOKEN)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; prints one line with the address when ready.

    Raises InputError when the address needs a token or cannot be used.
    """
    import uvicorn

    from retreg_server.serving.app import create_app
    from retreg_server.serving.settings import Settings

    settings = Settings(host=args.host, port=args.port, token=token(args.token_file))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    listener = listening_socket(settings.host, settings.port)
    port = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host

    def announce() -> None:
        sys.stdout.write(f"RetReg server ready at http://{host}:{port}\n")
        sys.stdout.flush()

    config = uvicorn.Config(
        create_app(settings, on_ready=announce),
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    with suppress(KeyboardInterrupt):  # the way to stop a server that was started by hand
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def token(path: Path | None) -> str | None:
    """The token in the first line of a file, else the one in RETREG_TOKEN, else None."""
    if path is None:
        return os.environ.get("RETREG_TOKEN") or None
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        raise InputError(
            f"The token file {path.name} cannot be read; create it with one line of text."
        ) from None
    return lines[0].strip() if lines else ""


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
