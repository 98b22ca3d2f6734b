"""The inverse of any transform, found point by point, with a residual that says how well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retreg.transforms import Affine, Chain, Transform

TOLERANCE_MM = 1e-6
MOST_STEPS = 60
_STEP_MM = 1e-3  # over which derivatives are taken
_HALVINGS = 12
_PIECE = 1 << 17  # points that are solved at a time


@dataclass(frozen=True, eq=False)
class Inverse:
    """Maps moving points to the fixed points that transform takes there (both LPS mm).

    Each is solved by damped Newton steps with the derivative by central differences (Press et al.,
    Numerical Recipes, 9.7), until it is hit within TOLERANCE_MM. Where a transform folds, several
    points have the same image, and one of them is found; residual says how far any answer is off.
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


def _solved(transform: Transform, targets: np.ndarray) -> np.ndarray:
    """(n, 3) points that transform takes to targets."""
    found = _start(transform, targets)
    missing = transform(found) - targets
    open_ = np.linalg.norm(missing, axis=1) > TOLERANCE_MM
    for _ in range(MOST_STEPS):
        if not open_.any():
            break
        where = np.flatnonzero(open_)
        steps = _newton_steps(transform, found[where], missing[where])
        found[where], missing[where], moved = _damped(
            transform, found[where], missing[where], steps, targets[where]
        )
        open_[where] = moved & (np.linalg.norm(missing[where], axis=1) > TOLERANCE_MM)
    return found


def _start(transform: Transform, targets: np.ndarray) -> np.ndarray:
    """First guesses: two fixed-point steps y = x - displacement(y), the better one kept."""
    best = targets.copy()
    error = np.linalg.norm(transform(best) - targets, axis=1)
    guess = best
    for _ in range(2):
        guess = guess - (transform(guess) - targets)
        guess_error = np.linalg.norm(transform(guess) - targets, axis=1)
        better = guess_error < error
        best[better], error[better] = guess[better], guess_error[better]
    return best


def _newton_steps(transform: Transform, at: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """(n, 3) steps that a linear transform would need; pinv where the derivative is singular."""
    columns = [
        (transform(at + _STEP_MM * unit) - transform(at - _STEP_MM * unit)) / (2 * _STEP_MM)
        for unit in np.eye(3)
    ]
    derivative = np.stack(columns, axis=-1)
    return -(np.linalg.pinv(derivative) @ missing[:, :, None])[:, :, 0]


def _damped(
    transform: Transform,
    at: np.ndarray,
    missing: np.ndarray,
    steps: np.ndarray,
    targets: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The points after a step that brings each nearer, what is missing there, and which moved."""
    at, missing = at.copy(), missing.copy()
    error = np.linalg.norm(missing, axis=1)
    waiting = np.ones(len(at), dtype=bool)
    share = 1.0
    for _ in range(_HALVINGS):
        where = np.flatnonzero(waiting)
        if len(where) == 0:
            break
        tried = at[where] + share * steps[where]
        left = transform(tried) - targets[where]
        nearer = np.linalg.norm(left, axis=1) < error[where]
        at[where[nearer]], missing[where[nearer]] = tried[nearer], left[nearer]
        waiting[where[nearer]] = False
        share /= 2
    return at, missing, ~waiting
