"""`retreg dicomweb-register ARCHIVE`: register two series of an archive and store the result."""

from __future__ import annotations

import argparse
import os
import re
from importlib.metadata import version
from typing import TYPE_CHECKING

from retreg.dicom.objects import KINDS, Registered, refuse_unusable
from retreg.image import Image
from retreg.messages import RegistrationRequest, RegistrationResult, Scalar
from retreg.progress import Progress
from retreg_server.commands.exit_status import EXIT_FAILED
from retreg_server.commands.option_arguments import add_option_argument, options_given
from retreg_server.commands.register import FAMILIES, ProgressBar
from retreg_server.dicom.archives import Archive, SeriesName, archive_named
from retreg_server.serving.setting_sources import archives_of

if TYPE_CHECKING:
    from retreg_server.dicom.careful_session import Bounds

HELP = "register two series of a DICOM archive and store the result there"
MOST_BYTES = 2_000_000_000
IDLE_S, TOTAL_S = 30.0, 1800.0
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("archive", metavar="ARCHIVE", help="a name below archives in the settings")
    for role in ("fixed", "moving"):
        parser.add_argument(
            f"--{role}",
            required=True,
            type=_series,
            metavar="STUDY/SERIES",
            help=f"UIDs of the study and the series of the {role} image",
        )
    parser.add_argument("--config", metavar="FILE", help="settings file (default: RETREG_CONFIG)")
    parser.add_argument("--model", help="see `retreg models`; chosen from the images by default")
    parser.add_argument("--transform", choices=FAMILIES, help="the model's default if not given")
    add_option_argument(parser)
    parser.add_argument(
        "--store",
        type=_kinds,
        default=("series", "registration"),
        metavar="KIND[,KIND…]",
        help=f"what to store, of {', '.join(KINDS)} (default: series,registration)",
    )


def run(args: argparse.Namespace) -> int:
    """Fetch, register, store; prints the verdict and the new UIDs. 0 done, 3 failed."""
    from retreg_server.dicom.dicomweb import fetched_image

    archive = archive_named(archives_of(args.config, os.environ), args.archive)
    with ProgressBar() as bar:
        fixed, fixed_source = fetched_image(archive, args.fixed, _bounds(), bar)
        moving, moving_source = fetched_image(archive, args.moving, _bounds(), bar)
        sources = (fixed_source, moving_source)
        refuse_unusable(moving, *sources)
        result = _register(args, fixed, moving, bar)
        failed, stored = result.quality.verdict == "fail", {}
        if not failed:
            made = Registered(fixed, moving, sources, result, version("retreg"))
            stored = _store(archive, made, args.store, bar)
    print(f"{result.quality.verdict}: {result.quality.reason}")
    for note in result.notes:
        print(f"Note: {note}")
    for series, uids in stored.items():
        print(f"Stored in series {series}: {len(uids)}")
    if failed:
        print("Nothing is stored: an archive should keep only what may be right.")
    return EXIT_FAILED if failed else 0


def _register(
    args: argparse.Namespace, fixed: Image, moving: Image, progress: Progress
) -> RegistrationResult:
    from retreg_server.registration import engine
    from retreg_server.registration.registry import default_model, get_model

    model = args.model or default_model(fixed, moving)
    options: dict[str, Scalar] = {"transform": args.transform} if args.transform else {}
    options = options_given(get_model(model).info, args.option, options)
    return engine.register(RegistrationRequest(fixed, moving, model, options), progress)


def _store(
    archive: Archive, made: Registered, kinds: tuple[str, ...], progress: Progress
) -> dict[str, list[str]]:
    from retreg_server.dicom.dicomweb import store_objects
    from retreg_server.dicom.object_folder import all_objects

    progress("storing in the archive", 0.95)
    objects = (data for _, data in all_objects(made, kinds))
    return store_objects(archive, objects, _bounds())


def _bounds() -> Bounds:
    from retreg_server.dicom.careful_session import Bounds

    return Bounds(MOST_BYTES, IDLE_S, TOTAL_S)


def _series(text: str) -> SeriesName:
    study, slash, series = text.partition("/")
    if not slash or not (_UID.fullmatch(study) and _UID.fullmatch(series)):
        raise argparse.ArgumentTypeError(
            f"{text!r} was given; two UIDs with a slash between them were expected"
        )
    return SeriesName(study, series)


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(part for part in text.split(",") if part))
    if not set(kinds) <= set(KINDS):
        raise argparse.ArgumentTypeError(
            f"{text!r} was given; some of {', '.join(KINDS)} with commas between were expected"
        )
    return kinds
