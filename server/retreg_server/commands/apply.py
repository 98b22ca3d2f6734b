"""`retreg apply TRANSFORM… --like FIXED IMAGE -o OUT`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from retreg.errors import OptionError
from retreg.files.sequences import Sequence, read_sequence
from retreg.geometry import Grid
from retreg.inverse import inverse_of, largest_residual_mm
from retreg.transforms import Affine, Transform, as_field
from retreg_server.commands.transform_chain import ORDER, add_geometry_arguments, chain_of

HELP = "take an image, a label map or points along with transforms of this or another program"
TOLERANCE_VOXELS = 1e-3  # by which an image may be off; points are exact
RESIDUAL_TOLD = 1e-3  # of the unit of the world


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("transforms", nargs="+", metavar="TRANSFORM", help=ORDER)
    parser.add_argument(
        "--like", type=Path, nargs="+", metavar=("FIXED", "IMAGE"),
        help="the image whose grid the result gets, and the one to take there, which may also be "
        "the last of the words before; FIXED may be left out after a folder of results",
    )  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT")
    parser.add_argument(
        "--points", type=Path, metavar="FILE",
        help="take points from the fixed to the moving image in place of an image: .csv with the "
        "columns x, y and z (LPS mm; pixels for pictures without a scale), .mrk.json, .fcsv, .json",
    )  # fmt: skip
    parser.add_argument(
        "--inverse", action="store_true",
        help="the other way round: images from fixed to moving, points from moving to fixed",
    )  # fmt: skip
    parser.add_argument("--labels", action="store_true", help="keep values: nearest neighbour")
    parser.add_argument(
        "--fill", type=float, metavar="VALUE",
        help="what stands beyond the image; its background by default, 0 for labels",
    )  # fmt: skip
    parser.add_argument(
        "--nifti-geometry", choices=("sform", "qform"), default="itk",
        help="place NIfTI files by this one; by default as ITK does",
    )  # fmt: skip
    add_geometry_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Take an image or points along; returns 0."""
    if args.points:
        _take_points(args)
    else:
        _take_image(args)
    print(f"Wrote {args.out}.")
    return 0


def _take_points(args: argparse.Namespace) -> None:
    from retreg.files.point_tables import read_points, write_points

    given = [name for name, value in (("--labels", args.labels), ("--fill", args.fill is not None),
                                      ("--like", args.like)) if value]  # fmt: skip
    if given:
        raise OptionError(f"{given[0]} belongs to images and does nothing with --points; leave it.")
    if args.out.suffix.lower() != args.points.suffix.lower():
        raise OptionError(
            f"Points are written as they came; {args.out.name} should end in "
            f"{args.points.suffix}."
        )
    file = read_points(args.points)
    transform = _transform(args, args.transforms, _grid(args, "fixed"), _grid(args, "moving"))
    moved = transform(file.points)
    write_points(args.out, file, moved)
    _tell_residual(transform, file.points)


def _take_image(args: argparse.Namespace) -> None:
    from retreg.files.sequences import write_sequence
    from retreg.resample import resample

    words, like, path = _named(args)
    sequence = read_sequence(path, nifti_geometry=args.nifti_geometry)
    onto = read_sequence(like, nifti_geometry=args.nifti_geometry).frames[0].grid
    image = sequence.frames[0].grid
    fixed, moving = (image, onto) if args.inverse else (onto, image)
    given = [_grid(args, role) for role in ("fixed", "moving")]
    transform = _transform(args, words, given[0] or fixed, given[1] or moving)
    _tell_residual(transform, onto.lattice(max(1, max(onto.size) // 16)))
    tolerance = TOLERANCE_VOXELS * float(onto.spacing[: 2 if onto.is_plane else 3].min())
    if len(sequence.frames) > 1 and not isinstance(transform, Affine):
        transform = as_field(transform, onto, tolerance)  # found once, not for every volume
    frames = tuple(
        resample(frame, transform, onto, args.labels, args.fill, tolerance)
        for frame in sequence.frames
    )
    write_sequence(args.out, Sequence(frames, sequence.step, sequence.as_list, sequence.texts))


def _named(args: argparse.Namespace) -> tuple[list[str], Path, Path]:
    """The transforms, the image that gives the grid, and the image to take there."""
    words, like = list(args.transforms), list(args.like or ())
    if len(like) > 2:
        raise OptionError("After --like, the fixed image and one image to take there are expected.")
    if len(like) < 2 and len(words) < 2:
        raise OptionError(
            "No image was named; retreg apply TRANSFORM --like FIXED IMAGE -o OUT was expected, or "
            "--points FILE."
        )
    image = like[1] if len(like) == 2 else Path(words.pop())
    if like:
        return words, like[0], image
    fixed = Path(words[0]) / "fixed.nrrd"
    if args.inverse or not fixed.is_file():
        raise OptionError("Which grid the result gets is not known; name an image with --like.")
    return words, fixed, image


def _transform(
    args: argparse.Namespace, words: list[str], fixed: Grid | None, moving: Grid | None
) -> Transform:
    transform = chain_of(words, fixed, moving)
    return inverse_of(transform) if args.inverse else transform


def _grid(args: argparse.Namespace, role: str) -> Grid | None:
    path = getattr(args, role)
    if path is None:
        return None
    return read_sequence(path, nifti_geometry=args.nifti_geometry).frames[0].grid


def _tell_residual(transform: Transform, points: np.ndarray) -> None:
    """Say so where an inverse does not reach the points, as where a transform folds."""
    residual = largest_residual_mm(transform, points)
    if residual > RESIDUAL_TOLD:
        print(
            f"Note: the inverse misses by up to {residual:.3g} mm (pixels for pictures without a "
            "scale), since the transform folds or does not reach there."
        )
