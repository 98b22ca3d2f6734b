"""The brain benchmark: volumes under known rotations, labelled subjects, and wrong pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from retreg.errors import FileError
from retreg.files import read_image
from retreg.image import Image
from retreg.transforms import Affine, Chain
from retreg_server.evaluation.cases import Case, Pair, checked_cases, random_for, subset
from retreg_server.evaluation.known_truth import foreground_points, random_turn, turned_volume

ANGLE_BINS = ((0, 45), (45, 90), (90, 135), (135, 180))
DICE_ANGLE = 150.0
# Volumes of one folder that share a grid and were registered by their authors.
ALIGNED = (
    ("openms_mni", ("patient07_T1", "patient07_T2", "patient07_FLAIR")),
    ("templates", ("MNI152_T1_1mm_brain", "MNI152_T2_1mm_brain")),
    ("templates", ("MNI152_T1_2mm", "MNI152_T2_2mm")),
)
HEAD_AND_BRAIN = (
    ("MNI152_T1_2mm", "MNI152_T1_1mm_brain"),
    ("MNI152_T2_2mm", "MNI152_T2_1mm_brain"),
    ("MNI152_T1_2mm", "MNI152_T2_1mm_brain"),
)
SINGLE = (
    "openms_mni/patient07_[!l]*",
    "templates/MNI*",
    "templates/avg152PD",
    "malf_oasis/*_SS",
    "freesurfer_labelled/*_T1",
    "chris/*",
    "tcga_fg6692/*",
)
CLINICAL = "openms_longitudinal_raw"
SAME_PERSON = frozenset({"1003", "1023"})
WRONG_FOR = ("openms_mni/patient07_T1", "templates/MNI152_T2_2mm", f"{CLINICAL}/p01_study1_FLAIR")


@dataclass(frozen=True)
class Volume:
    """A file of the data folder, by its name without the suffix."""

    path: Path

    @property
    def name(self) -> str:
        """The file name without its suffix."""
        return self.path.name.removesuffix(".nii.gz")

    def read(self) -> Image:
        """The volume."""
        return read_image(self.path)


def brain_cases(data: Path, limit: int | None = None) -> list[Case]:
    """All pairs of the benchmark, at most limit of each set.

    Raises FileError when data holds none of the folders.
    """
    folder = data / "brain"
    sets = [
        _contrast(folder),
        _same_brain(folder),
        _head_and_brain(folder / "templates"),
        _clinical(folder / CLINICAL),
        _labelled(folder / "malf_oasis"),
        _no_brain(folder),
    ]
    cases = [case for members in sets for case in subset(members, limit)]
    return checked_cases(cases, data, "brain/openms_mni, brain/malf_oasis and others")


def volumes_in(folder: Path, names: Sequence[str]) -> list[Volume]:
    """The volumes of those names, in alphabetical order for patterns; missing ones are left out."""
    paths = [path for name in names for path in sorted(folder.glob(f"{name}.nii.gz"))]
    return [Volume(path) for path in paths]


def _angle(name: str, angle_bin: int) -> float:
    return float(random_for(f"angle {name}").uniform(*ANGLE_BINS[angle_bin]))


def _in_every_bin(
    benchmark_set: str,
    name: str,
    load: Callable[[float], Pair],
    bins: Sequence[int] = (0, 1, 2, 3),
) -> list[Case]:
    """One case per range of angles, with a random angle in it."""
    cases = []
    for number in bins:
        angle = _angle(f"{name} {number}", number)
        label = f"{name} {angle:.0f}°"
        cases.append(Case(benchmark_set, label, partial(load, angle), angle_deg=angle))
    return cases


def _turned(pair: Pair, name: str, angle_deg: float) -> Pair:
    """The pair with its moving volume turned and shifted at random, on another grid."""
    rotation, shift_mm = random_turn(random_for(f"turn {name} {angle_deg:.3f}"), angle_deg)
    moving, original_from_moving = turned_volume(pair.moving, rotation, shift_mm)
    return replace(pair, moving=moving, original_from_moving=original_from_moving)


def _aligned_pair(fixed: Volume, moving: Volume, head: Volume, angle_deg: float) -> Pair:
    """Two volumes of one world; the truth is known at the foreground points of head."""
    points = foreground_points(head.read())
    pair = Pair(fixed.read(), moving.read(), points, points)
    return _turned(pair, f"{fixed.name} {moving.name}", angle_deg)


def _contrast(folder: Path) -> list[Case]:
    """Two contrasts of one head, every ordered combination."""
    return [
        case
        for subfolder, names in ALIGNED
        for fixed, moving in permutations(volumes_in(folder / subfolder, names), 2)
        for case in _in_every_bin(
            "contrast",
            f"{fixed.name}-{moving.name}",
            partial(_aligned_pair, fixed, moving, fixed),
        )
    ]


def _same_brain(folder: Path) -> list[Case]:
    """Every volume with its own turned copy, in two of the four ranges of angles."""
    volumes = volumes_in(folder, (*SINGLE, f"{CLINICAL}/*"))
    return [
        case
        for number, volume in enumerate(volumes)
        for case in _in_every_bin(
            "same-brain",
            volume.name,
            partial(_aligned_pair, volume, volume, volume),
            (number % 2, number % 2 + 2),
        )
    ]


def _head_and_brain(folder: Path) -> list[Case]:
    """A whole head and a stripped brain, both ways; judged inside the brain."""
    cases = []
    for head_name, brain_name in HEAD_AND_BRAIN:
        found = volumes_in(folder, (head_name, brain_name))
        if len(found) == 2:
            for fixed, moving in permutations(found):
                name = f"{fixed.name}-{moving.name}"
                load = partial(_aligned_pair, fixed, moving, found[1])
                cases += _in_every_bin("head-and-brain", name, load)
    return cases


def _clinical(folder: Path) -> list[Case]:
    """Thick clinical slices of one patient: contrasts of a visit, and two visits.

    The truth is the registration of the data's authors (Lesjak et al. 2017), as they lie and
    turned.
    """
    cases = []
    for visit in (1, 2):
        for contrast in ("T1W", "T2W"):
            moving = f"p01_study{visit}_{contrast}"
            steps = ((f"{moving}_intrastudy_to_FLAIR.txt", False),)
            cases += _clinical_cases(folder, f"p01_study{visit}_FLAIR", moving, steps)
    between_visits = (
        ("p01_study1_FLAIR_to_common_space.txt", True),
        ("p01_study2_FLAIR_to_common_space.txt", False),
    )
    return cases + _clinical_cases(folder, "p01_study1_FLAIR", "p01_study2_FLAIR", between_visits)


def _clinical_cases(
    folder: Path, fixed: str, moving: str, steps: tuple[tuple[str, bool], ...]
) -> list[Case]:
    found = volumes_in(folder, (fixed, moving))
    if len(found) < 2:
        return []

    def load(angle_deg: float | None = None) -> Pair:
        fixed_image = found[0].read()
        points = foreground_points(fixed_image)
        truth = Chain(tuple(_itk_affine(folder / name, inverse) for name, inverse in steps))
        pair = Pair(fixed_image, found[1].read(), points, truth(points))
        return pair if angle_deg is None else _turned(pair, f"{fixed} {moving}", angle_deg)

    name = f"{fixed}-{moving}"
    return [Case("clinical", f"{name} as is", load), *_in_every_bin("clinical", name, load, (1, 3))]


def _itk_affine(path: Path, inverse: bool) -> Affine:
    """An affine from an ITK text file, or its inverse. Raises FileError."""
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise FileError(
            f"The reference transform {path.name} cannot be read; an ITK text transform of the "
            "data set was expected."
        ) from error
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    for axis, unit in enumerate(np.eye(3)):
        matrix[:3, axis] = np.array(transform.TransformPoint(unit.tolist())) - origin
    matrix[:3, 3] = origin
    return Affine(matrix).inverse if inverse else Affine(matrix)


def _labelled(folder: Path) -> list[Case]:
    """Brains of different people with manual labels; the moving one turned by up to 150 degrees."""
    cases = []
    for fixed, moving in permutations(volumes_in(folder, ["*_SS"]), 2):
        people = fixed.name.removesuffix("_SS"), moving.name.removesuffix("_SS")
        if set(people) != SAME_PERSON:
            name = f"{people[0]}-{people[1]}"
            angle = float(random_for(f"angle {name}").uniform(0, DICE_ANGLE))
            load = partial(_turned_people, folder, people, angle)
            label = f"{name} {angle:.0f}°"
            cases.append(Case("subjects", label, load, angle_deg=angle))
    return cases


def _turned_people(folder: Path, people: tuple[str, str], angle_deg: float) -> Pair:
    return _turned(labelled_pair(folder, people), f"{people[0]} {people[1]}", angle_deg)


def labelled_pair(folder: Path, people: tuple[str, str]) -> Pair:
    """The brains of two people, fixed and moving, with their labels, as they lie."""
    images = [read_image(folder / f"{person}_SS.nii.gz") for person in people]
    labels = [read_image(folder / f"{person}_glm.nii.gz") for person in people]
    return Pair(images[0], images[1], fixed_labels=labels[0], original_labels=labels[1])


def _no_brain(folder: Path) -> list[Case]:
    """Volumes against noise, black, and smooth blobs without anatomy; in both roles."""
    volumes = volumes_in(folder, WRONG_FOR)
    return [case for volume in volumes for case in _against_nothing(volume)]


def _against_nothing(volume: Volume) -> Iterator[Case]:
    for kind in ("noise", "black", "blobs"):

        def load(kind: str = kind, swapped: bool = False) -> Pair:
            image = volume.read()
            nothing = _nothing(kind, image, random_for(f"{kind} {volume.name}"))
            return Pair(nothing, image) if swapped else Pair(image, nothing)

        yield Case("no-brain", f"{volume.name}-{kind}", load, right=False)
        yield Case("no-brain", f"{kind}-{volume.name}", partial(load, swapped=True), right=False)


def _nothing(kind: str, like: Image, random: np.random.Generator) -> Image:
    shape = like.grid.shape
    values = np.zeros(shape, dtype=np.float32)
    if kind == "noise":
        values = random.uniform(0, 1000, size=shape).astype(np.float32)
    if kind == "blobs":
        coarse = random.uniform(size=(9, 9, 9))
        smooth = ndimage.zoom(coarse, np.array(shape) / 9, order=1, grid_mode=True, mode="nearest")
        values = np.where(smooth > 0.5, 400 + 600 * smooth, 0).astype(np.float32)
    return Image(values[None], like.grid)
