"""Weighted point pairs, and the rigid, similarity and affine matrices that fit them best.

Points that lie in one plane, as all keypoints of a picture do, are fitted there; the direction
across the plane is carried along, so that the result is always a (4, 4) matrix in LPS mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from retreg.errors import DegeneratePointsError, InputError

FLAT = 1e-7  # singular values below this fraction of the largest one count as zero


@dataclass(frozen=True, eq=False)
class PointPairs:
    """Corresponding points (n, 3) LPS mm and their weights (n,), which have the mean 1."""

    fixed: np.ndarray
    moving: np.ndarray
    weights: np.ndarray

    @classmethod
    def checked(
        cls, fixed: np.ndarray, moving: np.ndarray, weights: np.ndarray | None
    ) -> PointPairs:
        """Validate and convert to float64; points of weight 0 are left out.

        Raises InputError on wrong shapes, numbers or weights, and DegeneratePointsError when
        fewer than three points remain, or when they coincide or lie on one line.
        """
        fixed = np.asarray(fixed, dtype=np.float64)
        moving = np.asarray(moving, dtype=np.float64)
        if fixed.ndim != 2 or fixed.shape[1] != 3 or fixed.shape != moving.shape:
            raise InputError(
                f"Point pairs of the shapes {fixed.shape} and {moving.shape} were given; two "
                "arrays of the same shape (n, 3) were expected."
            )
        weights = np.ones(len(fixed)) if weights is None else np.asarray(weights, np.float64)
        if weights.shape != (len(fixed),) or not (weights >= 0).all():
            raise InputError(f"{len(fixed)} weights of 0 or more were expected, one per pair.")
        if not (np.isfinite(fixed).all() and np.isfinite(moving).all()):
            raise InputError("The points hold numbers that are not finite.")
        if not np.isfinite(weights).all():
            raise InputError("The weights hold numbers that are not finite.")
        used = weights > 0
        if used.sum() < 3:
            raise DegeneratePointsError(
                f"{used.sum()} point pairs with a weight were given; at least 3 are needed."
            )
        pairs = cls(fixed[used], moving[used], weights[used] / weights[used].mean())
        pairs._refuse_lines("fixed", pairs._fixed_svd[1])
        pairs._refuse_lines("moving", pairs._moving_svd[1])
        return pairs

    def _refuse_lines(self, name: str, singular: np.ndarray) -> None:
        scale = np.abs(self.fixed if name == "fixed" else self.moving).max()
        if singular[0] <= 1e-12 * max(scale, 1e-300) * np.sqrt(len(self.fixed)):
            raise DegeneratePointsError(
                f"All {len(self.fixed)} {name} points coincide; spread them over the image."
            )
        if singular[1] < FLAT * singular[0]:
            raise DegeneratePointsError(
                f"The {len(self.fixed)} {name} points lie on one line; add a point beside it."
            )

    @cached_property
    def fixed_centroid(self) -> np.ndarray:
        """(3,) weighted mean of the fixed points."""
        return np.average(self.fixed, axis=0, weights=self.weights)

    @cached_property
    def moving_centroid(self) -> np.ndarray:
        """(3,) weighted mean of the moving points."""
        return np.average(self.moving, axis=0, weights=self.weights)

    @cached_property
    def length_mm(self) -> float:
        """Root mean square distance of the fixed points from their (unweighted) centroid."""
        return float(np.sqrt(self.fixed.var(axis=0).sum()))

    @cached_property
    def _fixed_svd(self) -> tuple[np.ndarray, np.ndarray]:
        return _principal_axes(self.fixed)

    @cached_property
    def _moving_svd(self) -> tuple[np.ndarray, np.ndarray]:
        return _principal_axes(self.moving)

    @property
    def fixed_axes(self) -> np.ndarray:
        """(3, d) orthonormal axes in which the fixed points vary, d = 2 for a plane, else 3."""
        axes, singular = self._fixed_svd
        return axes[:, : 3 if singular[2] > FLAT * singular[0] else 2]

    @cached_property
    def parallel_normal(self) -> np.ndarray | None:
        """The common unit normal (3,) when both sets lie in parallel planes, else None."""
        fixed_axes, fixed_singular = self._fixed_svd
        moving_axes, moving_singular = self._moving_svd
        flat = fixed_singular[2] <= FLAT * fixed_singular[0] and (
            moving_singular[2] <= FLAT * moving_singular[0]
        )
        if flat and abs(fixed_axes[:, 2] @ moving_axes[:, 2]) > 1 - FLAT:
            normal: np.ndarray = fixed_axes[:, 2]
            return normal
        return None


def _principal_axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns: unit axes of decreasing spread (3, 3); and the singular values (3,)."""
    centred = points - points.mean(axis=0)
    few = len(points) < 3  # the axes across them must come from somewhere; else n x n is a waste
    _, singular, axes = np.linalg.svd(centred, full_matrices=few)
    return axes.T, np.pad(singular, (0, 3 - len(singular)))


def rigid_matrix(pairs: PointPairs) -> np.ndarray:
    """Rotation and translation that minimise sum_i w_i |T(fixed_i) - moving_i|^2.

    Never a reflection: pictures are not mirrored either, since points in parallel planes are
    turned within the plane. Source: Kabsch 1976; Umeyama 1991, eq. 39-43.
    """
    return _from_linear(pairs, _rotation(pairs)[0])


def similarity_matrix(pairs: PointPairs) -> np.ndarray:
    """As rigid_matrix, with one scale for all directions (Umeyama 1991, eq. 42)."""
    rotation, scale = _rotation(pairs)
    if scale <= 0:
        raise DegeneratePointsError(
            "No rotation brings the points together: they look mirrored or unrelated. Check which "
            "point belongs to which."
        )
    return _from_linear(pairs, scale * rotation)


def affine_matrix(pairs: PointPairs) -> np.ndarray:
    """The affine that minimises sum_i w_i |T(fixed_i) - moving_i|^2.

    When the fixed points lie in one plane, its normal is turned by the rotation that fits best.
    Raises DegeneratePointsError when the result would flatten the image.
    """
    axes = pairs.fixed_axes
    root = np.sqrt(pairs.weights)[:, None]
    inside = (pairs.fixed - pairs.fixed_centroid) @ axes
    coefficients = np.linalg.lstsq(
        root * inside, root * (pairs.moving - pairs.moving_centroid), rcond=None
    )[0]
    linear = coefficients.T @ axes.T
    if axes.shape[1] == 2:
        normal = np.cross(axes[:, 0], axes[:, 1])
        linear = linear + np.outer(_rotation(pairs)[0] @ normal, normal)
    if abs(np.linalg.det(linear)) < FLAT * np.linalg.norm(linear, axis=0).prod():
        raise DegeneratePointsError(
            "The best affine transform flattens the image: the moving points lie in a plane or on "
            "a line that the fixed points do not share."
        )
    return _from_linear(pairs, linear)


def _rotation(pairs: PointPairs) -> tuple[np.ndarray, float]:
    """The proper rotation (3, 3) of the weighted Procrustes problem, and its optimal scale."""
    fixed = pairs.fixed - pairs.fixed_centroid
    moving = pairs.moving - pairs.moving_centroid
    covariance = (pairs.weights[:, None] * moving).T @ fixed
    normal = pairs.parallel_normal
    if normal is not None:
        # A large term along the common normal pins it, which leaves a turn within the plane.
        covariance = covariance + np.linalg.norm(covariance) * 10 * np.outer(normal, normal)
    u, _, vt = np.linalg.svd(covariance)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(signs) @ vt
    in_plane = (pairs.weights[:, None] * moving).T @ fixed
    scale = np.trace(rotation.T @ in_plane) / (pairs.weights[:, None] * fixed**2).sum()
    return rotation, float(scale)


def _from_linear(pairs: PointPairs, linear: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = pairs.moving_centroid - linear @ pairs.fixed_centroid
    return matrix
