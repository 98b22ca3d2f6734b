"""The benchmark of volumes of any kind: copies of known place, parts of a whole, and wrong pairs.

Errors are shares of the diagonal of what the fixed image shows, in per mille.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np
from scipy import ndimage

from retreg.files import read_image
from retreg.geometry import Grid
from retreg.image import Image
from retreg_server.evaluation.cases import Case, Pair, checked_cases, random_for, subset
from retreg_server.evaluation.known_truth import foreground_points, random_turn, turned_volume

COPIES = 20  # of each volume
SHIFT = 0.1  # of the diagonal: how far a copy lies from its original, at most
SCALES = (0.9, 1.1)  # of a copy
PART = (0.3, 0.6)  # of the volume, that is left of a part
PART_DEG = 45.0
PARTS = 5  # of each volume
REAL = (("infant_month6_t1", "infant_month6_t2"), ("xa_t1", "xa_dwi_ap"), ("xa_t1", "xa_dwi_pa"))
HEADS = (
    "templates/MNI152_T1_1mm_brain.nii.gz",
    "malf_oasis/1003_SS.nii.gz",
    "openms_longitudinal_raw/p01_study1_FLAIR.nii.gz",
    "chris/chris_t1.nii.gz",
)
END = 0.45  # of the length of a thing: the ends that share nothing
SUFFIXES = (".nii.gz", ".nii", ".nrrd")


def volume_cases(data: Path, limit: int | None = None) -> list[Case]:
    """All pairs of the benchmark, at most limit of each set.

    Raises FileError when data does not hold the folder.
    """
    volumes = {_stem(path): path for path in sorted((data / "other" / "mri").glob("*"))}
    heads = {_stem(data / "brain" / name): data / "brain" / name for name in HEADS}
    heads = {name: path for name, path in heads.items() if path.is_file()}
    sets = [_copies(volumes), _parts(volumes), _real(volumes), _wrong(volumes, heads)]
    cases = [case for members in sets for case in subset(members, limit)]
    return checked_cases(cases, data, "other/mri")


def _stem(path: Path) -> str:
    suffix = next((each for each in SUFFIXES if path.name.endswith(each)), "")
    return path.name.removesuffix(suffix)


def _copies(volumes: dict[str, Path]) -> list[Case]:
    """Each volume and a copy: turned by any angle, scaled, of another contrast and grid."""
    cases = []
    for number in range(COPIES):  # so that a subset has some of all volumes
        for name, path in volumes.items():
            angle = float(random_for(f"angle {name} {number}").uniform(0, 180))
            load = partial(_copied, path, f"{name} {number}", angle)
            label = f"{name} {angle:.0f}°"
            cases.append(Case("copies", label, load, angle_deg=angle, category=name))
    return cases


def _copied(path: Path, name: str, angle_deg: float) -> Pair:
    random, fixed = random_for(f"copy {name}"), read_image(path)
    return _with_copy(fixed, fixed, random, angle_deg, float(random.uniform(*SCALES)))


def _with_copy(
    fixed: Image, shown: Image, random: np.random.Generator, angle_deg: float, scale: float
) -> Pair:
    """A volume, and what is shown of it in another contrast, turned, shifted and scaled."""
    points = foreground_points(shown)
    diagonal = float(np.linalg.norm(np.ptp(foreground_points(fixed), axis=0)))
    rotation, shift = random_turn(random, angle_deg, SHIFT * diagonal)
    copy, original_from_copy = turned_volume(
        _in_other_contrast(shown, random), scale * rotation, shift
    )
    return Pair(
        fixed, copy, points, points, original_from_copy, error_unit_mm=diagonal / 1000
    )


def _in_other_contrast(image: Image, random: np.random.Generator) -> Image:
    """The object with its grey values bent or inverted, lit unevenly, and noise everywhere."""
    values = image.grey()
    low, high = np.percentile(values, (0.5, 99.5))
    share = np.clip((values - low) / (high - low), 0, 1)
    bent = share ** random.uniform(0.6, 1.6)
    if random.uniform() < 0.5:
        bent = np.where(share > 0.08, 1.1 - bent, bent)  # air stays dark
    coarse = random.normal(size=(4, 4, 4)) * 0.15
    bias = np.exp(ndimage.zoom(coarse, np.array(values.shape) / 4, order=1, grid_mode=True,
                               mode="nearest"))
    noisy = bent * bias + random.normal(size=values.shape) * 0.02
    return Image((1000 * np.maximum(noisy, 0)).astype(np.float32)[None], image.grid)


def _parts(volumes: dict[str, Path]) -> list[Case]:
    """Each volume, and a box cut out of it that was turned by up to PART_DEG."""
    cases = []
    for number in range(PARTS):
        for name, path in volumes.items():
            angle = float(random_for(f"part angle {name} {number}").uniform(0, PART_DEG))
            load = partial(_whole_and_part, path, f"{name} {number}", angle)
            cases.append(Case("parts", f"{name} {number}", load, angle_deg=angle, category=name))
    return cases


def _whole_and_part(path: Path, name: str, angle_deg: float) -> Pair:
    random, whole = random_for(f"part {name}"), read_image(path)
    share = random.uniform(*PART)
    return _with_copy(whole, _cut(whole, random, share), random, angle_deg, 1.0)


def _cut(whole: Image, random: np.random.Generator, share: float) -> Image:
    """A random box inside the object's, with that share of its volume."""
    index = np.rint(whole.grid.index(foreground_points(whole))).astype(int)
    low, high = index.min(axis=0), index.max(axis=0) + 1
    sides = random.dirichlet(4 * np.ones(3)) * np.log(share)  # unequal, their product is share
    counts = np.maximum(8, np.rint(np.exp(sides) * (high - low)).astype(int))
    counts = np.minimum(counts, high - low)
    first = low + np.floor(random.uniform(size=3) * (high - low - counts + 1)).astype(int)
    i, j, k = (slice(start, start + count) for start, count in zip(first, counts, strict=True))
    matrix = whole.grid.world_from_index.copy()
    matrix[:3, 3] = whole.grid.world(first[None].astype(float))[0]
    size = int(counts[0]), int(counts[1]), int(counts[2])
    return Image(whole.array[:, k, j, i], Grid(size, matrix))


def _real(volumes: dict[str, Path]) -> list[Case]:
    """Two contrasts of one session, as their headers put them, and turned."""
    cases = []
    for fixed, moving in REAL:
        if fixed in volumes and moving in volumes:
            for angle in (None, 20.0, 90.0):
                load = partial(_session, volumes[fixed], volumes[moving], angle)
                turn = "as is" if angle is None else f"{angle:.0f}°"
                cases.append(Case("real", f"{fixed}-{moving} {turn}", load))
    return cases


def _session(fixed_path: Path, moving_path: Path, angle_deg: float | None) -> Pair:
    fixed, moving = read_image(fixed_path), read_image(moving_path)
    points = foreground_points(fixed)
    diagonal = float(np.linalg.norm(np.ptp(points, axis=0)))
    pair = Pair(fixed, moving, points, points, error_unit_mm=diagonal / 1000)
    if angle_deg is None:
        return pair
    rotation, shift = random_turn(random_for(f"turn {fixed_path.name} {angle_deg}"), angle_deg)
    turned, original_from_turned = turned_volume(moving, rotation, shift)
    return replace(pair, moving=turned, original_from_moving=original_from_turned)


def _wrong(volumes: dict[str, Path], heads: dict[str, Path]) -> list[Case]:
    """Different things, each with each, two ends of one thing, and things with noise.

    heads: more of them, to be mistaken for anything else. What shows heads of people is left out:
    they can be laid onto each other whoever they are.
    """
    every = {**volumes, **heads}
    cases = [
        Case("wrong", f"{a}-{b}", partial(_unrelated, every[a], every[b]), right=False)
        for a, b in permutations(every, 2)
        if _kind(a, heads) != _kind(b, heads)
    ]
    for name, path in volumes.items():
        for axis in range(3):
            load = partial(_two_ends, path, axis, f"ends {name} {axis}")
            cases.append(Case("wrong", f"{name} {'ijk'[axis]} ends", load, right=False))
        for swapped in (False, True):
            load = partial(_with_noise, path, swapped)
            cases.append(Case("wrong", f"{name} noise {swapped}", load, right=False))
    return cases


def _kind(name: str, heads: dict[str, Path]) -> str:
    """What a volume shows, by its name."""
    return "head" if name in heads or name.startswith(("infant", "xa", "dwi")) else name


def _two_ends(path: Path, axis: int, name: str) -> Pair:
    """Both ends of what a volume shows along an axis (i, j, k): they share nothing."""
    random, whole = random_for(name), read_image(path)
    index = np.rint(whole.grid.index(foreground_points(whole))).astype(int)[:, axis]
    low, high = int(index.min()), int(index.max()) + 1
    length = max(1, round(END * (high - low)))
    first, last = (_slices(whole, axis, start, length) for start in (low, high - length))
    rotation, shift = random_turn(random, float(random.uniform(0, PART_DEG)))
    return Pair(first, turned_volume(_in_other_contrast(last, random), rotation, shift)[0])


def _slices(whole: Image, axis: int, first: int, count: int) -> Image:
    start, size = [0, 0, 0], list(whole.grid.size)
    start[axis], size[axis] = first, count
    array = np.take(whole.array, range(first, first + count), axis=3 - axis)
    matrix = whole.grid.world_from_index.copy()
    matrix[:3, 3] = whole.grid.world(np.array([start], float))[0]
    return Image(array, Grid((size[0], size[1], size[2]), matrix))


def _with_noise(path: Path, swapped: bool) -> Pair:
    image = read_image(path)
    values = random_for(f"noise {path.name}").uniform(0, 1000, image.grid.shape)
    noise = Image(values.astype(np.float32)[None], image.grid)
    return Pair(noise, image) if swapped else Pair(image, noise)


def _unrelated(fixed: Path, moving: Path) -> Pair:
    return Pair(read_image(fixed), read_image(moving))
