"""`retreg look DIR`: the page for results in a folder, in the browser."""

from __future__ import annotations

import argparse
import logging
import secrets
import webbrowser
from contextlib import suppress
from pathlib import Path

HELP = "look at the results in a folder in a browser, drag keypoints and store corrections"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="what -o of `retreg register` was")
    parser.add_argument(
        "--moving", type=Path, metavar="FILE", help="the moving image, if it is not beside DIR"
    )
    parser.add_argument("--port", type=int, default=0, help="a free one by default")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; returns 0. Raises FileError when there is nothing to look at."""
    import uvicorn

    from retreg_server.commands.serve import listening_socket
    from retreg_server.reporting.result_reader import read_result, result_folders
    from retreg_server.serving.folder_app import ResultShelf, create_folder_app

    results = [read_result(each, args.moving) for each in result_folders(args.folder)]
    shelf, token = ResultShelf(results), secrets.token_urlsafe(32)
    listener = listening_socket("127.0.0.1", args.port)
    port = listener.getsockname()[1]
    # What follows # never leaves the browser: it is in no log and no Referer.
    pages = {
        stored.folder.name: f"http://127.0.0.1:{port}/look/{job}#token={token}"
        for job, stored in shelf.ids.items()
    }
    for name, address in pages.items():
        print(f"{name}: {address}", flush=True)
    print("Press Ctrl+C to stop.", flush=True)
    if not args.no_browser:
        webbrowser.open(next(iter(pages.values())))
    app = create_folder_app(shelf, token)
    config = uvicorn.Config(app, log_config=None, log_level=logging.WARNING, access_log=False)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
    return 0
