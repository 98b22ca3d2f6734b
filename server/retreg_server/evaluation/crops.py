"""Benchmark pairs of very different scale, and of fields that hardly overlap: parts of pictures.

A part is cut from one picture of a pair, turned and brought to any size; or both pictures lose
their opposite sides, so that what is left of them overlaps by OVERLAP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import permutations

import numpy as np

from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Affine
from retreg_server.evaluation.cases import Case, Pair, random_for
from retreg_server.evaluation.known_truth import axis_rotation, foreground

SHARES = (1 / 3, 1 / 2)  # of the sides of the field
SIZES = (400, 1300)  # pixels of the longer side of a part
SHAPES = (0.75, 1.0)  # shorter side over longer side
FINEST = 1.5  # pixels of the picture per pixel of its part
OVERLAP = 0.225  # of what each of two sides shows
FEWEST_POINTS, TRIES = 3, 100
SIDES = ((0, 1), (0, -1), (1, 1), (1, -1))  # axis, and which end of it is kept in the fixed one


def part_cases(cases: Sequence[Case], different: int, same_eye: Sequence[frozenset[str]]) -> list[Case]:
    """For each right case its parts at SHARES, upright and turned, and its two sides; and as many
    wrong ones of different eyes. same_eye: names of cases that show one eye."""
    right = [case for case in cases if case.right]
    wrong = [
        (a, b) for a, b in permutations(right, 2)
        if not any({a.name, b.name} <= names for names in same_eye)
    ]
    order = random_for("different eyes of parts").permutation(len(wrong))[:different]
    found = []
    for share in SHARES:
        for turned in (False, True):
            name = f"1/{round(1 / share)}{' turned' if turned else ''}"
            make = partial(part_of_pair, share=share, turned=turned)
            found += [_of(case, name, make) for case in right]
            found += [_of_two(wrong[n], name, make) for n in order]
    found += [_of(case, "sides", two_sides) for case in right]
    return found + [_of_two(wrong[n], "sides", two_sides) for n in order]


def _of(case, name, make):
    return replace(case, benchmark_set=name, load=lambda: make(case.load(), f"{name} {case.name}"))


def _of_two(cases, name, make):
    first, second = cases
    whole = f"{first.name}-{second.name}"

    def load() -> Pair:
        one, other = first.load(), second.load()
        return make(Pair(one.fixed, other.moving), f"{name} {whole}")

    return Case(f"{name}, different eyes", whole, load, right=False)


def part_of_pair(pair: Pair, name: str, share: float, turned: bool) -> Pair:
    """One picture of the pair, by chance, against a part of the other one."""
    random = random_for(name)
    angle = random.uniform(0, 360) if turned else random.uniform(-5, 5)
    if random.random() < 0.5:
        part, whole_from_part, shown = _part(pair.moving, pair.original_points, share, angle, random)
        return replace(
            pair, moving=part, original_from_moving=whole_from_part,
            fixed_points=pair.fixed_points[shown], original_points=pair.original_points[shown],
        )
    part, whole_from_part, shown = _part(pair.fixed, pair.fixed_points, share, angle, random)
    part_points = whole_from_part.inverse(pair.fixed_points[shown])
    return Pair(
        part, pair.moving, part_points, pair.original_points[shown],
        error_unit_mm=pair.error_unit_mm,
    )


def _part(picture, points, share, angle, random):
    """A part, the map from its world to that of the picture, and which points it shows."""
    low, high = _field(picture)
    field = (high - low)
    shape = np.array([1.0, random.uniform(*SHAPES)])[:: random.choice((1, -1))]
    sides = share * field * np.sqrt(shape / shape[::-1])
    pixels = min(random.uniform(*SIZES), 1e9)
    scale = min(sides.max() / pixels, FINEST)
    size = np.round(sides / scale).astype(int)
    linear = axis_rotation(np.array([0, 0, 1]), angle)
    linear[:2, :2] *= scale
    best = None
    for _ in range(TRIES):
        centre = random.uniform(low + sides / 2, high - sides / 2)
        matrix = np.eye(4)
        matrix[:3, :3] = linear
        matrix[:2, 3] = centre - linear[:2, :2] @ (size - 1) / 2
        whole_from_part = Affine(matrix)
        shown = np.zeros(0, bool)
        if len(points):
            there = whole_from_part.inverse(points)[:, :2]
            shown = ((there > 0) & (there < size - 1)).all(axis=1)
        if best is None or shown.sum() > best[1].sum():
            best = whole_from_part, shown
        if shown.sum() >= FEWEST_POINTS or not len(points):
            break
    whole_from_part, shown = best
    grid = Grid.of_picture(int(size[0]), int(size[1]))
    return resample(picture, whole_from_part, grid, fill=0), whole_from_part, shown


def _field(picture):
    k, j, i = np.nonzero(foreground(picture))
    return np.array([i.min(), j.min()], float), np.array([i.max(), j.max()], float)


def two_sides(pair: Pair, name: str) -> Pair:
    """The pair without opposite sides, so that what is left overlaps by OVERLAP."""
    random = random_for(name)
    best = None
    for number in random.permutation(len(SIDES)):
        found = _two_sides(pair, *SIDES[number])
        if best is None or len(found.fixed_points) > len(best.fixed_points):
            best = found
        if len(found.fixed_points) >= FEWEST_POINTS:
            break
    return best


def _two_sides(pair, axis, kept):
    cut = OVERLAP / 2 / (2 - OVERLAP)  # share of the field between the middle and either edge
    images, origins, shown = [], [], np.ones(len(pair.fixed_points), bool)
    for picture, sign, points in ((pair.fixed, kept, pair.fixed_points), (pair.moving, -kept, pair.original_points)):
        places = np.nonzero(foreground(picture)[0])[1 - axis]
        edge = int(np.quantile(places, 0.5 + sign * cut))
        size = picture.grid.size[axis]
        part = slice(0, edge) if sign > 0 else slice(edge, size)
        image = cut_picture(picture, axis, part)
        images.append(image[0]); origins.append(image[1])
        if len(points):
            shown &= (points[:, axis] >= part.start) & (points[:, axis] < part.stop)
    fixed_points = pair.fixed_points[shown] - origins[0] if len(pair.fixed_points) else pair.fixed_points
    matrix = np.eye(4); matrix[:3, 3] = origins[1]
    return Pair(images[0], images[1], fixed_points, pair.original_points[shown] if len(pair.original_points) else pair.original_points, Affine(matrix), pair.error_unit_mm)


def cut_picture(picture: Image, axis: int, part: slice):
    array = picture.array[..., part] if axis == 0 else picture.array[..., part, :]
    origin = np.zeros(3); origin[axis] = part.start
    return Image(np.ascontiguousarray(array), Grid.of_picture(array.shape[-1], array.shape[-2])), origin
