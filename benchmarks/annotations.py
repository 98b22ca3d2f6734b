# ruff: noqa: T201 - a script that prints its result
"""Annotations burned into both pictures of a pair: python benchmarks/annotations.py DATA

Burns grids, scan rasters, captions, watermarks, dirt and more into pairs of different eyes, which
must not be accepted, and into pairs of one eye, which must stay right. Prints what went wrong.
DATA is the folder of test images of `retreg evaluate`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from annotation_layers import KINDS, Layer

from retreg.errors import RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import RegistrationRequest
from retreg_server.evaluation.bench import scores_of
from retreg_server.evaluation.cases import Case, Pair, random_for, subset
from retreg_server.evaluation.retina import different_eyes, retina_cases
from retreg_server.registration.engine import register

SETS = ("multimodal", "same-eye")
RESCALED = 0.93  # of the size: how the second picture differs where "rescaled" is measured


def burned(pair: Pair, kind: str, seed: str, where: str = "both") -> Pair:
    """The pair with one annotation: in "both", in "one", or "rescaled" in the second.

    A moving picture of another size is brought to that of the fixed one, as a viewer does.
    """
    shape = (pair.fixed.grid.shape[1], pair.fixed.grid.shape[2])
    layer = KINDS[kind](random_for(seed), shape)
    if where == "rescaled":
        return replace(pair, fixed=layer.over(pair.fixed), moving=_exported(pair.moving, layer))
    moving = pair.moving if where == "one" else layer.over(pair.moving)
    return replace(pair, fixed=layer.over(pair.fixed), moving=moving)


def _exported(picture: Image, layer: Layer) -> Image:
    """The annotated picture saved at another size; its grid still lies in the same world."""
    array = np.moveaxis(layer.over(picture).array[:, 0], 0, -1)
    height, width = (round(RESCALED * n) for n in array.shape[:2])
    small = cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA)
    matrix = picture.grid.world_from_index @ np.diag([1 / RESCALED, 1 / RESCALED, 1.0, 1.0])
    channels = np.moveaxis(np.atleast_3d(small), -1, 0)[:, None]
    return Image(channels, Grid((width, height, 1), matrix))


def same_size(pair: Pair) -> Pair:
    """The moving picture resized to the fixed one (a wrong pair has no points to move)."""
    if pair.fixed.grid.size == pair.moving.grid.size:
        return pair
    width, height, _ = pair.fixed.grid.size
    array = np.moveaxis(pair.moving.array[:, 0], 0, -1)
    resized = np.atleast_3d(cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA))
    moving = Image(np.moveaxis(resized, -1, 0)[:, None].copy(), Grid.of_picture(width, height))
    return replace(pair, moving=moving)


@dataclass(frozen=True)
class Outcome:
    """What became of one pair: its verdict, the error in reference pixels, and without marks."""

    kind: str
    name: str
    right: bool
    verdict: str
    error: float
    numbers: dict[str, float]


def outcome(case: Case, pair: Pair, kind: str) -> Outcome:
    """Register and compare with the truth."""
    try:
        result = register(RegistrationRequest(pair.fixed, pair.moving, "auto-fundus", {}))
    except RegistrationError:
        return Outcome(kind, case.name, case.right, "fail", np.nan, {})
    error = scores_of(case, pair, result.transform).get("error", np.nan)
    quality = result.quality
    return Outcome(kind, case.name, case.right, quality.verdict, error, dict(quality.numbers))


def cases_of(data: Path, half: int | None) -> tuple[list[Case], list[Case]]:
    """Right pairs, and all ordered pairs of different eyes; half: 0 or 1 of the eyes, or all."""
    right = [case for case in retina_cases(data) if case.benchmark_set in SETS]
    right = right if half is None else right[half::2]
    wrong = [
        Case("different-eyes", f"{a.name}-{b.name}", lambda a=a, b=b: mixed(a, b), right=False)
        for a, b in different_eyes(right)
    ]
    return right, wrong


def mixed(first: Case, second: Case) -> Pair:
    """The fixed picture of one case and the moving picture of another one."""
    return same_size(Pair(first.load().fixed, second.load().moving))


def outcomes(
    cases: list[Case], kinds: list[str], where: str, part: slice, draws: int = 1
) -> Iterator[Outcome]:
    """Each case of the part with so many annotations, the kinds in turn."""
    for draw in range(draws):
        for number in range(len(cases))[part]:
            case, kind = cases[number], kinds[(number + 5 * draw) % len(kinds)]
            seed = f"{kind} {case.name} {draw}" if draw else f"{kind} {case.name}"
            yield outcome(case, burned(case.load(), kind, seed, where), kind)


def report(found: Iterator[Outcome], what: str) -> list[Outcome]:
    """Print a line for each outcome that is wrong, and one that counts all."""
    every = []
    for one in found:
        every.append(one)
        if (one.verdict == "accept") != one.right:
            print(f"{what}: {one.kind} on {one.name}: {one.verdict}", flush=True)
    accepted = sum(one.verdict == "accept" for one in every)
    print(f"{what}: {accepted} of {len(every)} accepted", flush=True)
    return every


def main() -> None:
    """Print accepted wrong pairs, right pairs that are not, and what the annotation costs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--wrong", type=int, default=700, help="pairs of different eyes")
    parser.add_argument("--right", type=int, default=44, help="pairs of one eye")
    parser.add_argument("--draws", type=int, default=1, help="annotations of each pair of one eye")
    parser.add_argument("--half", type=int, choices=(0, 1), help="one half of the eyes only")
    parser.add_argument("--where", choices=("both", "one", "rescaled"), default="both")
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("K", "N"),
                        help="every Nth pair from the Kth, so that N runs share the work")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    right, wrong = cases_of(args.data, args.half)
    wrong, right = subset(wrong, args.wrong), subset(right, args.right)
    part = slice(args.part[0], None, args.part[1])
    plain = report((outcome(case, case.load(), "none") for case in right[part]), "right, plain")
    marked = outcomes(right, args.kinds, args.where, part, args.draws)
    before = {one.name: one.error for one in plain}
    more = [
        one.error - before[one.name]
        for one in report(marked, "right, annotated") if one.verdict == "accept"
    ]  # fmt: skip
    if more:
        print(f"error: {np.nanmedian(more):+.2f} px in the median, {np.nanmax(more):+.2f} at most")
    report(outcomes(wrong, args.kinds, args.where, part), "wrong, annotated")


if __name__ == "__main__":
    main()
