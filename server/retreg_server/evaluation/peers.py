"""What the benchmarks compare: registered models, and baselines that exist for comparison only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from retreg.errors import InputError, OptionError, RegistrationError
from retreg.image import Image
from retreg.messages import RegistrationRequest, Scalar
from retreg.transforms import Affine, Transform
from retreg_server.evaluation.cost import Cost
from retreg_server.evaluation.elastix import ElastixAffine, elastix_is_installed
from retreg_server.registration.engine import complete_options, register
from retreg_server.registration.registry import FACTORIES, get_model

SIFT_RATIO = 0.8
RANSAC_PIXELS = 5.0
ELASTIX_MISSING = (
    "elastix-affine is left out because itk-elastix is not installed; install the extra 'peers' "
    "of this project to compare with it."
)


@dataclass(frozen=True, eq=False)
class Answer:
    """A transform from fixed to moving, and the verdict when the method gives one.

    cost: set by methods that work in another process; others are measured from outside.
    """

    transform: Transform
    verdict: str = ""
    reason: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    cost: Cost | None = None


Method = Callable[[Image, Image], Answer]


def method_by_name(name: str, family: str | None = None) -> Method:
    """The method "MODEL" or "MODEL:FAMILY", where FAMILY is a transform such as affine.

    family is the transform for models that are named without one. Raises OptionError when the
    name or the family is not known.
    """
    base, _, own_family = name.partition(":")
    baselines: dict[str, Callable[[], Method]] = {
        "identity": lambda: _identity,
        "sift-homography": lambda: _sift_homography,
        "elastix-affine": _elastix_affine,
    }
    if base in baselines and not own_family:
        return baselines[base]()
    if base not in FACTORIES:
        known = ", ".join([*FACTORIES, *baselines])
        raise OptionError(f"The model {name!r} is not known; use one of {known}.")
    return _model(base, own_family or family)


def is_missing(name: str) -> str:
    """The sentence that tells why a baseline cannot run here, or nothing."""
    return ELASTIX_MISSING if name == "elastix-affine" and not elastix_is_installed() else ""


def _model(name: str, family: str | None) -> Method:
    options: dict[str, Scalar] = {} if family is None else {"transform": family}
    complete_options(get_model(name).info, options)

    def run(fixed: Image, moving: Image) -> Answer:
        result = register(RegistrationRequest(fixed, moving, name, options))
        quality = result.quality
        return Answer(result.transform, quality.verdict, quality.reason, quality.numbers)

    return run


def _identity(_fixed: Image, _moving: Image) -> Answer:
    return Answer(Affine.identity())


def _elastix_affine() -> Method:
    elastix = ElastixAffine()

    def run(fixed: Image, moving: Image) -> Answer:
        transform, cost = elastix(fixed, moving)
        return Answer(transform, cost=cost)

    return run


@dataclass(frozen=True, eq=False)
class Homography:
    """A projective transform of the plane z = 0, with a (3, 3) matrix in pixels."""

    moving_from_fixed: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        homogeneous = np.column_stack([points[:, :2], np.ones(len(points))])
        mapped = homogeneous @ self.moving_from_fixed.T
        return np.column_stack([mapped[:, :2] / mapped[:, 2:], points[:, 2]])


def _sift_homography(fixed: Image, moving: Image) -> Answer:
    """SIFT with the ratio test of Lowe (2004) and a RANSAC homography, on plain grey pictures."""
    if not (fixed.is_picture and moving.is_picture):
        raise InputError("sift-homography registers pictures; a volume was given.")
    sift = cv2.SIFT.create()
    found = [sift.detectAndCompute(_bytes(image), None) for image in (fixed, moving)]
    if any(descriptors is None or len(descriptors) < 2 for _, descriptors in found):
        raise RegistrationError("SIFT found no features in one of the pictures.")
    matches = cv2.BFMatcher().knnMatch(found[0][1], found[1][1], k=2)
    good = [best for best, second in matches if best.distance < SIFT_RATIO * second.distance]
    if len(good) < 4:
        raise RegistrationError(f"SIFT found {len(good)} matches; a homography needs four.")
    fixed_points = np.array([found[0][0][match.queryIdx].pt for match in good])
    moving_points = np.array([found[1][0][match.trainIdx].pt for match in good])
    matrix, _ = cv2.findHomography(fixed_points, moving_points, cv2.RANSAC, RANSAC_PIXELS)
    if matrix is None:
        raise RegistrationError("RANSAC found no homography for the SIFT matches.")
    return Answer(Homography(matrix))


def _bytes(picture: Image) -> np.ndarray:
    return np.clip(np.rint(picture.grey()[0]), 0, 255).astype(np.uint8)
