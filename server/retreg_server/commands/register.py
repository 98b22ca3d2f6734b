"""`retreg register FIXED MOVING -o DIR`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retreg.errors import OptionError
from retreg.image import Image
from retreg.messages import RegistrationRequest, RegistrationResult, Scalar
from retreg.transforms import Affine
from retreg_server.commands.exit_status import EXIT_FAILED
from retreg_server.commands.option_arguments import add_option_argument, options_given

if TYPE_CHECKING:
    from retreg.dicom.source import Source

HELP = "register a moving image to a fixed one and write the transform, pictures and quality"
FAMILIES = ("rigid", "similarity", "affine", "quadratic", "tps", "deformable")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    images = "PNG, JPEG, TIFF, NRRD, NIfTI, MHA, MGZ, a DICOM file or a DICOM series folder"
    parser.add_argument("fixed", type=Path, metavar="FIXED", help=f"the image to keep: {images}")
    parser.add_argument("moving", type=Path, metavar="MOVING", help="the image to bring onto it")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    _add_reading_arguments(parser)
    parser.add_argument("--model", help="see `retreg models`; chosen from the images by default")
    parser.add_argument("--transform", choices=FAMILIES, help="the model's default if not given")
    parser.add_argument(
        "--smoothing",
        type=_smoothings,
        default=(),
        metavar="X[,X…]",
        help="of --transform tps; 0 interpolates, inf is affine. Several values, as in 0,0.1,1, "
        "give one folder each",
    )
    parser.add_argument(
        "--initial", metavar="FILE|identity|centres|geometry",
        help="look near this map only: a transform of any program, as the images lie in the world, "
        "or the centre of what they show (of their grids) on each other; the verdict judges all "
        "the same",
    )  # fmt: skip
    add_option_argument(parser)
    _add_output_arguments(parser)
    parser.add_argument("--server", metavar="URL", help="run on a server, not in this process")
    parser.add_argument("--token-file", type=Path, metavar="F", help="holds the server's token")
    parser.add_argument("--ca-file", type=Path, metavar="F", help="holds its authority, for TLS")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    telling = parser.add_mutually_exclusive_group()
    telling.add_argument("--quiet", action="store_true", help="print nothing but errors")
    telling.add_argument(
        "--json", action="store_true", help="print what result.json says, in one line"
    )


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """What is written."""
    parser.add_argument(
        "--maps",
        nargs="?",
        const="transform",
        choices=("transform", "vessels"),
        help="also write maps: distance there and back, displacement, Jacobian determinant and, "
        "for pictures, change of angles; vessels: also a label map of vessels of FIXED, a retina",
    )
    parser.add_argument(
        "--fill",
        type=float,
        metavar="VALUE",
        help="what stands in warped.nrrd beyond the moving image; its background by default",
    )
    parser.add_argument(
        "--dicom",
        action="store_true",
        help="also write DICOM objects into DIR/dicom: the registered series, the registration and "
        "the keypoints; FIXED and MOVING must be DICOM",
    )


def _add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """How files are read that may be understood in several ways."""
    for role in ("fixed", "moving"):
        parser.add_argument(
            f"--{role}-mask", type=Path, metavar="FILE",
            help=f"an image, drawn on {role.upper()} or resampled to it; what is 0 there counts "
            "neither in the registration nor in the verdict",
        )  # fmt: skip
    frames = {"--frame": "both files", "--fixed-frame": "FIXED", "--moving-frame": "MOVING"}
    for name, which in frames.items():
        text = f"take picture N of {which} where one DICOM file holds several; the first is 1"
        parser.add_argument(name, type=int, metavar="N", help=text)
    parser.add_argument(
        "--nifti-geometry",
        choices=("sform", "qform"),
        default="itk",
        help="place NIfTI files by this one; by default as ITK, and so SimpleITK and Slicer, do",
    )


def run(args: argparse.Namespace) -> int:
    """Register, write the results, print the verdict; 0 for accept and check, 3 for fail."""
    from retreg.files import read_pair
    from retreg_server.reporting.result_folder import check_writable, cleared, refuse_inputs_within

    check_writable(args.out)
    refuse_inputs_within(args.out, [args.fixed, args.moving, *_masks(args).values()])
    fixed, moving = read_pair(*_inputs(args), _masks(args), args.nifti_geometry)
    _check_outputs(args, fixed, moving)
    objects = _dicom_sources(args, moving)
    vessels = _vessels(fixed) if args.maps == "vessels" else None
    with ProgressBar(args.quiet) as bar:
        with cleared(args.out):
            results = _register(args, fixed, moving, bar)
        bar("writing", 0.95)
        _write(args, fixed, moving, results, objects, vessels)
    for folder, result in zip(_folders(args), results, strict=True):
        _tell(args, folder, result)
    return EXIT_FAILED if any(r.quality.verdict == "fail" for r in results) else 0


def _write(
    args: argparse.Namespace,
    fixed: Image,
    moving: Image,
    results: Sequence[RegistrationResult],
    objects: tuple[Source, Source] | None,
    vessels: Image | None,
) -> None:
    """Write a folder for each result; objects: what DICOM objects refer to, if some are wanted."""
    from retreg_server.reporting.result_folder import check_writable, write_outputs
    from retreg_server.reporting.sources import source_of

    sources = source_of(args.fixed), source_of(args.moving)
    for folder, result in zip(_folders(args), results, strict=True):
        check_writable(folder)
        write_outputs(folder, fixed, moving, result, bool(args.maps), args.fill, sources, vessels)
        if objects and result.quality.verdict != "fail":
            from retreg.dicom.objects import Registered
            from retreg_server.dicom.object_folder import write_objects

            write_objects(folder, Registered(fixed, moving, objects, result, version("retreg")))


def _tell(args: argparse.Namespace, folder: Path, result: RegistrationResult) -> None:
    """Print the verdict for people, the content of result.json in a line, or nothing."""
    if args.json:
        content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        print(json.dumps({"folder": str(folder), **content}))
    elif not args.quiet:
        print(f"{result.quality.verdict}: {result.quality.reason}")
        for note in result.notes:
            print(f"Note: {note}")
        print(f"Results are in {folder}; look at {folder / 'overlay.png'}.")
        if args.dicom and result.quality.verdict == "fail":
            print("There are no DICOM objects: an archive should keep only what may be right.")
        if args.maps and result.backward is None:
            print("There is no map of the error: the server sent no transform back.")


def _masks(args: argparse.Namespace) -> dict[str, Path]:
    """The masks that were given, by the role of their image."""
    given = {"fixed": args.fixed_mask, "moving": args.moving_mask}
    return {role: path for role, path in given.items() if path}


def _vessels(fixed: Image) -> Image:
    from retreg_server.registration.engine import vessel_labels  # not needed with --server

    return vessel_labels(fixed)


def _inputs(
    args: argparse.Namespace
) -> tuple[tuple[Path, int | None], tuple[Path, int | None]]:
    """Path and frame of the fixed and of the moving image."""
    frames = ((args.fixed, args.fixed_frame), (args.moving, args.moving_frame))
    fixed, moving = ((path, args.frame if frame is None else frame) for path, frame in frames)
    return fixed, moving


def _dicom_sources(args: argparse.Namespace, moving: Image) -> tuple[Source, Source] | None:
    """What DICOM objects refer to, if some are wanted. Raises FileError when there can be none."""
    if not args.dicom:
        return None
    from retreg.dicom.objects import refuse_unusable
    from retreg.dicom.source import source_of as dicom_source_of

    fixed_source, moving_source = (dicom_source_of(*each) for each in _inputs(args))
    refuse_unusable(moving, fixed_source, moving_source)
    return fixed_source, moving_source


def _check_outputs(args: argparse.Namespace, fixed: Image, moving: Image) -> None:
    """Raise FileError or OptionError for what would fail when the results are written."""
    from retreg.background import fill_values
    from retreg_server.reporting.output_room import (
        check_room,
        needed_bytes,
        refuse_large_result,
    )
    from retreg_server.reporting.result_folder import RESULT_FILES, check_writable

    fill_values(moving, args.fill)
    refuse_large_result(fixed, moving)
    curved = args.transform not in ("rigid", "similarity", "affine")
    folders = _folders(args)
    count = len(folders) * needed_bytes(fixed, moving, curved, bool(args.maps))
    for folder in folders:
        check_writable(folder)
        check_room(folder, RESULT_FILES, count)


def _folders(args: argparse.Namespace) -> list[Path]:
    """Where each result goes: a sweep has a folder for every smoothing."""
    from retreg_server.reporting.result_folder import SWEEP

    if len(args.smoothing) < 2:
        return [args.out]
    return [args.out / SWEEP.format(f"{smoothing:g}") for smoothing in args.smoothing]


def _register(
    args: argparse.Namespace, fixed: Image, moving: Image, report: Callable[[str, float], None]
) -> tuple[RegistrationResult, ...]:
    """One result, or one for each smoothing of a sweep."""
    from retreg_server.registration.registry import default_model

    options: dict[str, Scalar] = {"transform": args.transform} if args.transform else {}
    model = args.model or default_model(fixed, moving)
    if args.server:
        every = [{**options, "smoothing": x} for x in args.smoothing] or [options]
        return tuple(
            _register_on_server(args, fixed, moving, model, each, report) for each in every
        )
    from retreg_server.registration import engine
    from retreg_server.registration.registry import get_model

    info = get_model(model).info
    options = _device_option(args.device, model) | options_given(info, args.option, options)
    for smoothing in args.smoothing:
        info.refuse_idle({**options, "smoothing": smoothing})
    info.refuse_idle(options)
    if len(args.smoothing) > 1:
        if args.initial:
            raise OptionError("Several smoothings come of a search; leave --initial or give one.")
        request = RegistrationRequest(fixed, moving, model, options)
        return engine.register_sweep(request, args.smoothing, report)
    if args.smoothing:
        options["smoothing"] = args.smoothing[0]
    request = RegistrationRequest(fixed, moving, model, options, _initial(args, fixed, moving))
    return (engine.register(request, report),)


def _initial(args: argparse.Namespace, fixed: Image, moving: Image) -> Affine | None:
    from retreg.initial import initial_map

    return initial_map(args.initial, fixed, moving) if args.initial else None


def _smoothings(text: str) -> tuple[float, ...]:
    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} was given; a number or numbers with commas between them were expected"
        ) from error


def _register_on_server(
    args: argparse.Namespace,
    fixed: Image,
    moving: Image,
    model: str,
    options: dict[str, Scalar],
    report: Callable[[str, float], None],
) -> RegistrationResult:
    from retreg.client import Client
    from retreg_server.serving.setting_sources import token

    if args.device != "auto":
        raise OptionError("A server chooses its own device; use --device without --server only.")
    with Client(args.server, token(args.token_file), ca_file=args.ca_file) as client:
        for info in client.models() if args.option or args.smoothing else ():
            if info.name == model:
                options = options_given(info, args.option, options)
                info.refuse_idle(options)
        wanted: dict[str, Any] = {**options, "initial": _initial(args, fixed, moving)}
        return client.register(fixed, moving, model=model, progress=report, **wanted)


def _device_option(device: str, model: str) -> dict[str, Scalar]:
    """The option that asks for a device; models without a network know the CPU only."""
    from retreg_server.registration.registry import get_model

    if any(option.name == "device" for option in get_model(model).info.options):
        return {"device": device}
    if device == "cuda":
        raise OptionError(f"{model} runs on the CPU; use --device auto or cpu.")
    return {}


class ProgressBar:
    """A bar on standard error that shows the stage; silent when that is not a terminal."""

    def __init__(self, is_quiet: bool = False) -> None:
        self._is_quiet = is_quiet

    def __enter__(self) -> ProgressBar:
        from tqdm import tqdm

        self._bar = tqdm(
            total=1.0,
            disable=self._is_quiet or not sys.stderr.isatty(),
            leave=False,
            bar_format="{l_bar}{bar}| {elapsed}",
        )
        return self

    def __call__(self, stage: str, fraction: float) -> None:
        """Show the stage that begins and the fraction (0 to 1) of the work that is done."""
        self._bar.set_description(f"{stage:<24.24}", refresh=False)
        self._bar.n = fraction
        self._bar.refresh()

    def __exit__(self, *_exception: object) -> None:
        self._bar.close()
