"""`retreg demo`: two simulated pairs, registered by a real server, with a page to look at."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from retreg.errors import RegistrationError

if TYPE_CHECKING:
    from retreg.client import Client
    from retreg_server.demo.cases import Case, Outcome

HELP = "start a server, register a fundus pair and a brain pair of known truth, show the result"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("demo-out"),
        metavar="DIR",
        help="folder for pictures and index.html (default: demo-out)",
    )


def run(args: argparse.Namespace) -> int:
    """Register the demonstration's pairs, print a table, write the page.

    Raises RegistrationError when a result is farther from the truth than its limit, and
    ServerError when the server does not start.
    """
    from retreg.client import Client
    from retreg_server.demo.cases import CASES
    from retreg_server.demo.page import write_case, write_page
    from retreg_server.demo.server import own_server
    from retreg_server.reporting.result_folder import check_writable

    check_writable(args.out)
    outcomes = []
    with _leaving_on_sigterm(), own_server() as address, Client(address) as client:
        print(f"The server runs at {address}.")
        for case in CASES:
            outcome = _registered(client, case)
            write_case(args.out / case.name, outcome)
            outcomes.append(outcome)
    page = write_page(args.out, outcomes)
    _print_table(outcomes)
    print(f"\nOpen {page} in a browser to see the pictures.")
    _complain_if_wrong(outcomes)
    return 0


def _registered(client: Client, case: Case) -> Outcome:
    from retreg_server.commands.register import ProgressBar
    from retreg_server.demo.cases import Outcome

    with ProgressBar() as bar:
        bar(f"making the {case.name} pair", 0.0)
        pair = case.make()
        start = time.perf_counter()
        result = client.register(pair.fixed, pair.moving, model=case.model, progress=bar)
        return Outcome(case, pair, result, time.perf_counter() - start)


def _print_table(outcomes: Sequence[Outcome]) -> None:
    from retreg_server.demo.page import HEADINGS, row

    rows = [HEADINGS, *(row(outcome) for outcome in outcomes)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(HEADINGS))]
    for line in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def _complain_if_wrong(outcomes: Sequence[Outcome]) -> None:
    wrong = [outcome for outcome in outcomes if not outcome.is_right]
    if wrong:
        errors = " and ".join(
            f"{outcome.error_after:.1f} {outcome.case.unit} for the {outcome.case.name} pair"
            for outcome in wrong
        )
        raise RegistrationError(
            f"The demonstration went wrong: the mean error is {errors}, at most "
            f"{wrong[0].case.limit:g} {wrong[0].case.unit} were expected; please report it."
        )


@contextmanager
def _leaving_on_sigterm() -> Iterator[None]:
    """Makes `kill` raise SystemExit, so that whatever must be stopped is stopped then as well."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
