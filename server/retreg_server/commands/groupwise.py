"""`retreg groupwise IMAGES… -o DIR`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from retreg.about import refuse_scans_as_photographs
from retreg.errors import OptionError
from retreg.image import Image
from retreg.messages import RegistrationResult, Scalar
from retreg_server.commands.exit_status import EXIT_FAILED
from retreg_server.commands.option_arguments import add_option_argument, options_given

if TYPE_CHECKING:
    from retreg_server.registration.groupwise.group import Group
    from retreg_server.registration.keymorph.model import KeyMorph

HELP = "register many images to their mean and write the mean, all transforms and their quality"
FAMILIES = ("affine", "rigid", "similarity", "quadratic", "tps")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE",
        help="two or more files or DICOM folders; the first one gives grid and orientation",
    )  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--frame", type=int, metavar="N",
        help="take picture N of DICOM files that hold several; the first is 1",
    )  # fmt: skip
    parser.add_argument("--model", help="keymorph-brain or keymorph-fundus; chosen by default")
    parser.add_argument(
        "--transform", choices=FAMILIES,
        help="by default quadratic for pictures and affine for volumes",
    )  # fmt: skip
    parser.add_argument("--smoothing", type=float, help="of --transform tps")
    add_option_argument(parser)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def run(args: argparse.Namespace) -> int:
    """Register the group; 0 when all are accepted or to be checked, 3 when one fails or is left
    out of the mean."""
    from retreg_server.commands.register import ProgressBar
    from retreg_server.reporting.result_folder import check_writable, write_outputs

    check_writable(args.out)
    images = _read(args)
    from retreg_server.registration.groupwise.group import register_group  # loads torch

    model = _model(args.model, images[0])
    options: dict[str, Scalar] = {"device": args.device}
    if args.smoothing is not None:
        options["smoothing"] = args.smoothing
    if args.transform:
        options["transform"] = args.transform
    options = options_given(model.info, args.option, options)
    if "smoothing" in options and args.transform != "tps":
        raise OptionError("The option smoothing belongs to --transform tps; leave it or give that.")
    names = folder_names(args.images)
    _check_outputs(args, names, images)
    with ProgressBar() as bar:
        group = register_group(model, images, options, bar)
        bar("writing", 0.95)
        for name, image, result in zip(names, images, group.results, strict=True):
            check_writable(args.out / name)
            write_outputs(args.out / name, group.template, image, result)
        write_template(args.out, group.template)
    (args.out / "groupwise.json").write_text(
        json.dumps({"rounds": group.rounds, "images": _verdicts(names, group.results)}, indent=2),
        encoding="utf-8",
    )
    _tell(args, names, group)
    failed = any(result.quality.verdict == "fail" for result in group.results)
    return EXIT_FAILED if failed or group.left_out else 0


def _read(args: argparse.Namespace) -> list[Image]:
    """The images, which may be one group. Raises InputError before a model is loaded."""
    from retreg.files import read_images
    from retreg_server.registration.subject import refuse_other_kinds

    images = read_images([(path, args.frame) for path in args.images])
    by_name = dict(zip(folder_names(args.images), images, strict=True))
    refuse_other_kinds(by_name)
    if args.model is None:
        refuse_scans_as_photographs(by_name)
    return images


def _tell(args: argparse.Namespace, names: list[str], group: Group) -> None:
    """Print the verdicts, where the mean is, and what was left out of it."""
    for name, result in zip(names, group.results, strict=True):
        print(f"{name}: {result.quality.verdict}: {result.quality.reason}")
    print(f"The mean is {args.out / 'template.nrrd'}; each image has a folder beside it.")
    if group.left_out:
        print(f"Left out of the mean: {', '.join(names[n] for n in group.left_out)}.")


def _check_outputs(args: argparse.Namespace, names: list[str], images: list[Image]) -> None:
    """Raise FileError for what would fail when the results are written."""
    from retreg_server.reporting.output_room import check_room, needed_bytes
    from retreg_server.reporting.result_folder import RESULT_FILES, check_writable

    curved = args.transform not in ("rigid", "similarity", "affine")
    count = sum(needed_bytes(images[0], image, curved, maps=False) for image in images)
    for name in names:
        check_writable(args.out / name)
        check_room(args.out / name, RESULT_FILES, count)
    check_room(args.out, ("template.nrrd", "template.png", "groupwise.json"), count)


def _verdicts(
    names: list[str], results: tuple[RegistrationResult, ...]
) -> dict[str, dict[str, Scalar | None]]:
    return {
        name: {
            "verdict": result.quality.verdict,
            "reason": result.quality.reason,
            "keypoint_rms_mm": result.quality.numbers.get("keypoint_rms_mm"),
            "share": result.quality.numbers["share"],
        }
        for name, result in zip(names, results, strict=True)
    }


def write_template(folder: Path, template: Image) -> None:
    """Write template.nrrd (0 to 1), and template.png of a picture. Raises FileError."""
    import numpy as np

    from retreg.files import write_image

    write_image(folder / "template.nrrd", template)
    if template.is_picture:
        shown = (255 * np.clip(template.array, 0, 1)).round().astype(np.uint8)
        write_image(folder / "template.png", Image(shown, template.grid))


def folder_names(paths: list[Path]) -> list[str]:
    """One folder name per image: its number in the list, and its file name without endings."""
    return [f"{n:02d}-{path.name.split('.')[0]}" for n, path in enumerate(paths, start=1)]


def _model(name: str | None, first: Image) -> KeyMorph:
    from retreg_server.registration.keymorph.model import KeyMorph
    from retreg_server.registration.registry import get_model
    from retreg_server.registration.subject import subject_of

    chosen = name or subject_of(first).keypoint_model
    model = get_model(chosen)
    if not isinstance(model, KeyMorph):
        raise OptionError(
            f"{chosen} finds no corresponding keypoints; use keymorph-brain or keymorph-fundus."
        )
    return model
