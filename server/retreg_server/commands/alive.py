"""`retreg alive`: does the server of a state folder answer? For health checks of containers."""

from __future__ import annotations

import argparse
import http.client
import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from retreg.errors import InputError, ServerError

HELP = "ask the server of a state folder whether it answers"
ADDRESS_FILE = "address"
TIMEOUT_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "--state-dir", type=Path, help="of the server (default: the variable RETREG_STATE_DIR)"
    )


def run(args: argparse.Namespace) -> int:
    """0 when it answers on whatever address, port and scheme it has.

    Raises InputError without a folder, ServerError when nothing answers.
    """
    folder = args.state_dir or os.environ.get("RETREG_STATE_DIR")
    if not folder:
        raise InputError("No folder is given; give --state-dir or set RETREG_STATE_DIR.")
    try:
        address = (Path(folder) / ADDRESS_FILE).read_text("ascii").strip()
        if _status(address) == http.client.OK:
            return 0
    except (OSError, ValueError, http.client.HTTPException):
        pass
    raise ServerError("The server does not answer; look into its log.")


def _status(address: str) -> int:
    """The status of /healthz, asked without a token, and so of any certificate."""
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(here, port, timeout=TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(here, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()
