"""The deformable brain benchmark: labelled people, and contrasts of one brain under known warps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np
from scipy import ndimage

from retreg.geometry import Grid
from retreg.resample import resample
from retreg.transforms import DisplacementField
from retreg_server.evaluation.brain import ALIGNED, SAME_PERSON, Volume, labelled_pair, volumes_in
from retreg_server.evaluation.cases import Case, Pair, checked_cases, random_for, subset
from retreg_server.evaluation.known_truth import foreground_points

WARP_MM = 8.0  # root mean square over the volume
WARP_NODES = 4
STEP_MM = 6.0  # of the lattice on which a warp is stored
WARPED_CONTRASTS = ALIGNED[:1]


def deformable_cases(data: Path, limit: int | None = None) -> list[Case]:
    """All pairs of the benchmark, at most limit of each set.

    Raises FileError when data holds none of the folders.
    """
    folder = data / "brain"
    sets = [_people(folder / "malf_oasis"), _warped(folder)]
    cases = [case for members in sets for case in subset(members, limit)]
    return checked_cases(cases, data, "brain/malf_oasis and brain/openms_mni")


def _people(folder: Path) -> list[Case]:
    """Brains of different people with manual labels, as they lie."""
    cases = []
    for fixed, moving in permutations(volumes_in(folder, ["*_SS"]), 2):
        people = fixed.name.removesuffix("_SS"), moving.name.removesuffix("_SS")
        if set(people) != SAME_PERSON:
            load = partial(labelled_pair, folder, people)
            cases.append(Case("people", "-".join(people), load))
    return cases


def _warped(folder: Path) -> list[Case]:
    """Two contrasts of one brain, the moving one under a known smooth warp."""
    return [
        Case("warped", f"{fixed.name}-{moving.name}", partial(_warped_pair, fixed, moving))
        for subfolder, names in WARPED_CONTRASTS
        for fixed, moving in permutations(volumes_in(folder / subfolder, names), 2)
    ]


def _warped_pair(fixed: Volume, moving: Volume) -> Pair:
    image, original = fixed.read(), moving.read()
    points = foreground_points(image)
    random = random_for(f"warp {fixed.name} {moving.name}")
    original_from_moving = volume_warp(random, original.grid, WARP_MM)
    warped = resample(original, original_from_moving, original.grid)
    pair = Pair(image, warped, points, points)
    return replace(pair, original_from_moving=original_from_moving)


def volume_warp(random: np.random.Generator, grid: Grid, length_mm: float) -> DisplacementField:
    """A random smooth deformation of that root-mean-square length, without folds."""
    lattice = grid.coarsened(max(1, round(STEP_MM / float(grid.spacing.min()))))
    zooms = np.array(lattice.shape) / WARP_NODES
    vectors = np.stack(
        [
            ndimage.zoom(random.normal(size=[WARP_NODES] * 3), zooms, order=3, grid_mode=True,
                         mode="nearest")
            for _ in range(3)
        ]
    )
    vectors *= length_mm / np.sqrt((vectors**2).sum(axis=0).mean())
    return DisplacementField(vectors, lattice)
