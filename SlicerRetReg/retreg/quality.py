"""How good a registration is, in numbers and as a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from retreg.transforms import Transform

Verdict = Literal["accept", "check", "fail"]


@dataclass(frozen=True, eq=False)
class Quality:
    """Measured numbers by name, the verdict, and the sentence that explains it."""

    numbers: Mapping[str, float]
    verdict: Verdict
    reason: str


def inverse_consistency(
    forward: Transform, backward: Transform, points: np.ndarray
) -> np.ndarray:
    """|backward(forward(p)) - p| in mm for fixed-world points (n, 3); returns (n,)."""
    return np.linalg.norm(backward(forward(points)) - points, axis=1)


def jacobian_determinants(
    transform: Transform, points: np.ndarray, frame: np.ndarray, step_mm: float
) -> np.ndarray:
    """Local change of volume (of area for a plane) at points (n, 3); returns (n,).

    frame: (3, d) orthonormal directions that span the image, d = 2 for a picture. Central
    differences with step_mm. Values at or below 0 mean that the transform folds.
    """
    columns = [
        (transform(points + step_mm / 2 * axis) - transform(points - step_mm / 2 * axis)) / step_mm
        for axis in frame.T
    ]
    derivative = np.stack(columns, axis=-1)
    if frame.shape[1] == 3:
        return np.linalg.det(derivative) * np.linalg.det(frame)  # -1 where it is left-handed
    normals = np.cross(derivative[..., 0], derivative[..., 1])
    # Signed by the side to which most of the plane faces: a fold faces the other way.
    side = np.sign(normals @ normals.mean(axis=0))
    return side * np.linalg.norm(normals, axis=1)


def normalised_mutual_information(a: np.ndarray, b: np.ndarray, bins: int = 32) -> float:
    """(H(a) + H(b)) / H(a, b) of two arrays of equal size: 1 unrelated, 2 identical.

    Source: Studholme et al. 1999, eq. 12. Values are cut at their 1st and 99th percentiles.
    NaN when there are fewer than 100 values.
    """
    if a.size < 100:
        return float("nan")
    row, column = _binned(a, bins), _binned(b, bins)
    counts = np.bincount(row * bins + column, minlength=bins * bins)
    joint = counts.reshape(bins, bins) / a.size
    separate = _entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1))
    together = _entropy(joint.ravel())
    return float(separate / together) if together > 0 else 1.0


def _binned(values: np.ndarray, bins: int) -> np.ndarray:
    """The bin (n,) of each value between the 1st and the 99th percentile."""
    low, high = np.percentile(values, (1, 99))
    share = (values.ravel().astype(np.float64) - low) / max(high - low, 1e-12)
    return np.clip((share * bins).astype(np.int64), 0, bins - 1)


def _entropy(probabilities: np.ndarray) -> float:
    used = probabilities[probabilities > 0]
    return float(-(used * np.log(used)).sum())


@dataclass(frozen=True)
class Limits:
    """What a registration must reach. Measured on pairs of known outcome by `retreg evaluate`.

    agreement: share of the blocks of the image that find their best counterpart where the
    transform put them. inconsistency: 95th percentile of the inverse consistency, as a share of
    the size of the imaged object. correlation of the vessels counts for pictures only.
    undeformed: the agreement under the global map below a deformation, which makes any two images
    somewhat alike. meeting_marks: most of the picture that may lie under an annotation that both
    carry and that the transform puts onto itself. lead: most by which the correlation, which strong
    edges rule, may exceed the agreement, in which all parts count alike.
    """

    agreement: float
    inconsistency: float
    overlap: float
    blocks: float
    correlation: float
    undeformed: float
    meeting_marks: float
    lead: float


# Unrelated pictures agree in 7 % of their tiles and unrelated volumes in 4 % of their blocks, by
# chance (registration/quality/). With these limits none of 212 wrong real pairs was accepted and
# none of 123 right ones rejected (`retreg evaluate retina` and `brain`; the table in README.md).
ACCEPT = Limits(
    agreement=0.4, inconsistency=0.02, overlap=0.25, blocks=15, correlation=0.2, undeformed=0.25,
    meeting_marks=0.0, lead=0.2,
)
FAIL = Limits(
    agreement=0.25, inconsistency=0.1, overlap=0.1, blocks=5, correlation=0.1, undeformed=0.12,
    meeting_marks=1.0, lead=1.0,
)
SLAB_AGREEMENT = 0.6  # to accept a slab: of its few blocks more agree by chance
# Pictures that share less than half: so many places are possible that of their few tiles up to 63 %
# were found to agree in pictures of different eyes.
HALF, PART_OVERLAP, PART_AGREEMENT = 0.5, 0.15, 0.75
# Pictures that share more: vessels that are faint in one of them correlate little.
FAINT_AGREEMENT = 0.5
# Marks that meet count as long as what lies beside them agrees no better than this; it agreed by up
# to 48 % in 62 pairs of different eyes whose marks met.
MARKED_AGREEMENT = 0.75

# What nine of ten right results keep: 61 and 60 of 65 on real images, 45 of them of
# `retreg evaluate retina` (11 turned) and 20 of `brain`.
USUAL_AGREEMENT, USUAL_INCONSISTENCY = 0.6, 0.003


def judge(numbers: Mapping[str, float], unit: str = "mm") -> tuple[Verdict, str]:
    """The verdict on measured numbers, and the sentence that explains it.

    fail when one number is beyond FAIL, accept when all reach ACCEPT, else check. numbers:
    agreement, blocks, overlap, inconsistency, folding, and correlation for pictures; what is
    missing or NaN counts as bad, except the correlation, agreement_undeformed, meeting_marks, and
    triangle, which only groups have (the inconsistency by way of another image). slab_mm, if it is
    there, explains what is bad and asks for more agreement. unit names the unit of the world.
    """
    folding = numbers.get("folding", np.nan)  # not known where no point lands in the moving image
    if not numbers.get("overlap", 1.0) > 0 or np.isnan(folding):
        return "fail", (
            "Wrong: the transform puts the moving image where it does not overlap the fixed one at "
            "all."
        )
    if folding != 0:
        return "fail", "Wrong: the transform folds the image onto itself."
    needed = _to_accept(numbers)
    wrong, doubtful = (_complaint(numbers, limits, needed) for limits in (FAIL, needed))
    thin = f" One is only {numbers['slab_mm']:.2g} {unit} thick." if "slab_mm" in numbers else ""
    if wrong:
        return "fail", f"Probably wrong: {wrong}.{thin}"
    if doubtful:
        return "check", f"Look at it before you use it: {doubtful}.{thin}"
    return "accept", _praise(numbers, unit)


def _praise(numbers: Mapping[str, float], unit: str) -> str:
    """How far the result may be off, by what was measured, and what is usual."""
    miss, share = numbers["inverse_consistency_p95_mm"], numbers["inconsistency"]
    usual = ""
    if share > 0:
        most = _rounded(miss / share * USUAL_INCONSISTENCY, 1)
        usual = f" (usual for right results of this size: up to {most} {unit})"
    return (
        f"Points taken to the moving image and back miss by {_rounded(miss, 2)} {unit}{usual}, and "
        f"{numbers['agreement']:.0%} of the image finds its counterpart where it was put (usual: "
        f"{USUAL_AGREEMENT:.0%} or more)."
    )


def _rounded(number: float, digits: int) -> str:
    return f"{float(f'{number:.{digits}g}'):g}"  # 250, where .2g alone would write 2.5e+02


def _to_accept(numbers: Mapping[str, float]) -> Limits:
    """What these numbers must reach, by how much there is to judge."""
    if "slab_mm" in numbers:
        return replace(ACCEPT, agreement=SLAB_AGREEMENT)
    if "correlation" not in numbers:  # a volume
        return ACCEPT
    if numbers.get("overlap", 0.0) < HALF:
        return replace(ACCEPT, agreement=PART_AGREEMENT, overlap=PART_OVERLAP)
    agreement = numbers.get("agreement", 0.0)
    return replace(
        ACCEPT,
        correlation=(FAIL if agreement >= FAINT_AGREEMENT else ACCEPT).correlation,
        meeting_marks=(FAIL if agreement >= MARKED_AGREEMENT else ACCEPT).meeting_marks,
    )


def _complaint(numbers: Mapping[str, float], limits: Limits, needed: Limits) -> str:
    """What is worse than the limits, and what is usual or needed to accept it, or nothing."""
    agreement, blocks = numbers.get("agreement", 0.0), numbers.get("blocks", 0.0)
    inconsistency = numbers.get("inconsistency", np.inf)
    usual = f"(usual: {max(USUAL_AGREEMENT, needed.agreement):.0%} or more)"
    if numbers.get("meeting_marks", 0.0) > limits.meeting_marks:
        return (
            "what agrees is an annotation, dirt or a reflex that both pictures carry at the same "
            f"place; only {agreement:.0%} of the image beside it finds its counterpart {usual}"
        )
    if not numbers.get("overlap", 0.0) >= limits.overlap:
        return (
            f"the images share only {numbers.get('overlap', 0.0):.0%} of what they show "
            f"({needed.overlap:.0%} are needed)"
        )
    if not blocks >= limits.blocks:
        return "the images show too little structure in common to judge the result"
    if not agreement >= limits.agreement:
        return f"only {agreement:.0%} of the image finds its counterpart where it was put {usual}"
    undeformed = numbers.get("agreement_undeformed", 1.0)
    if not undeformed >= limits.undeformed:
        return (
            f"only {undeformed:.0%} of the image found its counterpart before it was deformed "
            f"({needed.undeformed:.0%} are needed), and a deformation makes even unrelated images "
            "alike"
        )
    if not inconsistency <= limits.inconsistency:
        return f"registering the other way round gives another result, {_apart(inconsistency)}"
    if not numbers.get("triangle", 0.0) <= limits.inconsistency:
        return (
            "going there by another image of the group gives another result, "
            f"{_apart(numbers['triangle'])}"
        )
    if not numbers.get("correlation", 1.0) >= limits.correlation:
        return (
            f"the vessels of the two pictures correlate by only {numbers['correlation']:.2f} "
            f"({needed.correlation:g} is needed)"
        )
    if numbers.get("correlation", 0.0) - agreement > limits.lead:
        return (
            "what meets is a few strong edges, as of a map that both pictures carry; only "
            f"{agreement:.0%} of the image finds its counterpart {usual}"
        )
    return ""


def _apart(share: float) -> str:
    return f"{share:.1%} of the image size apart (usual: up to {USUAL_INCONSISTENCY:.1%})"
