"""`retreg convert TRANSFORM… -o FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from retreg.errors import OptionError
from retreg.files import write_transform
from retreg.files.fsl import write_flirt
from retreg.files.lta import write_lta
from retreg.files.sequences import read_sequence
from retreg.geometry import Grid
from retreg.inverse import inverse_of
from retreg.transforms import Affine, Chain, Transform
from retreg_server.commands.transform_chain import ORDER, add_geometry_arguments, chain_of

HELP = "write transforms of this or another program as one file of another format"
ENDINGS = ".h5, .tfm, .mat (ANTs), .nrrd, .nii.gz or .mha (displacement fields), or .lta"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("transforms", nargs="+", metavar="TRANSFORM", help=ORDER)
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE", help=f"ends in {ENDINGS}"
    )
    parser.add_argument("--flirt", action="store_true", help="write the matrix of FSL's flirt")
    parser.add_argument("--inverse", action="store_true", help="write the way back")
    add_geometry_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Convert; returns 0."""
    fixed, moving = (
        None if path is None else read_sequence(path).frames[0].grid
        for path in (args.fixed, args.moving)
    )
    transform = _as_affine(chain_of(args.transforms, fixed, moving))
    if args.inverse:
        transform, fixed, moving = inverse_of(transform), moving, fixed
    if args.flirt or args.out.suffix.lower() == ".lta":
        _write_between_images(args, transform, fixed, moving)
    else:
        if fixed is None and not isinstance(transform, Affine):
            needed = "moving" if args.inverse else "fixed"
            raise OptionError(
                "A curved transform is written as a displacement field; name the image whose grid "
                f"it covers with --{needed}."
            )
        write_transform(args.out, transform, fixed or Grid((1, 1, 1), np.eye(4)))
    print(f"Wrote {args.out}.")
    return 0


def _as_affine(transform: Transform) -> Transform:
    """A chain of affines as the one that it is."""
    parts = transform.transforms if isinstance(transform, Chain) else (transform,)
    matrix = np.eye(4)
    for part in parts:
        if not isinstance(part, Affine):
            return transform
        matrix = part.moving_from_fixed @ matrix
    return Affine(matrix)


def _write_between_images(
    args: argparse.Namespace, transform: Transform, fixed: Grid | None, moving: Grid | None
) -> None:
    kind = "flirt" if args.flirt else "FreeSurfer's .lta"
    if not isinstance(transform, Affine):
        raise OptionError(f"The format of {kind} holds affine transforms; this one is curved.")
    if fixed is None or moving is None:
        raise OptionError(f"The format of {kind} needs both images; name them with --fixed and "
                          "--moving.")  # fmt: skip
    (write_flirt if args.flirt else write_lta)(args.out, transform, fixed, moving)
