"""`retreg series FIRST NEXT… -o DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

from retreg_server.commands.batch import model_options, workers_for
from retreg_server.commands.exit_status import EXIT_FAILED
from retreg_server.commands.option_arguments import add_option_argument
from retreg_server.commands.register import FAMILIES, ProgressBar

HELP = "register the images of a series to one of them, and show what changes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="two or more, in their order"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--reference", choices=("first", "middle"), default="first",
        help="the image onto whose canvas all others are brought",
    )  # fmt: skip
    parser.add_argument(
        "--canvas", choices=("reference", "union"), default="reference",
        help="show what that image shows, or all that any of the pictures shows",
    )  # fmt: skip
    parser.add_argument("--model", help="see `retreg models`; chosen from the images by default")
    parser.add_argument("--transform", choices=FAMILIES, help="the model's default if not given")
    add_option_argument(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="images at a time, as in batch")
    parser.add_argument("--again", action="store_true", help="also do what is done already")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(args: argparse.Namespace) -> int:
    """Register what is not done yet; 0 when every image is shown, else 3."""
    from retreg_server.batch.one_pair import Order, is_done
    from retreg_server.batch.series import frames_of, refuse_union_of_volumes, series_pairs
    from retreg_server.batch.series_page import ANIMATION, PAGE, write_series
    from retreg_server.batch.table import rows_of, write_table
    from retreg_server.batch.workers import run_pairs
    from retreg_server.reporting.result_folder import check_writable

    reference = 0 if args.reference == "first" else len(args.images) // 2
    pairs = series_pairs(args.images, reference)
    if args.canvas == "union":
        refuse_union_of_volumes(args.images[reference])
    check_writable(args.out)
    order = Order(args.model, model_options(args))
    todo = [p for p in pairs if args.again or not is_done(p, order, args.out / p.name)]
    done = len(pairs) - len(todo)
    with ProgressBar(args.quiet) as bar:

        def count() -> None:
            nonlocal done
            done += 1
            bar(f"{done} of {len(pairs)}", done / len(pairs))

        run_pairs(todo, order, args.out, workers_for(args, todo), count)
    write_table(args.out, rows_of(pairs, args.out))
    frames, left_out = frames_of(
        args.images, reference, pairs, args.out, args.canvas == "union"
    )
    write_series(args.out, frames, left_out)
    if not args.quiet:
        for name, reason in left_out.items():
            print(f"Note: {name} was left out: {reason}")
        print(f"{len(frames)} of {len(args.images)} images lie on that of the reference.")
        print(f"Look at {args.out / PAGE} or {args.out / ANIMATION}.")
    return EXIT_FAILED if left_out else 0
