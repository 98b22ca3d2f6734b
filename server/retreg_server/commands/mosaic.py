"""`retreg mosaic VIEW… -o DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from retreg.errors import InputError, OptionError, RegistrationError
from retreg_server.commands.exit_status import EXIT_FAILED
from retreg_server.commands.groupwise import folder_names
from retreg_server.commands.register import ProgressBar

if TYPE_CHECKING:
    from retreg_server.mosaic.outputs import Views
    from retreg_server.mosaic.placement import Mosaic
    from retreg_server.registration.model import Stages

HELP = "make one picture of overlapping pictures of one retina"
FEWEST, MOST, SMALLEST = 2, 60, 100
MOST_PIXELS = 400_000_000  # of all views together, about 1.2 GB in colour


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "views", type=Path, nargs="+", metavar="VIEW",
        help="pictures that overlap their neighbours by a quarter or more, in any order",
    )  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--transform", choices=("quadratic", "affine"), default="quadratic",
        help="whether views may bend as the round retina does in flat pictures, or only stretch",
    )  # fmt: skip
    parser.add_argument(
        "--longest", type=int, metavar="N",
        help="pixels of the longer side of the mosaic at most; by default those of its middle view "
        "go on",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(args: argparse.Namespace) -> int:
    """Make the mosaic; 0 when every view is part of it, 3 when one is left out or looks wrong."""
    from retreg_server.mosaic.outputs import (
        MOSAIC_FILES,
        TRANSFORMS,
        refuse_files_of_others,
        write_mosaic,
    )
    from retreg_server.registration.model import Stages
    from retreg_server.reporting.output_room import SMALL_FILES_BYTES, check_room
    from retreg_server.reporting.result_folder import check_writable, refuse_inputs_within

    _check(args)
    check_writable(args.out)
    refuse_inputs_within(args.out, args.views, MOSAIC_FILES)
    refuse_files_of_others(args.out)
    check_room(args.out, MOSAIC_FILES, SMALL_FILES_BYTES)
    if (args.out / TRANSFORMS).exists():
        check_writable(args.out / TRANSFORMS)
    with ProgressBar(args.quiet) as bar:
        stages = Stages(bar)
        with stages.stage("reading", 0.05):
            views = _read(args.views, stages)
        with stages.part(0.8):
            mosaic = _made(args, views, stages)
        with stages.stage("blending", 0.15):
            write_mosaic(args.out, views, mosaic, args.longest, stages)
    return _told(args, views, mosaic)


def _made(args: argparse.Namespace, views: Views, stages: Stages) -> Mosaic:
    """The mosaic; without one, what an earlier one left is removed, for it is none of these."""
    from retreg_server.mosaic.outputs import clear
    from retreg_server.mosaic.placement import make_mosaic

    try:
        return make_mosaic(views.images, views.names, stages, args.transform == "quadratic")
    except RegistrationError:
        clear(args.out)
        raise


def _check(args: argparse.Namespace) -> None:
    count = len(args.views)
    if not FEWEST <= count <= MOST:
        raise OptionError(
            f"{count} views were given; a mosaic is made of {FEWEST} to {MOST} pictures."
        )
    if args.longest is not None and args.longest < SMALLEST:
        raise OptionError(
            f"--longest {args.longest} was given; {SMALLEST} pixels or more were expected."
        )


def _read(paths: list[Path], stages: Stages) -> Views:
    """The views. Raises InputError for what is no picture, or too much together."""
    from retreg.about import refuse_scans_as_photographs
    from retreg.files import read_image
    from retreg_server.mosaic.blending import refuse_other_types
    from retreg_server.mosaic.outputs import Views
    from retreg_server.reporting.sources import source_of

    images, pixels = [], 0
    for number, path in enumerate(paths):
        stages.at(number / len(paths))
        images.append(read_image(path))
        if not images[-1].is_picture:
            raise InputError(f"{path.name} is a volume; a mosaic is made of pictures.")
        pixels += images[-1].grid.size[0] * images[-1].grid.size[1]
        if pixels > MOST_PIXELS:
            raise InputError(
                f"The views have more than {MOST_PIXELS // 1_000_000} million pixels together; "
                "make them smaller."
            )
    names = folder_names(paths)
    refuse_other_types(images, names)
    refuse_scans_as_photographs(dict(zip(names, images, strict=True)))
    return Views(images, names, [source_of(path) for path in paths])


def _told(args: argparse.Namespace, views: Views, mosaic: Mosaic) -> int:
    """Print what became of each view; the exit status."""
    from retreg_server.mosaic.outputs import OVERVIEW, PICTURE

    said = [mosaic.judged(number, views.names) for number in range(len(views.names))]
    if not args.quiet:
        for number, (name, (verdict, reason)) in enumerate(zip(views.names, said, strict=True)):
            left = "left out" if number in mosaic.left_out else verdict
            print(f"{name}: {left}: {reason}")
        print(f"{len(mosaic.placed)} of {len(views.names)} views are part of the mosaic.")
        print(f"It is {args.out / PICTURE}; look at {args.out / OVERVIEW}.")
    return EXIT_FAILED if any(verdict == "fail" for verdict, _ in said) else 0
