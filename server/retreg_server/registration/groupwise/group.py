"""Many images at once: all are registered to their mean, and those that do not belong are named.

Every image is registered to one of them, the hub (see links). Keypoints of the hub, carried
to all others, give the mean shape (Wang et al. 2024, BrainMorph), which is the frame of the
template. Each image is then judged against the mean of the others, which does not hold it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from retreg.errors import DegeneratePointsError, InputError, RegistrationError
from retreg.fitting import fit, fit_affine
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationRequest, RegistrationResult, Scalar
from retreg.progress import Progress, no_progress
from retreg.quality import Quality
from retreg.transforms import Affine, Chain, Transform
from retreg_server.registration.engine import judged
from retreg_server.registration.groupwise.links import (
    Link,
    Linker,
    Star,
    find_star,
    triangle_errors,
)
from retreg_server.registration.keymorph.mean_shape import MeanShape, mean_shape
from retreg_server.registration.keymorph.model import KeyMorph
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.numerics.running_mean import RunningMean
from retreg_server.registration.subject import SUBJECTS, check_kind

OTHER_SHAPE = 0.04  # no two scans of one head stretch each other as much (a logarithm)
OUTSIDE = 1e-6  # the weight of a keypoint where an image does not show it
STRANGER = "This image does not show what the others show, so it is left out of the mean."
DOUBTFUL = (
    "This image may not show what the others show, so it is left out of the mean; look at it "
    "before you use it."
)


@dataclass(frozen=True, eq=False)
class Group:
    """What a groupwise registration found.

    template: the mean of the aligned images that show the same thing, on the grid of the first of
    them. results: one per image, with the template as the fixed image, judged against the mean of
    the others; quality.numbers has its share in the mean, 0 for what was left out. rounds: until
    the mean shape came to rest.
    """

    template: Image
    results: tuple[RegistrationResult, ...]
    rounds: int

    @property
    def left_out(self) -> tuple[int, ...]:
        """The numbers, from 0, of the images that are not in the mean."""
        shares = (result.quality.numbers["share"] for result in self.results)
        return tuple(number for number, share in enumerate(shares) if share == 0)


def register_group(
    model: KeyMorph,
    images: Sequence[Image],
    options: Mapping[str, Scalar],
    progress: Progress = no_progress,
) -> Group:
    """Register two or more images of one kind to their mean.

    Without the option transform, the default of the engine of the subject is taken. Raises
    InputError for fewer images or another kind, OptionError, and RegistrationError when no two
    images show the same thing.
    """
    _check(model, images)
    named = {f"{number}.": image for number, image in enumerate(images, start=1)}
    scale = SUBJECTS[model.info.subject].common_scale(named)
    images = [scale.enlarged(image) for image in images]
    linker, stages = Linker.of(model, options, images), Stages(progress)
    strangers: list[int] = []
    while True:
        candidates = [number for number in range(len(images)) if number not in strangers]
        with stages.part(0.1 / 2 ** len(strangers) if strangers else 0.8):
            attempt = _attempt(linker, candidates, stages)
        if attempt.stranger is None:
            break
        strangers.append(attempt.stranger)
    results = attempt.results
    with stages.stage("the others", 0.1):
        for number in strangers:
            with stages.part(1 / len(strangers)):
                link = linker.link(attempt.mean.image, images[number], stages)
            results[number] = _left_out(link, surely=True)
    ordered = tuple(scale.restored(results[number]) for number in range(len(images)))
    return Group(scale.image(attempt.mean.image), ordered, attempt.rounds)


@dataclass(frozen=True, eq=False)
class Attempt:
    """A mean of images and what is said of each; stranger: the number of one that spoils it."""

    mean: RunningMean
    results: dict[int, RegistrationResult]
    rounds: int
    stranger: int | None


def _attempt(linker: Linker, candidates: Sequence[int], stages: Stages) -> Attempt:
    """The mean of those candidates that go together, and each judged by the others."""
    images = linker.images
    with stages.part(0.55):
        star = find_star(linker, candidates, stages)
    with stages.stage("triangles", 0.2):
        triangles = triangle_errors(linker, star, stages)
    with stages.stage("mean", 0.05):
        shape, members = _framed(linker, star)
        mean = RunningMean(images[star.members[0]].grid, _channels(images, star.members))
        for number, estimate in members.items():
            mean.add(images[number], estimate.transform, estimate.evidence["share"])
    results: dict[int, RegistrationResult] = {}
    others = sorted(set(candidates) - set(members))
    with stages.stage("the others", 0.1):
        for number in others:
            with stages.part(1 / len(others)):
                link = linker.link(mean.image, images[number], stages)
            if link is not None and link.rank == 2:
                members[number] = _late(link)
                mean.add(images[number], link.result.transform, 1.0)
            else:
                results[number] = _left_out(link)
    judgements: dict[int, RegistrationResult] = {}
    with stages.stage("quality", 0.1):
        for done, (number, estimate) in enumerate(members.items()):
            stages.at(done / len(members))
            closed = [e for corners, e in triangles.items() if number in corners]
            evidence = {**estimate.evidence, **({"triangle": min(closed)} if closed else {})}
            known = replace(estimate, evidence=evidence)
            judgements[number] = _judged(linker, images[number], mean, known)
    stranger = _stranger(linker, judgements) if len(members) > 2 else None
    return Attempt(mean, results | judgements, shape.rounds, stranger)


def _check(model: KeyMorph, images: Sequence[Image]) -> None:
    if len(images) < 2:
        raise InputError("One image was given; a group has two or more.")
    for number, image in enumerate(images, start=1):
        check_kind(model.info, image, f"Image {number}")


def _channels(images: Sequence[Image], members: Sequence[int]) -> int:
    """Pictures keep their colours when all have as many channels."""
    counts = {len(images[number].array) for number in members}
    return counts.pop() if len(counts) == 1 else 1


def _framed(linker: Linker, star: Star) -> tuple[MeanShape, dict[int, Estimate]]:
    """The mean shape, and from it to each member of the star and back.

    Raises RegistrationError when the keypoints determine no mean.
    """
    marks = star.keypoints
    ways: dict[int, tuple[Transform, Transform]] = {
        number: (link.result.transform, cast(Transform, link.result.backward))
        for number, link in star.links.items()
    }
    # There and back by the first of the others: the hub has no evidence of its own.
    ways[star.hub] = Affine.identity(), _then(*ways[min(star.links)])
    carried = [ways[number][0](marks.points) for number in star.members]
    weights = [
        marks.weights * (linker.images[number].grid.contains(points) + OUTSIDE) + OUTSIDE
        for number, points in zip(star.members, carried, strict=True)
    ]
    family = linker.linear_family
    try:
        shape = mean_shape(carried, weights, family, 0.0, bool(linker.options["robust"]))
        frame = cast(Affine, fit(family, shape.points, marks.points, marks.weights + OUTSIDE))
    except DegeneratePointsError as error:
        raise RegistrationError(
            "The keypoints of the images determine no mean; check that all show the same thing."
        ) from error
    members = {}
    for number, share in zip(star.members, shape.shares, strict=True):
        transform = _then(frame, ways[number][0])
        evidence = {"share": float(share), "keypoint_rms_mm": star.misses_mm(number)}
        members[number] = Estimate(
            transform,
            replace(marks, points=shape.points),
            replace(marks, points=transform(shape.points)),
            _then(ways[number][1], frame.inverse),
            evidence,
        )
    return shape, members


def _then(first: Transform, second: Transform) -> Transform:
    """The one after the other; affines become one."""
    if isinstance(first, Affine) and isinstance(second, Affine):
        return Affine(second.moving_from_fixed @ first.moving_from_fixed)
    return Chain((first, second))


def _late(link: Link) -> Estimate:
    """Of an image that fits the mean, though not the hub."""
    result = link.result
    return Estimate(
        result.transform,
        result.fixed_keypoints,
        result.moving_keypoints,
        result.backward,
        {"share": 1.0, "keypoint_rms_mm": link.misses_mm(result.transform)},
    )


def _judged(
    linker: Linker, image: Image, mean: RunningMean, estimate: Estimate
) -> RegistrationResult:
    """Against the mean of the others."""
    others = mean.without(image, estimate.transform, estimate.evidence["share"])
    info, options = linker.model.info, linker.described
    request = RegistrationRequest(others, image, info.name, options)
    try:
        return judged(info, request, options, estimate, Stages())
    except RegistrationError:  # the others show nothing here
        nothing = Quality({**estimate.evidence, "agreement": 0.0}, "fail", STRANGER)
        marks = estimate.fixed_keypoints, estimate.moving_keypoints
        return RegistrationResult(estimate.transform, *marks, nothing, {}, estimate.backward)


def _stranger(linker: Linker, results: Mapping[int, RegistrationResult]) -> int | None:
    """The number of the member that fits the others least, if it does not fit.

    That is one that fails; and, where specimens are alike enough to be accepted, one that agrees
    with every other clearly less than is usual, and has another shape as far as the transform can
    tell.
    """
    judged_by_all = {n: each.quality.numbers.get("agreement", 0.0) for n, each in results.items()}
    by_one = {n: linker.agreement(n, [*results]) or judged_by_all[n] for n in results}
    rigid = linker.linear_family != "affine"
    strange = []
    for number, result in results.items():
        others = [n for n in results if n != number]
        usual = linker.subject.usual * np.median([by_one[n] for n in others])
        odd = by_one[number] < usual and (
            rigid or min(_stretch(result, results[n]) for n in others) > OTHER_SHAPE
        )
        if odd or result.quality.verdict == "fail":
            strange.append(number)
    return min(strange, key=judged_by_all.__getitem__, default=None)


def _stretch(one: RegistrationResult, other: RegistrationResult) -> float:
    """The largest stretch (logarithm of a scale) between two images of the group."""
    parts = [
        fit_affine(result.fixed_keypoints.points, result.moving_keypoints.points)
        for result in (one, other)
    ]
    between = _then(parts[0].inverse, parts[1])
    scales = np.linalg.svd(cast(Affine, between).moving_from_fixed[:3, :3], compute_uv=False)
    return float(np.abs(np.log(scales)).max())


def _left_out(link: Link | None, surely: bool = False) -> RegistrationResult:
    """What is said of an image that is not in the mean; None: nothing was found in it."""
    result = link.result if link else _nothing()
    fails = surely or result.quality.verdict == "fail"
    numbers = {**result.quality.numbers, "share": 0.0}
    quality = Quality(numbers, "fail", STRANGER) if fails else Quality(numbers, "check", DOUBTFUL)
    return replace(result, quality=quality)


def _nothing() -> RegistrationResult:
    """Of an image in which nothing was found."""
    still, none = Affine.identity(), np.zeros(0)
    marks = Keypoints(np.zeros((0, 3)), none, none)
    return RegistrationResult(still, marks, marks, Quality({"agreement": 0.0}, "fail", ""), {})
