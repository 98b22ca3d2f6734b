"""The retina benchmark: fundus pictures with landmarks, and pairs that do not belong together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np

from retreg.errors import FileError
from retreg.files import read_image
from retreg.geometry import Grid
from retreg.image import Image
from retreg.resample import resample
from retreg_server.evaluation.cases import Case, Pair, checked_cases, random_for, subset
from retreg_server.evaluation.known_truth import (
    foreground,
    foreground_points,
    inside,
    relit,
    smooth_warp,
    turned_picture,
)
from retreg_server.evaluation.metrics import reference_pixel

WRONG_PAIRS = 200
WARPED_PICTURES = 8
WARP_PIXELS = 6.0
# Several visits of one patient; pictures across these pairs show the same eye.
SAME_EYE_GROUPS = (frozenset({"032", "034", "038"}),)


def retina_cases(data: Path, limit: int | None = None) -> list[Case]:
    """All pairs of the benchmark, at most limit of each set.

    Raises FileError when data holds none of the folders.
    """
    folder = data / "retina"
    multimodal = multimodal_cases(data)
    same_eye = _same_eye(folder / "same_eye_pairs_unam")
    sets = [
        multimodal,
        [_turned(case) for case in multimodal],
        same_eye,
        _fire(folder / "fire"),
        _warped(folder / "vessels"),
    ]
    different = [
        *subset(_different_eyes(multimodal), WRONG_PAIRS // 2 if limit is None else limit // 2),
        *subset(_different_eyes(same_eye), WRONG_PAIRS // 2 if limit is None else -(-limit // 2)),
    ]
    sets += [different, _no_picture(multimodal[:4] + same_eye[:4])]
    cases = [case for members in sets for case in subset(members, limit)]
    return checked_cases(cases, data, "retina/multimodal_landmark_pairs, retina/fire and others")


def multimodal_cases(data: Path) -> list[Case]:
    """The pairs of colour, red-free light and angiography with human landmarks, if any."""
    return _multimodal(data / "retina" / "multimodal_landmark_pairs")


def _points_from(path: Path, delimiter: str | None) -> np.ndarray:
    """(n, 4) numbers of a landmark file; lines without a leading number are skipped."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
        rows = [line.split(delimiter)[:4] for line in lines if re.match(r"[-+.\d]", line)]
        points = np.array(rows, dtype=np.float64)
        if points.ndim == 2 and points.shape[1] == 4:
            return points
    except (OSError, ValueError) as error:
        raise FileError(f"The landmarks {path.name} cannot be read: {error}.") from error
    raise FileError(f"The landmarks {path.name} need four numbers in each line.")


def _landmark_pair(
    fixed_path: Path, moving_path: Path, landmarks: Path, delimiter: str | None
) -> Pair:
    fixed, moving = read_image(fixed_path), read_image(moving_path)
    points = np.insert(_points_from(landmarks, delimiter), (2, 4), 0.0, axis=1)
    unit = reference_pixel(*fixed.grid.size[:2])
    return Pair(fixed, moving, points[:, :3], points[:, 3:], error_unit_mm=unit)


def _multimodal(folder: Path) -> list[Case]:
    """Colour, red-free and angiography of one eye with human landmarks (noisy: median)."""
    cases = []
    for fixed in sorted(folder.glob("*_fixed.png")):
        name = fixed.name.removesuffix("_fixed.png")
        files = fixed, folder / f"{name}_moving.png", folder / f"{name}_landmarks.csv"
        load = partial(_landmark_pair, *files, ",")
        cases.append(Case("multimodal", name, load, statistic="median"))
    return cases


def _same_eye(folder: Path) -> list[Case]:
    """Two colour pictures of one eye with silver points found by an algorithm."""
    cases = []
    for fixed in sorted(folder.glob("*_A.jpg")):
        name = fixed.name.removesuffix("_A.jpg")
        files = fixed, folder / f"{name}_B.jpg", folder / f"{name}_silver.csv"
        cases.append(Case("same-eye", name, partial(_landmark_pair, *files, ",")))
    return cases


def _fire(folder: Path) -> list[Case]:
    """FIRE (Hernandez-Matas et al. 2017) with human control points.

    As in its published evaluations the second picture is mapped to the first one, where the error
    is measured; so the second is the fixed picture here. The letter of the name is the category.
    """
    cases = []
    for landmarks in sorted(folder.rglob("control_points_*_1_2.txt")):
        name = landmarks.name.removeprefix("control_points_").removesuffix("_1_2.txt")
        pictures = [next(iter(sorted(folder.rglob(f"{name}_{n}.jpg"))), None) for n in (1, 2)]
        if pictures[0] is not None and pictures[1] is not None:
            load = partial(_fire_pair, pictures[0], pictures[1], landmarks)
            cases.append(Case("fire", name, load, category=name[0]))
    return cases


def _fire_pair(first: Path, second: Path, landmarks: Path) -> Pair:
    pair = _landmark_pair(first, second, landmarks, None)
    return replace(
        pair,
        fixed=pair.moving,
        moving=pair.fixed,
        fixed_points=pair.original_points,
        original_points=pair.fixed_points,
    )


def _turned(case: Case) -> Case:
    random = random_for(f"turned {case.name}")
    angle, scale = random.uniform(30, 330), random.uniform(0.75, 1.3)

    def load() -> Pair:
        pair = case.load()
        moving, original_from_moving = turned_picture(pair.moving, angle, scale)
        return replace(pair, moving=moving, original_from_moving=original_from_moving)

    return replace(case, benchmark_set=f"{case.benchmark_set}-turned", load=load, angle_deg=angle)


def _warped(folder: Path) -> list[Case]:
    """Real pictures under a known affine and smooth warp, and another lamp."""
    pictures = [
        path
        for path in sorted([*folder.glob("*.jpg"), *folder.glob("*.png")])
        if not path.stem.endswith(("_vessels", "_fov"))
    ]
    chosen = pictures[:: max(1, len(pictures) // WARPED_PICTURES)][:WARPED_PICTURES]
    return [Case("warped", path.stem, partial(_warped_pair, path)) for path in chosen]


def _warped_pair(path: Path) -> Pair:
    original = read_image(path)
    random = random_for(f"warped {path.stem}")
    unit = reference_pixel(*original.grid.size[:2])
    truth = smooth_warp(random, original.grid, WARP_PIXELS * unit)
    fixed = resample(original, truth, original.grid)
    points = foreground_points(fixed)
    points = points[inside(foreground(original), original.grid, truth(points))]
    moving = relit(random, original)
    return Pair(fixed, moving, points, truth(points), error_unit_mm=unit)


def different_eyes(cases: list[Case]) -> list[tuple[Case, Case]]:
    """Every ordered combination of two different eyes; both eyes of a person are different too."""
    return [
        (first, second)
        for first, second in permutations(cases, 2)
        if not any({first.name, second.name} <= group for group in SAME_EYE_GROUPS)
    ]


def _different_eyes(cases: list[Case]) -> list[Case]:
    return [
        _wrong(
            "different-eyes",
            f"{first.name}-{second.name}",
            partial(_mixed, first.load, second.load),
        )
        for first, second in different_eyes(cases)
    ]


def _mixed(first: Callable[[], Pair], second: Callable[[], Pair]) -> Pair:
    return Pair(first().fixed, second().moving)


def _wrong(benchmark_set: str, name: str, load: Callable[[], Pair]) -> Case:
    return Case(benchmark_set, name, load, right=False)


def _no_picture(cases: list[Case]) -> list[Case]:
    """Pictures against noise, noise in a round field of view, and black; in both roles."""
    return [case for member in cases for case in _against_nothing(member)]


def _against_nothing(case: Case) -> Iterator[Case]:
    for kind in ("noise", "round-noise", "black"):

        def load(kind: str = kind, swapped: bool = False) -> Pair:
            picture = case.load().fixed
            nothing = _nothing(kind, picture, random_for(f"{kind} {case.name}"))
            return Pair(nothing, picture) if swapped else Pair(picture, nothing)

        yield _wrong("no-picture", f"{case.name}-{kind}", load)
        yield _wrong("no-picture", f"{kind}-{case.name}", partial(load, swapped=True))


def _nothing(kind: str, like: Image, random: np.random.Generator) -> Image:
    width, height, _ = like.grid.size
    values = np.zeros((1, 1, height, width), dtype=np.uint8)
    if kind != "black":
        values += random.integers(0, 256, size=values.shape, dtype=np.uint8)
    if kind == "round-noise":
        values *= foreground(like)[None]
    return Image(values, Grid.of_picture(width, height))
