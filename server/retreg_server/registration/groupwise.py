"""Many images at once: all are aligned to the mean of their keypoints.

Wang et al. 2024 (BrainMorph), section on groupwise registration. Two changes: the images are first
turned to the first one, since the mean of keypoints at arbitrary rotations collapses, and the mean
keeps the size and place that it had then, since fits to a mean shrink it. In a robust mean, images
whose keypoints stay far from that of the others count less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from retreg.errors import DegeneratePointsError, InputError, RegistrationError
from retreg.fitting import Family, fit, fit_rigid, fit_similarity
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationRequest, RegistrationResult, Scalar
from retreg.progress import Progress, no_progress
from retreg.resample import resample
from retreg.transforms import Transform
from retreg_server.registration.engine import judged
from retreg_server.registration.keymorph.detectors import KeypointDetections
from retreg_server.registration.keymorph.model import KeyMorph, inliers_of, trusted_weights
from retreg_server.registration.keymorph.view_matching import Match, matches
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.networks.centre_of_mass import Weighting
from retreg_server.registration.numerics.robust_weights import median_trust
from retreg_server.registration.options import complete_options
from retreg_server.registration.subject import SUBJECTS, check_kind

ROUNDS = 10
SETTLED = 1e-3  # of the size of the point set: the mean moves no further


@dataclass(frozen=True, eq=False)
class Group:
    """What a groupwise registration found.

    template: the mean of the aligned images, on the grid of the first. results: one per image,
    with the template as the fixed image; quality.numbers has its share in the mean. rounds: until
    the mean came to rest.
    """

    template: Image
    results: tuple[RegistrationResult, ...]
    rounds: int


@dataclass(frozen=True, eq=False)
class MeanShape:
    """points: (k, 3) LPS mm. shares: (n,) of the images in it, 1 for all alike. rounds: taken."""

    points: np.ndarray
    shares: np.ndarray
    rounds: int


def register_group(
    model: KeyMorph,
    images: Sequence[Image],
    options: Mapping[str, Scalar],
    progress: Progress = no_progress,
) -> Group:
    """Register two or more images of one kind to their mean.

    Raises InputError for fewer images or another kind, and RegistrationError when the keypoints of
    an image determine no transform.
    """
    _check(model, images)
    complete = complete_options(model.info, options)
    named = {_ordinal(number): image for number, image in enumerate(images, start=1)}
    scale = SUBJECTS[model.info.subject].common_scale(named)
    images = [scale.enlarged(image) for image in images]
    stages = Stages(progress)
    forward = _matched(model, images, complete, stages, second=False)
    backward = _matched(model, images, complete, stages, second=True)
    try:
        with stages.stage("mean", 0.05):
            mean, estimates = _estimates(forward, backward, complete)
    except DegeneratePointsError as error:
        raise RegistrationError(
            "The keypoints of the images determine no mean; check that all show the same thing."
        ) from error
    with stages.stage("template", 0.05):
        transforms = [each.transform for each in estimates]
        template = mean_image(images, transforms, images[0].grid, mean.shares)
    results = []
    with stages.stage("quality", 0.2):
        for number, (image, estimate) in enumerate(zip(images, estimates, strict=True)):
            stages.at(number / len(images))
            request = RegistrationRequest(template, image, model.info.name, complete)
            found = judged(model.info, request, complete, estimate, Stages())
            results.append(scale.restored(found))
    return Group(scale.image(template), tuple(results), mean.rounds)


def _estimates(
    forward: list[Match], backward: list[Match], options: Mapping[str, Scalar]
) -> tuple[MeanShape, list[Estimate]]:
    """The mean, and from it to each image and back.

    forward, backward: from the first and the second detection.
    """
    family, smoothing = cast(Family, options["transform"]), float(options["smoothing"])
    robust = bool(options["robust"])
    weights = [trusted_weights(match, family, robust) for match in forward]
    found = mean_shape([match.moving for match in forward], weights, family, smoothing, robust)
    mean = found.points
    estimates = []
    rows = zip(forward, backward, weights, found.shares, strict=True)
    for match, opposite, trust, share in rows:
        transform = fit(family, mean, match.moving, trust, smoothing)
        backward_trust = trusted_weights(opposite, family, robust)
        inside = inliers_of(replace(match, fixed=mean), trust)
        evidence = {"keypoint_rms_mm": _rms(transform(mean) - match.moving), "share": float(share)}
        estimates.append(
            Estimate(
                transform,
                Keypoints(mean, trust, inside),
                Keypoints(match.moving, trust, inside),
                fit(family, opposite.moving, mean, backward_trust, smoothing),
                evidence,
            )
        )
    return found, estimates


def mean_shape(
    points: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    family: Family,
    smoothing: float,
    robust: bool = False,
) -> MeanShape:
    """The mean of point sets (k, 3) with weights (k,), in LPS mm in the world of the first.

    Each round moves every set onto the mean by the family of transforms and averages anew. robust:
    sets count less the further they stay from the mean of the others.
    """
    placed = [fit_rigid(p, points[0], w)(p) for p, w in zip(points, weights, strict=True)]
    shares = np.ones(len(points))
    mean = reference = _average(placed, weights, shares)
    for number in range(ROUNDS):
        placed = [
            fit(family, p, mean, w, smoothing)(p) for p, w in zip(points, weights, strict=True)
        ]
        if robust:
            shares = _shares(placed, weights, shares)
        new = _average(placed, weights, shares)
        new = fit_similarity(new, reference)(new)
        moved, mean = _rms(new - mean), new
        if moved < SETTLED * float(np.sqrt(reference.var(axis=0).sum())):
            return MeanShape(mean, shares, number + 1)
    return MeanShape(mean, shares, ROUNDS)


def mean_image(
    images: Sequence[Image], transforms: Sequence[Transform], grid: Grid, shares: np.ndarray
) -> Image:
    """The average on grid of the images under their transforms from it, float32.

    Each is scaled so that its 1st and 99th percentile become 0 and 1; a voxel is averaged over
    the images that show it, with their shares (n,) in it. Pictures keep their colours when all
    have as many channels.
    """
    colours = len({image.array.shape[0] for image in images}) == 1
    channels = images[0].array.shape[0] if colours else 1
    total = np.zeros((channels, *grid.shape), np.float32)
    seen = np.zeros(grid.shape, np.float32)
    for image, transform, share in zip(images, transforms, shares, strict=True):
        values = image.array if colours else image.grey()[None]
        low, high = np.percentile(values, (1, 99))
        scaled = ((values - low) / max(high - low, 1e-12)).astype(np.float32)
        warped = resample(Image(scaled, image.grid), transform, grid, fill=0)
        total += np.float32(share) * warped.array
        ones = Image(np.ones((1, *image.grid.shape), np.uint8), image.grid)
        seen += np.float32(share) * resample(ones, transform, grid, nearest=True).array[0]
    return Image(total / np.where(seen > 0, seen, 1), grid)


def _check(model: KeyMorph, images: Sequence[Image]) -> None:
    if len(images) < 2:
        raise InputError("One image was given; a group has two or more.")
    for number, image in enumerate(images, start=1):
        check_kind(model.info, image, f"Image {number}")


def _matched(
    model: KeyMorph,
    images: Sequence[Image],
    options: Mapping[str, Scalar],
    stages: Stages,
    second: bool,
) -> list[Match]:
    """Each image matched to the first one, the first with itself."""
    weighting, detected = cast(Weighting, options["weights"]), list[KeypointDetections]()
    with stages.stage("second detection" if second else "keypoints", 0.35):
        for number, image in enumerate(images, start=1):
            detected.append(
                model.detect(image, _ordinal(number), second, str(options["device"]))
            )
            stages.at(number / len(images))
        first = detected[0]
        found = [matches(first, each, weighting, model.similarity)[0] for each in detected[1:]]
    views = [match.fixed for match in found]
    own = [
        match
        for match in matches(first, first, weighting, model.similarity)
        if np.array_equal(match.fixed, match.moving)
    ]
    return [max(own, key=lambda match: sum(np.array_equal(match.fixed, v) for v in views)), *found]


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"


def _trust(weights: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """(n, k, 1): a keypoint is trusted more in the images where its weight is higher."""
    trust: np.ndarray = shares[:, None, None] * (np.stack(weights) + 1e-6)[..., None]
    return trust


def _average(
    points: Sequence[np.ndarray], weights: Sequence[np.ndarray], shares: np.ndarray
) -> np.ndarray:
    """(k, 3) means."""
    trust = _trust(weights, shares)
    return np.asarray((trust * points).sum(axis=0) / trust.sum(axis=0))


def _shares(
    placed: Sequence[np.ndarray], weights: Sequence[np.ndarray], shares: np.ndarray
) -> np.ndarray:
    """(n,) of mean 1: weights of Geman and McClure for how far each set is from the mean of the
    others, so that no set can win by pulling the mean to itself."""
    points, trust = np.stack(placed), _trust(weights, shares)
    own, rest = trust * points, trust.sum(axis=0) - trust
    others = (own.sum(axis=0) - own) / rest
    squared = ((points - others) ** 2).sum(axis=2)
    missed = np.sqrt(np.average(squared, axis=1, weights=(trust * rest)[..., 0]))
    found = median_trust(missed)
    return np.asarray(found / found.mean())


def _rms(offsets: np.ndarray) -> float:
    return float(np.sqrt((offsets**2).sum(axis=1).mean()))
