"""Benchmark pairs of very different scale, and of fields that hardly overlap: parts of pictures.

A part is cut from one picture of a pair, turned and brought to any size; or both pictures lose
opposite sides, so that what is left of them overlaps little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Affine
from retreg_server.evaluation.cases import Case, Pair, random_for
from retreg_server.evaluation.known_truth import axis_rotation, foreground

SHARES = (1 / 3, 1 / 2)  # of the sides of the field
PIXELS = (400, 1300)  # along the longer side of a part
FINEST = 1.5  # pixels of the picture per pixel of its part
SHAPES = (0.75, 1.0)  # shorter over longer side
UPRIGHT_DEG = 5.0  # by which an upright part may be turned
OVERLAP = 0.225  # of each of two pictures without opposite sides
FEWEST_POINTS, TRIES = 3, 100
SIDES = ((0, 1), (0, -1), (1, 1), (1, -1))  # axis, and 1 where the fixed picture keeps its start
Cut = Callable[[Pair, str], Pair]
Place = tuple[Affine, tuple[int, int], np.ndarray]  # whole from part, size, which points it shows


def part_cases(right: Sequence[Case], wrong: Sequence[tuple[Case, Case]]) -> list[Case]:
    """Parts at SHARES, upright and turned, and two sides, of right cases and of two eyes each."""
    cuts: dict[str, Cut] = {
        f"1/{round(1 / share)}{' turned' if turned else ''}": partial(
            part_of_pair, share=share, turned=turned
        )
        for share in SHARES
        for turned in (False, True)
    }
    cuts["sides"] = two_sides
    found = []
    for name, cut in cuts.items():
        found += [_cut(name, case, cut) for case in right]
        found += [_cut_of_two(name, *cases, cut) for cases in wrong]
    return found


def _cut(name: str, case: Case, cut: Cut) -> Case:
    def load() -> Pair:
        return cut(case.load(), f"{name} {case.name}")

    return replace(case, benchmark_set=name, load=load)


def _cut_of_two(name: str, first: Case, second: Case, cut: Cut) -> Case:
    both = f"{first.name}-{second.name}"

    def load() -> Pair:
        return cut(Pair(first.load().fixed, second.load().moving), f"{name} {both}")

    return Case(f"{name}, different eyes", both, load, right=False)


def part_of_pair(pair: Pair, name: str, share: float, turned: bool) -> Pair:
    """One picture of the pair, by chance, against a part of the other one.

    The part has share of the sides of the field, and FEWEST_POINTS where the pair has points.
    name: what chance depends on.
    """
    random = random_for(name)
    angle = random.uniform(0, 360) if turned else random.uniform(-UPRIGHT_DEG, UPRIGHT_DEG)
    of_moving = random.random() < 0.5
    picture, points = (
        (pair.moving, pair.original_points) if of_moving else (pair.fixed, pair.fixed_points)
    )
    whole_from_part, size, shown = _place(picture, points, share, angle, random)
    part = resample(picture, whole_from_part, Grid.of_picture(*size), fill=0)
    kept = replace(
        pair, fixed_points=pair.fixed_points[shown], original_points=pair.original_points[shown]
    )
    if of_moving:
        return replace(kept, moving=part, original_from_moving=whole_from_part)
    return replace(kept, fixed=part, fixed_points=whole_from_part.inverse(kept.fixed_points))


def _place(
    picture: Image, points: np.ndarray, share: float, angle: float, random: np.random.Generator
) -> Place:
    """Of the random places inside the field, the first that shows enough of the points (n, 3)."""
    _, rows, columns = np.nonzero(foreground(picture))
    low, high = (np.array([end(columns), end(rows)], float) for end in (np.min, np.max))
    stretch = random.uniform(*SHAPES) ** (0.5 * random.choice((1, -1)))
    sides = share * (high - low) * (stretch, 1 / stretch)
    scale = min(sides.max() / random.uniform(*PIXELS), FINEST)
    width, height = (int(n) for n in np.round(sides / scale))
    matrix = np.eye(4)
    matrix[:3, :3] = axis_rotation(np.array([0, 0, 1]), angle)
    matrix[:2, :2] *= scale
    found: list[Place] = []
    for _ in range(TRIES):
        centre = random.uniform(low + sides / 2, high - sides / 2)
        matrix[:2, 3] = centre - matrix[:2, :2] @ (np.array([width, height]) - 1) / 2
        whole_from_part = Affine(matrix.copy())
        places = whole_from_part.inverse(points)[:, :2]
        inside = (places > 0) & (places < np.array([width, height]) - 1)
        shown: np.ndarray = inside[:, 0] & inside[:, 1]
        found.append((whole_from_part, (width, height), shown))
        if len(points) == 0 or shown.sum() >= FEWEST_POINTS:
            break
    return max(found, key=lambda place: int(place[2].sum()))


def two_sides(pair: Pair, name: str) -> Pair:
    """The pair without opposite sides: of two like fields each shows OVERLAP of what is left.

    name: what chance depends on.
    """
    found: list[Pair] = []
    for number in random_for(name).permutation(len(SIDES)):
        found.append(_two_sides(pair, *SIDES[number]))
        if len(found[-1].fixed_points) >= FEWEST_POINTS:
            break
    return max(found, key=lambda each: len(each.fixed_points))


def _two_sides(pair: Pair, axis: int, kept: int) -> Pair:
    fixed, origin, of_fixed = _side(pair.fixed, axis, kept, pair.fixed_points)
    moving, original, of_moving = _side(pair.moving, axis, -kept, pair.original_points)
    matrix = np.eye(4)
    matrix[:3, 3] = original
    shown = of_fixed & of_moving
    return replace(
        pair,
        fixed=fixed,
        moving=moving,
        fixed_points=pair.fixed_points[shown] - origin,
        original_points=pair.original_points[shown],
        original_from_moving=Affine(matrix),
    )


def _side(
    picture: Image, axis: int, kept: int, points: np.ndarray
) -> tuple[Image, np.ndarray, np.ndarray]:
    """The start (kept = 1) or end (-1) of the picture, its origin, and which points it shows."""
    places = np.nonzero(foreground(picture)[0])[1 - axis]
    share = 0.5 + kept * OVERLAP / 2 / (2 - OVERLAP)
    edge = int(np.quantile(places, share))
    start, stop = (0, edge) if kept > 0 else (edge, picture.grid.size[axis])
    part = (slice(start, stop), slice(None))[:: 1 if axis else -1]
    array = np.ascontiguousarray(picture.array[..., *part])
    origin = np.zeros(3)
    origin[axis] = start
    shown = (points[:, axis] >= start) & (points[:, axis] < stop)
    return Image(array, Grid.of_picture(array.shape[3], array.shape[2])), origin, shown
