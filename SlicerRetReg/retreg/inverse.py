"""The inverse of any transform, found point by point, with a residual that says how well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg.transforms import Affine, Chain, Transform

TOLERANCE_MM = 1e-6
MOST_STEPS = 60
_STEP_MM = 1e-3  # over which derivatives are taken
_HALVINGS = 12
_SAMPLES = 100  # whose mean derivative all points begin with
_SLOW = 0.3  # share of the distance that may be left by a step
_PIECE = 1 << 17  # points that are solved at a time


@dataclass(frozen=True, eq=False)
class Inverse:
    """Maps moving points to the fixed points that transform takes there (both LPS mm).

    Each is solved by damped Newton steps with the derivative by central differences (Press et al.,
    Numerical Recipes, chapter 9.7), until it is hit within TOLERANCE_MM. Where a transform folds,
    several points have the same image, and one of them is found; residual says how far an answer is
    off.
    """

    transform: Transform

    def __call__(self, points: np.ndarray) -> np.ndarray:
        targets = np.asarray(points, dtype=np.float64)
        pieces = range(0, len(targets), _PIECE)
        solved = [_solved(self.transform, targets[n : n + _PIECE]) for n in pieces]
        return np.concatenate(solved) if solved else targets.reshape(0, 3)

    def residual(self, points: np.ndarray) -> np.ndarray:
        """(n,) mm: how far from each moving point transform takes the answer for it."""
        targets = np.asarray(points, dtype=np.float64)
        return np.linalg.norm(self.transform(self(targets)) - targets, axis=1)


def inverse_of(transform: Transform) -> Transform:
    """From moving to fixed points: exact for affines, numerical (Inverse) for everything else.

    The inverse of an inverse is the transform itself; the parts of a chain are inverted one by one,
    in the opposite order.
    """
    if isinstance(transform, Affine):
        return transform.inverse
    if isinstance(transform, Inverse):
        return transform.transform
    if isinstance(transform, Chain):
        return Chain(tuple(inverse_of(part) for part in reversed(transform.transforms)))
    return Inverse(transform)


def largest_residual_mm(transform: Transform, points: np.ndarray) -> float:
    """The largest residual of any inverse within transform, where these points (n, 3) pass it."""
    if isinstance(transform, Inverse):
        return float(transform.residual(points).max(initial=0.0))
    largest = 0.0
    for part in transform.transforms if isinstance(transform, Chain) else ():
        largest = max(largest, largest_residual_mm(part, points))
        points = part(points)
    return largest


def _solved(transform: Transform, targets: np.ndarray) -> np.ndarray:
    """(n, 3) points that transform takes to targets.

    Steps are taken with one derivative for all points; it is found anew for those that come near
    too slowly.
    """
    some = targets[:: max(1, len(targets) // _SAMPLES)]
    common = _derivatives(transform, some).mean(axis=0)
    inverses = np.broadcast_to(np.linalg.pinv(common), (len(targets), 3, 3)).copy()
    found = some.mean(axis=0) + (targets - transform(some).mean(axis=0)) @ inverses[0].T
    missing = transform(found) - targets
    open_ = np.linalg.norm(missing, axis=1) > TOLERANCE_MM
    for _ in range(MOST_STEPS):
        where = np.flatnonzero(open_)
        if len(where) == 0:
            break
        before = np.linalg.norm(missing[where], axis=1)
        steps = -(inverses[where] @ missing[where, :, None])[:, :, 0]
        tried = found[where] + steps
        left = transform(tried) - targets[where]
        after = np.linalg.norm(left, axis=1)
        nearer = after < before
        found[where[nearer]], missing[where[nearer]] = tried[nearer], left[nearer]
        open_[where] = np.minimum(after, before) > TOLERANCE_MM
        slow = where[(after > _SLOW * before) & open_[where]]
        if len(slow):
            inverses[slow] = np.linalg.pinv(_derivatives(transform, found[slow]))
            moved = _damped_step(transform, found, missing, inverses, slow, targets)
            open_[slow] = moved & (np.linalg.norm(missing[slow], axis=1) > TOLERANCE_MM)
    return found


def _derivatives(transform: Transform, at: np.ndarray) -> np.ndarray:
    """(n, 3, 3) derivatives at points (n, 3), by central differences."""
    columns = [
        (transform(at + _STEP_MM * unit) - transform(at - _STEP_MM * unit)) / (2 * _STEP_MM)
        for unit in np.eye(3)
    ]
    return np.stack(columns, axis=-1)


def _damped_step(
    transform: Transform,
    found: np.ndarray,
    missing: np.ndarray,
    inverses: np.ndarray,
    where: np.ndarray,
    targets: np.ndarray,
) -> np.ndarray:
    """Take the longest of halved Newton steps that brings each point nearer; (n,) bool: which did.

    found and missing are changed where that is so.
    """
    steps = -(inverses[where] @ missing[where, :, None])[:, :, 0]
    error = np.linalg.norm(missing[where], axis=1)
    waiting = np.arange(len(where))
    for halving in range(_HALVINGS):
        tried = found[where[waiting]] + steps[waiting] / 2**halving
        left = transform(tried) - targets[where[waiting]]
        nearer = np.linalg.norm(left, axis=1) < error[waiting]
        ends = where[waiting[nearer]]
        found[ends], missing[ends] = tried[nearer], left[nearer]
        waiting = waiting[~nearer]
        if len(waiting) == 0:
            break
    moved = np.ones(len(where), dtype=bool)
    moved[waiting] = False
    return moved
