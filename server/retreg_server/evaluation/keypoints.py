"""How well a keypoint network sees: `retreg evaluate keypoints`.

The layout follows the KeyMorph paper (Wang et al. 2023): equivariance of the keypoints (figures 13
and 14), their distance between contrasts and between people (table 2), errors and overlap by
rotation and pair of contrasts (table 3, figure 3), number of keypoints and smoothing (figure 8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from retreg.errors import RegistrationError
from retreg.files import read_image
from retreg.fitting import fit, fit_tps_sweep
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Scalar
from retreg.transforms import Affine, Transform
from retreg_server.evaluation.bench import scores_of
from retreg_server.evaluation.brain import brain_cases
from retreg_server.evaluation.cases import Case, Pair, random_for
from retreg_server.evaluation.known_truth import axis_rotation, turned_picture, turned_volume
from retreg_server.evaluation.metrics import reference_pixel
from retreg_server.evaluation.retina import retina_cases
from retreg_server.registration.keymorph.model import KeyMorph, size_mm, trusted_weights
from retreg_server.registration.keymorph.view_matching import Match
from retreg_server.registration.model import Stages
from retreg_server.registration.numerics.farthest_points import spread_out
from retreg_server.registration.numerics.robust_weights import Linear

ANGLES = (0.0, 45.0, 90.0, 135.0, 180.0)
SCALES = (0.8, 0.9, 1.0, 1.1, 1.25)
SMOOTHINGS = (0.0, 0.01, 0.1, 1.0, 10.0, float("inf"))
COUNTS = (16, 32, 64, 128, 256, 512)
LINEAR: tuple[Linear, ...] = ("rigid", "similarity", "affine")
PICTURE_SETS, VOLUME_SETS = ("multimodal", "multimodal-turned"), ("contrast", "subjects")
BINS = ((0, 45), (45, 90), (90, 135), (135, 180.1))


@dataclass(frozen=True)
class Measured:
    """One number of a figure: the value of a series at x, from one image or pair."""

    figure: str
    series: str
    x: str
    value: float
    name: str


Source = Callable[[], Image]


def keypoint_numbers(
    model: KeyMorph, data: Path, limit: int, tick: Callable[[], None]
) -> Iterator[Measured]:
    """All numbers of all figures, as they are measured; at most limit images or pairs of a set.

    tick is called after every image or pair. Raises FileError when data holds none.
    """
    pictures = "picture" in model.info.kinds
    cases = (retina_cases if pictures else brain_cases)(data, None)
    work: dict[str, Callable[[], Iterator[Measured]]] = {}
    for name, source in (_retinas(data, limit) if pictures else _heads(data, limit)).items():
        work[name] = partial(_equivariance, model, name, source)
    for benchmark_set in PICTURE_SETS if pictures else VOLUME_SETS:
        members = [case for case in cases if case.benchmark_set == benchmark_set]
        for case in _spread(members, limit):
            work[f"{benchmark_set} {case.name}"] = partial(_registration, model, case)
    if not pictures:
        work["people"] = partial(_people, model, data)
    for name, measure in work.items():
        try:
            yield from measure()
        except RegistrationError:
            yield Measured("failures", "without a result", "count", 1.0, name)
        tick()


def _equivariance(model: KeyMorph, name: str, source: Source) -> Iterator[Measured]:
    """How far keypoints of a turned or scaled image are from those of the image, turned back."""
    image = source()
    unit = reference_pixel(*image.grid.size[:2]) if image.is_picture else 1.0
    changes = [("rotation", angle, 1.0) for angle in ANGLES]
    changes += [("scale", 0.0, scale) for scale in SCALES]
    for kind, angle, scale in changes:
        changed, original_from_changed = _changed(image, name, angle, scale)
        match = _matched(model, image, changed)
        missed = np.linalg.norm(original_from_changed(match.moving) - match.fixed, axis=1) / unit
        x = f"{angle:g}" if kind == "rotation" else f"{scale:g}"
        for part, value in (("median", np.median(missed)), ("p90", np.percentile(missed, 90))):
            yield Measured(f"equivariance-{kind}", part, x, float(value), name)


def _changed(image: Image, name: str, angle: float, scale: float) -> tuple[Image, Affine]:
    """The image turned about a random axis (a picture in its plane) and scaled."""
    if image.is_picture:
        return turned_picture(image, angle, scale)
    random = random_for(f"keypoints {name} {angle}")
    rotation = axis_rotation(random.normal(size=3), angle)
    turned, original_from_turned = turned_volume(image, rotation, random.uniform(-10, 10, 3))
    larger = np.diag([scale, scale, scale, 1.0])
    grid = Grid(turned.grid.size, larger @ turned.grid.world_from_index)
    back = original_from_turned.moving_from_fixed @ np.linalg.inv(larger)
    return Image(turned.array, grid), Affine(back)


def _registration(model: KeyMorph, case: Case) -> Iterator[Measured]:
    """Errors and overlap of every transform from the keypoints of one pair."""
    pair = case.load()
    match = _matched(model, pair.fixed, pair.moving)
    x = _bin(case.angle_deg)
    kind = case.name.split(" ")[0] if case.benchmark_set == "contrast" else case.benchmark_set
    for family, transform in _transforms(match).items():
        scores = scores_of(case, pair, transform)
        for measure, figure in (("error", "error"), ("dice", "overlap")):
            value = scores.get(measure, np.nan)
            if np.isfinite(value):
                yield Measured(f"{figure}-by-angle", family, x, value, case.name)
                if family == "affine":
                    yield Measured(f"{figure}-by-pair", kind, x, value, case.name)
                if family.startswith("tps "):
                    smoothing = family.removeprefix("tps ")
                    yield Measured(f"{figure}-by-smoothing", kind, smoothing, value, case.name)
    yield from _by_count(case, pair, match)


def _transforms(match: Match) -> dict[str, Transform]:
    """By family; splines are named with their smoothing."""
    weights = {family: trusted_weights(match, family, True) for family in (*LINEAR, "tps")}
    found: dict[str, Transform] = {
        family: fit(family, match.fixed, match.moving, weights[family]) for family in LINEAR
    }
    splines = fit_tps_sweep(match.fixed, match.moving, SMOOTHINGS, weights["tps"])
    return found | {f"tps {x:g}": spline for x, spline in zip(SMOOTHINGS, splines, strict=True)}


def _by_count(case: Case, pair: Pair, match: Match) -> Iterator[Measured]:
    """Errors of the affine from fewer of the keypoints, spread as evenly as possible."""
    import torch

    for count in (count for count in COUNTS if count <= len(match.fixed)):
        chosen = spread_out(torch.from_numpy(match.fixed), count)
        kept = (match.fixed[:, None] == chosen.numpy()[None]).all(axis=2).any(axis=1)
        part = Match(
            match.fixed[kept], match.moving[kept], match.weights[kept], match.similarity, 0.0
        )
        weights = trusted_weights(part, "affine", True)
        scores = scores_of(case, pair, fit("affine", part.fixed, part.moving, weights))
        measure = "error" if np.isfinite(scores.get("error", np.nan)) else "dice"
        yield Measured(f"{measure}-by-count", "affine", str(count), scores[measure], case.name)


def _people(model: KeyMorph, data: Path) -> Iterator[Measured]:
    """Distance of keypoints after the best rigid map: contrasts of a person, and two people."""
    folder = data / "brain"
    groups = [
        sorted((folder / "openms_mni").glob("patient07_[!l]*.nii.gz")),
        sorted((folder / "templates").glob("MNI152_T?_2mm.nii.gz")),
        sorted((folder / "templates").glob("MNI152_T?_1mm_brain.nii.gz")),
    ]
    same = [pair for group in groups for pair in combinations(group, 2)]
    people = sorted((folder / "malf_oasis").glob("*_SS.nii.gz"))
    other = [(a, b) for a, b in combinations(people, 2)
             if {a.name[:4], b.name[:4]} != {"1003", "1023"}]
    for series, pairs in (("same person, other contrast", same), ("other person, T1", other)):
        for first, second in pairs:
            match = _matched(model, read_image(first), read_image(second))
            placed = fit("rigid", match.fixed, match.moving, trusted_weights(match, "rigid", True))
            missed = np.linalg.norm(placed(match.fixed) - match.moving, axis=1)
            name = f"{first.name.split('.')[0]}-{second.name.split('.')[0]}"
            size = size_mm(match.fixed)  # points that huddle together are close to each other
            values = {"mean": missed.mean(), "mean in % of the size": 100 * missed.mean() / size}
            for part, value in values.items():
                yield Measured("contrast-or-person", series, part, float(value), name)


def _matched(model: KeyMorph, fixed: Image, moving: Image) -> Match:
    options: Mapping[str, Scalar] = model.info.complete({})
    return model.matched(fixed, moving, options, Stages(), second=False)[0]


def _heads(data: Path, limit: int) -> dict[str, Source]:
    names = (
        "openms_mni/patient07_T1", "openms_mni/patient07_T2", "openms_mni/patient07_FLAIR",
        "templates/MNI152_T1_2mm", "templates/MNI152_T2_2mm", "freesurfer_labelled/subjC_T1",
        "chris/chris_t1", "chris/chris_PD", "malf_oasis/1000_SS",
    )  # fmt: skip
    paths = [data / "brain" / f"{name}.nii.gz" for name in names]
    found = [path for path in paths if path.exists()][:limit]
    return {path.name.removesuffix(".nii.gz"): _reader(path) for path in found}


def _retinas(data: Path, limit: int) -> dict[str, Source]:
    paths = sorted((data / "retina" / "multimodal_landmark_pairs").glob("*_*.png"))[:limit]
    paths += sorted((data / "retina" / "same_eye_pairs_unam").glob("*_A.jpg"))[:limit]
    return {path.stem: _reader(path) for path in paths}


def _reader(path: Path) -> Source:
    return lambda: read_image(path)


def _spread(cases: Sequence[Case], limit: int) -> list[Case]:
    step = max(1, len(cases) // limit)
    return list(cases[::step][:limit])


def _bin(angle_deg: float) -> str:
    if not np.isfinite(angle_deg):
        return "as is"
    angle = min(angle_deg % 360, 360 - angle_deg % 360)
    return next(f"{low:g}-{min(high, 180):g}°" for low, high in BINS if low <= angle < high)

