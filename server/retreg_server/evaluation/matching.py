"""How well points of two pictures of one eye are found again and matched: learned ones and SIFT."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from retreg_server.evaluation.keypoint_report import write_figures
from retreg_server.evaluation.keypoints import Measured
from retreg_server.evaluation.matching_pairs import KINDS, Difficulty, KnownPair
from retreg_server.evaluation.metrics import FAILURE_PIXELS, REFERENCE_PIXELS
from retreg_server.registration.fundus.feature_estimate import PictureMethod
from retreg_server.registration.fundus.features import (
    SIFT_ON_VESSELS,
    Matches,
    ransac_affine,
)
from retreg_server.registration.fundus.learned_features import learned_method
from retreg_server.registration.fundus.point_matching import TOLERANCE
from retreg_server.registration.fundus.sift import SIFT_ON_GREY
from retreg_server.registration.fundus.superpoint import DIAMETER, on_vessels
from retreg_server.registration.preprocessing.retina_picture import Picture, retina_picture

LIMIT = FAILURE_PIXELS * DIAMETER / REFERENCE_PIXELS
MEASURES = {
    "repeatability": "share of 1",
    "matching-score": "share of 1",
    "inliers": "number",
    "success": "share of 1",
}
MILLISECONDS = "milliseconds"


def matching_methods(matchers: Sequence[str] = ("nearest",)) -> dict[str, PictureMethod]:
    """What is compared, by name: learned points with each of the matchers, and SIFT."""
    return {
        **{
            f"superpoint-fundus, {matcher}{name}": on_vessels(learned_method(matcher, looks))
            for matcher in matchers
            for name, looks in (("", 4), (", 1 look", 1))
        },
        "SIFT on vessels": on_vessels(SIFT_ON_VESSELS),
        "SIFT on grey": SIFT_ON_GREY,
    }


def matching_numbers(
    pairs: Sequence[Difficulty], methods: dict[str, PictureMethod], tick: Callable[[], None]
) -> Iterator[Measured]:
    """All numbers of all figures, as they are measured; tick is called after every pair."""
    for each in pairs:
        pair = each.load()
        pictures = (
            retina_picture(pair.fixed, "fixed", DIAMETER),
            retina_picture(pair.moving, "moving", DIAMETER),
        )
        for name, method in methods.items():
            numbers, seconds = measured_match(pair, *pictures, method)
            for measure, value in numbers.items():
                yield Measured(f"{measure}-by-{each.kind}", name, each.x, value, each.name)
            yield Measured(MILLISECONDS, name, each.kind, 1000 * seconds, each.name)
        tick()


def write_matching_report(folder: Path, numbers: Sequence[Measured]) -> None:
    """Tables and plots of what was measured: medians over pictures, of success the mean."""
    titles = {
        f"{measure}-by-{kind}": f"{measure.replace('-', ' ').capitalize()} by {kind}"
        for measure in MEASURES
        for kind in KINDS
    }
    labels = {figure: MEASURES[figure.split("-by-")[0]] for figure in titles}
    titles[MILLISECONDS] = "Processor time of detection and matching"
    labels[MILLISECONDS] = "milliseconds"
    heading = "Learned keypoints and SIFT", "Medians over pictures; of success the share of pairs."
    write_figures(folder, heading, titles, labels, _with_shares(numbers))


def _with_shares(numbers: Sequence[Measured]) -> list[Measured]:
    """The numbers, but of success each is the share of the pairs at its place."""
    shares: dict[tuple[str, str, str], list[float]] = {}
    for each in numbers:
        shares.setdefault((each.figure, each.series, each.x), []).append(each.value)
    return [
        replace(each, value=float(np.mean(shares[each.figure, each.series, each.x])))
        if each.figure.startswith("success")
        else each
        for each in numbers
    ]


def measured_match(
    pair: KnownPair, fixed: Picture, moving: Picture, method: PictureMethod
) -> tuple[dict[str, float], float]:
    """MEASURES by name, and the processor seconds of detection and matching.

    repeatability: share of the fixed points in the common part with a moving point in TOLERANCE of
    where they belong. matching score: the share whose match lies there. success: 1 when the affine
    of RANSAC is off by less than FAILURE_PIXELS of REFERENCE_PIXELS (median of the points), else 0.
    """
    begun = time.process_time()
    first, second = method.describe(fixed), method.describe(moving)
    matches = method.match(first, second)[0]
    seconds = time.process_time() - begun
    there = _there(pair, fixed, moving, first.points)
    common = _inside(moving, there)
    apart = np.full(len(there), np.inf)
    if len(second):
        apart = np.array([np.linalg.norm(second.points - place, axis=1).min() for place in there])
    found = ransac_affine(matches, method.tolerance, 1)
    count = max(int(common.sum()), 1)
    numbers = {
        "repeatability": float((apart[common] < TOLERANCE).sum()) / count,
        "matching-score": float(_are_right(pair, fixed, moving, matches).sum()) / count,
        "inliers": 0.0,
        "success": 0.0,
    }
    if found is not None:
        places = fixed.pixels(pair.points)
        mapped = places @ found.moving_from_fixed[:2, :2].T + found.moving_from_fixed[:2, 2]
        missed = np.linalg.norm(mapped - _there(pair, fixed, moving, places), axis=1)
        numbers["inliers"] = float(found.count)
        numbers["success"] = float(np.median(missed) < LIMIT)
    return numbers, seconds


def _are_right(pair: KnownPair, fixed: Picture, moving: Picture, matches: Matches) -> np.ndarray:
    there = _there(pair, fixed, moving, matches.fixed)
    near: np.ndarray = np.linalg.norm(there - matches.moving, axis=1) < TOLERANCE
    return near & _inside(moving, there)


def _there(pair: KnownPair, fixed: Picture, moving: Picture, points: np.ndarray) -> np.ndarray:
    """Where points (n, 2) of the fixed picture truly lie in the moving one."""
    return moving.pixels(pair.moving_from_fixed(fixed.world(points)))


def _inside(picture: Picture, points: np.ndarray) -> np.ndarray:
    height, width = picture.inside.shape
    x, y = np.rint(points).astype(int).T
    shown = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    return shown & picture.inside[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
