"""From views to a mosaic: overlaps, what contradicts, adjustment, and a verdict for each view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from retreg.errors import RegistrationError
from retreg.image import Image
from retreg.quality import Quality, Verdict
from retreg.transforms import Chain
from retreg_server.mosaic.adjustment import Seam, adjusted
from retreg_server.mosaic.consistency import contradictory, middle
from retreg_server.mosaic.pairs import Pair, PairFinder, agreeing_matches, groups
from retreg_server.mosaic.plane import Placed, Plane
from retreg_server.registration.model import Estimate, Stages
from retreg_server.registration.quality.assess import assess
from retreg_server.registration.subject import SUBJECTS

SUBJECT = "retina"
VERDICTS: tuple[Verdict, ...] = ("fail", "check", "accept")


@dataclass(frozen=True, eq=False)
class JudgedSeam:
    """An accepted pair in the mosaic: how it is judged there, beside the pair on its own.

    misses: (n,) mm of the mosaic, how far apart its control points lie there.
    """

    pair: Pair
    misses: np.ndarray
    quality: Quality

    @property
    def views(self) -> tuple[int, int]:
        return self.pair.views


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Where views lie, by their numbers.

    reference: the view whose world the mosaic has. placed: the maps of the views that are part of
    it. seams: the pairs that hold it together. dropped: accepted pairs that contradict those.
    left_out: why the other views are no part of it. pairs: all that were registered.
    """

    reference: int
    placed: dict[int, Placed]
    seams: list[JudgedSeam]
    dropped: list[Pair]
    left_out: dict[int, str]
    pairs: list[Pair]

    def judged(self, number: int, names: Sequence[str]) -> tuple[str, str]:
        """Verdict and sentence on a view: those of its worst seam, or of what was dropped."""
        if number in self.left_out:
            return "fail", self.left_out[number]
        own = [seam for seam in self.seams if number in seam.views]
        worst = min(own, key=lambda seam: VERDICTS.index(seam.quality.verdict))
        aside = [pair for pair in self.dropped if number in pair.views]
        if aside and worst.quality.verdict != "fail":
            return "check", (
                f"Look at it before you use it: where it meets {names[aside[0].beside(number)]} "
                "contradicts the other overlaps, and was left aside."
            )
        other = names[worst.pair.beside(number)]
        return worst.quality.verdict, f"Beside {other}: {worst.quality.reason}"


def make_mosaic(
    images: Sequence[Image], names: Sequence[str], stages: Stages, bends: bool = True
) -> Mosaic:
    """Place pictures of one retina beside each other by their overlaps.

    bends: whether views may bend, or only stretch. Raises RegistrationError when no two overlap
    so that it is sure.
    """
    with stages.stage("comparing views", 0.2):
        agreeing, blank = agreeing_matches(images, stages)
    with stages.part(0.6):
        pairs = PairFinder(images, agreeing, stages).find()
    with stages.stage("adjusting", 0.05):
        found = _placed(images, names, pairs, blank, bends)
    with stages.stage("judging", 0.15):
        seams = []
        for number, seam in enumerate(found.seams):
            stages.at(number / len(found.seams))
            seams.append(_judged(images, seam, found.placed))
    return replace(found, seams=seams)


def _placed(
    images: Sequence[Image],
    names: Sequence[str],
    pairs: list[Pair],
    blank: Mapping[int, str],
    bends: bool,
) -> Mosaic:
    """The mosaic without what the images say of it in the end."""
    planes = [Plane(image.grid) for image in images]
    held, dropped = _consistent(planes, [pair for pair in pairs if pair.is_accepted])
    group = groups(len(images), held)
    largest = max(sorted(set(group)), key=lambda label: (group == label).sum())
    members = np.flatnonzero(group == largest).tolist()
    if len(members) < 2:
        raise RegistrationError(_nothing(names, pairs, blank))
    kept = [pair for pair in held if pair.fixed in members]
    reference = middle(len(images), [pair.views for pair in kept])
    place = {number: n for n, number in enumerate(members)}
    seams = [_seam(planes, pair, place) for pair in kept]
    own = [planes[number] for number in members]
    maps = adjusted(own, seams, place[reference], bends)
    return Mosaic(
        reference,
        {n: Placed(maps[place[n]], planes[n], planes[reference]) for n in members},
        [
            JudgedSeam(pair, seam.misses(maps), pair.result.quality)
            for pair, seam in zip(kept, seams, strict=True)
            if pair.result
        ],
        [pair for pair in dropped if {*pair.views} & {*members}],
        {
            n: blank.get(n) or _why(n, names, pairs, held)
            for n in range(len(images))
            if n not in members
        },
        pairs,
    )


def _consistent(planes: Sequence[Plane], pairs: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    """The pairs that agree with each other, and those that do not, group by group."""
    group = groups(len(planes), pairs)
    held, dropped = list[Pair](), list[Pair]()
    for label in set(group.tolist()):
        members = np.flatnonzero(group == label).tolist()
        own = [pair for pair in pairs if pair.fixed in members]
        place = {number: n for n, number in enumerate(members)}
        seams = [_seam(planes, pair, place) for pair in own]
        evidence = [pair.agreement for pair in own]
        bad = contradictory([planes[n] for n in members], seams, evidence, 0)
        dropped += [own[number] for number in bad]
        held += [pair for number, pair in enumerate(own) if number not in bad]
    return held, dropped


def _seam(planes: Sequence[Plane], pair: Pair, place: dict[int, int]) -> Seam:
    """The control points that support a pair; place: new numbers of the views."""
    assert pair.result is not None
    sides = pair.result.fixed_keypoints, pair.result.moving_keypoints
    kept = sides[0].inliers
    points = [
        planes[n].points(side.points[kept]) for n, side in zip(pair.views, sides, strict=True)
    ]
    return Seam(place[pair.fixed], place[pair.moving], np.stack(points), sides[0].weights[kept])


def _judged(images: Sequence[Image], seam: JudgedSeam, placed: dict[int, Placed]) -> JudgedSeam:
    """What the images say of a seam, and how far the mosaic leads from the pair on its own."""
    fixed, moving = (images[number] for number in seam.views)
    there = Chain((placed[seam.pair.fixed], placed[seam.pair.moving].view_from_mosaic))
    result = seam.pair.result
    assert result is not None
    keypoints = result.fixed_keypoints, result.moving_keypoints
    estimate = Estimate(there, *keypoints, result.backward)
    measure = SUBJECTS[SUBJECT].measured(fixed, moving)
    return replace(seam, quality=assess(measure, fixed.grid, moving.grid, estimate))


def _why(number: int, names: Sequence[str], pairs: list[Pair], held: list[Pair]) -> str:
    """Why a view is no part of the mosaic."""
    partners = sorted({pair.beside(number) for pair in held if number in pair.views})
    if partners:
        shown = " and ".join(names[n] for n in partners)
        return f"It overlaps {shown}, but none of them overlaps the other views."
    tried = [pair for pair in pairs if number in pair.views]
    best = max(tried, key=lambda pair: (VERDICTS.index(pair.verdict), pair.agreement))
    nearest = names[best.beside(number)]
    return f"It overlaps no other view for sure. Nearest is {nearest}: {best.reason}"


def _nothing(names: Sequence[str], pairs: list[Pair], blank: Mapping[int, str]) -> str:
    nearest = "".join(f" {names[number]}: {reason}" for number, reason in blank.items())
    if pairs:
        best = max(pairs, key=lambda pair: (VERDICTS.index(pair.verdict), pair.agreement))
        nearest += f" Nearest are {names[best.fixed]} and {names[best.moving]}: {best.reason}"
    return (
        "No two of the pictures overlap so that it is sure, so there is no mosaic; check that they "
        f"are of one eye and that neighbours share a quarter or more.{nearest}"
    )
