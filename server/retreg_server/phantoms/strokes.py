"""Drawing of round-ended strokes without stair-steps."""

from __future__ import annotations

import numpy as np


def draw_segments(
    starts: np.ndarray, ends: np.ndarray, radii: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw round-ended segments into a picture of the given shape (h, w).

    starts, ends: (n, 2) pixels (x, y); radii: (n,) pixels. Returns the coverage (h, w), from 0 to
    1 with soft edges, and the thickness (h, w): the chord through the round vessel, in pixels.
    """
    margin = 64
    coverage = np.zeros((shape[0] + 2 * margin, shape[1] + 2 * margin), dtype=np.float32)
    thickness = np.zeros_like(coverage)
    middle = (starts + ends) / 2
    reach = np.ceil(np.linalg.norm(ends - starts, axis=1) / 2 + radii + 1.5).astype(int)
    limit = np.array([shape[1], shape[0]])
    near = ((middle > -reach[:, None]) & (middle < limit + reach[:, None])).all(axis=1)
    for half in np.unique(reach[near & (reach < margin)]):
        chosen = near & (reach == half)
        offset = np.arange(-half, half + 1)
        corner = np.rint(middle[chosen]).astype(int)
        x = corner[:, 0, None, None] + offset[None, None, :]
        y = corner[:, 1, None, None] + offset[None, :, None]
        distance = _distance_to_segments(x, y, starts[chosen], ends[chosen])
        radius = radii[chosen][:, None, None]
        cover = np.clip(radius - distance + 0.5, 0, 1) * np.minimum(1, 2 * radius)
        chord = 2 * np.sqrt(np.clip((radius + 0.5) ** 2 - distance**2, 0, None))
        at = (np.broadcast_to(y, cover.shape) + margin, np.broadcast_to(x, cover.shape) + margin)
        np.maximum.at(coverage, at, cover.astype(np.float32))
        np.maximum.at(thickness, at, (cover * chord).astype(np.float32))
    inner = (slice(margin, -margin), slice(margin, -margin))
    return coverage[inner], thickness[inner]


def _distance_to_segments(
    x: np.ndarray, y: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """Distance (n, h, w) of pixels x (n, 1, w), y (n, h, 1) to segments (n, 2)."""
    along = (ends - starts)[:, :, None, None]
    dx, dy = x - starts[:, 0, None, None], y - starts[:, 1, None, None]
    square = np.maximum((along**2).sum(axis=1), 1e-9)
    share = np.clip((dx * along[:, 0] + dy * along[:, 1]) / square, 0, 1)
    return np.asarray(np.hypot(dx - share * along[:, 0], dy - share * along[:, 1]))
