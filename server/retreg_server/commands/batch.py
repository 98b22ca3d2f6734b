"""`retreg batch PAIRS.csv|FOLDER -o DIR`."""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retreg.errors import OptionError
from retreg.messages import Scalar
from retreg_server.commands.exit_status import EXIT_FAILED
from retreg_server.commands.option_arguments import add_option_argument, options_given
from retreg_server.commands.register import FAMILIES, ProgressBar

if TYPE_CHECKING:
    from retreg_server.batch.pairs import Pair

HELP = "register many pairs, and write a table and a gallery of the results"
_REFRESH_S = 2.0  # between two writings of the table while pairs are being registered


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "pairs", type=Path, metavar="PAIRS",
        help="a table (.csv) with the columns fixed and moving, and if wanted name, fixed_mask, "
        "moving_mask and initial; or a folder",
    )  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--pair", nargs=2, metavar=("FIXED", "MOVING"),
        help="patterns of the images of a folder that belong together where their stars stand for "
        "the same, such as '*_A.jpg' '*_B.jpg'; by default */fixed.* and */moving.*",
    )  # fmt: skip
    parser.add_argument("--model", help="see `retreg models`; chosen from the images by default")
    parser.add_argument("--transform", choices=FAMILIES, help="the model's default if not given")
    add_option_argument(parser)
    parser.add_argument("--maps", action="store_true", help="also write maps, as register does")
    parser.add_argument(
        "--workers", type=int, metavar="N",
        help="pairs at a time; by default one for each core, or one at all for volumes",
    )  # fmt: skip
    parser.add_argument("--again", action="store_true", help="also do what is done already")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(args: argparse.Namespace) -> int:
    """Register what is not done yet; 0 when all is accepted or to be checked, else 3."""
    from retreg.files.names import usable_name
    from retreg_server.batch.one_pair import Order, is_done
    from retreg_server.batch.pairs import pairs_in_folder, pairs_in_table
    from retreg_server.batch.workers import run_pairs
    from retreg_server.reporting.result_folder import check_writable

    if usable_name(args.pairs).is_dir():
        pairs, alone = pairs_in_folder(args.pairs, args.pair)
    elif args.pair:
        raise OptionError("--pair belongs to a folder and does nothing with a table; leave it.")
    else:
        pairs, alone = pairs_in_table(args.pairs), []
    check_writable(args.out)
    order = Order(args.model, model_options(args), args.maps)
    todo = [p for p in pairs if args.again or not is_done(p, order, args.out / p.name)]
    report = _Report(args.out, pairs, len(pairs) - len(todo), args.quiet)
    with report.bar:
        run_pairs(todo, order, args.out, workers_for(args, todo), report)
    counts = report.finish()
    if not args.quiet:
        if len(todo) < len(pairs):
            print(f"{len(pairs) - len(todo)} of {len(pairs)} pairs had been done before.")
        for path in alone:
            print(f"Note: {path.name} has no partner and was left out.")
        print(", ".join(f"{counts[verdict]} {verdict}" for verdict in sorted(counts)) + ".")
        print(f"Look at {args.out / 'index.html'}; the numbers are in {args.out / 'results.csv'}.")
    return EXIT_FAILED if counts["fail"] or counts["error"] else 0


class _Report:
    """The table, the page and the bar, renewed after pairs that are done."""

    def __init__(self, out: Path, pairs: Sequence[Pair], done: int, is_quiet: bool) -> None:
        self._out, self._pairs, self._done = out, pairs, done
        self._written = 0.0
        self.bar = ProgressBar(is_quiet)

    def __call__(self) -> None:
        """Count a pair that is done."""
        self._done += 1
        self.bar(f"{self._done} of {len(self._pairs)}", self._done / len(self._pairs))
        if time.monotonic() - self._written > _REFRESH_S:
            self.finish()

    def finish(self) -> Counter[str]:
        """Write table and page; how many pairs have which verdict."""
        from retreg_server.batch.page import write_page
        from retreg_server.batch.table import rows_of, write_table

        rows = rows_of(self._pairs, self._out)
        write_table(self._out, rows)
        write_page(self._out, rows, len(self._pairs))
        self._written = time.monotonic()
        return Counter(row["verdict"] for row in rows)


def model_options(args: argparse.Namespace) -> dict[str, Scalar]:
    """The options that were given; those of a model can only be known where it is named."""
    from retreg_server.registration.registry import get_model

    options: dict[str, Scalar] = {"transform": args.transform} if args.transform else {}
    if args.option and not args.model:
        raise OptionError("--option belongs to a model; name it with --model.")
    if args.model:
        info = get_model(args.model).info
        options = options_given(info, args.option, options)
        info.refuse_idle(options)
    return options


def workers_for(args: argparse.Namespace, todo: Sequence[Pair]) -> int:
    """How many pairs at a time: volumes need gigabytes each, and use all cores one by one."""
    from retreg.files.formats import Format, recognised

    if args.workers is not None:
        if args.workers < 1:
            raise OptionError(f"--workers {args.workers} was given; 1 or more was expected.")
        return int(args.workers)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        is_picture = bool(todo) and recognised(todo[0].fixed) is Format.PICTURE
    except Exception:  # the pair itself will say what is wrong
        is_picture = False
    return max(1, min(cores or 1, len(todo))) if is_picture else 1
