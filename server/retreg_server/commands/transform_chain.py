"""The transforms of `retreg apply` and `retreg convert`: several files in a row are one."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from retreg.errors import OptionError
from retreg.files import read_transform
from retreg.geometry import Grid
from retreg.inverse import inverse_of
from retreg.transforms import Chain, Transform

ORDER = (
    "one or more files, or folders that `retreg register` wrote, in the order in which a point "
    "passes from the fixed to the moving image, which is that of antsApplyTransforms; [FILE,1] "
    "inverts one of them"
)
_INVERTED = re.compile(r"\[(.+),\s*([01])\]")
_AFFINE, _WARP = "0GenericAffine.mat", "1Warp.nii.gz"


def add_geometry_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --fixed and --moving, the images that transforms of FSL count in."""
    for role in ("fixed", "moving"):
        text = f"the {role} image that the transforms were made of; transforms of FSL need it"
        parser.add_argument(f"--{role}", type=Path, metavar="FILE", help=text)


def chain_of(words: Sequence[str], fixed: Grid | None, moving: Grid | None) -> Transform:
    """The transform from fixed to moving points that the words of the command line name.

    Raises OptionError for transforms of ANTs in an order that cannot be meant, FileError for what
    cannot be read.
    """
    links = [_link(word) for word in words]
    _refuse_wrong_order([(path.name, is_inverted) for path, is_inverted in links])
    parts = []
    for path, is_inverted in links:
        part = read_transform(path, fixed, moving)
        parts.append(inverse_of(part) if is_inverted else part)
    return parts[0] if len(parts) == 1 else Chain(tuple(parts))


def _link(word: str) -> tuple[Path, bool]:
    bracketed = _INVERTED.fullmatch(word)
    return (Path(bracketed[1]), bracketed[2] == "1") if bracketed else (Path(word), False)


def _refuse_wrong_order(links: list[tuple[str, bool]]) -> None:
    """ANTs' warp lies on the fixed grid, so that its affine comes second."""
    names = [name for name, is_inverted in links if not is_inverted]
    affine = next((n for n, name in enumerate(names) if name.endswith(_AFFINE)), None)
    warp = next((n for n, name in enumerate(names) if name.endswith(_WARP)), None)
    if affine is not None and warp is not None and affine < warp:
        raise OptionError(
            f"{names[affine]} was given before {names[warp]}; points pass through the warp first, "
            f"so give {names[warp]} {names[affine]}, or for the way back "
            f"[{names[affine]},1] and the inverse warp."
        )
