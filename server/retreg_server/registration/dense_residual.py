"""The local deformation that is left after a global transform, from optical flow on vessels.

Flow is computed in both directions (DIS, Kroeger et al. 2016). Where the two agree and both maps
show vessels it is believed; in between it is filled by normalised convolution (Knutsson and Westin
1993) at two widths, with weights that fall for outliers.
"""

from __future__ import annotations

import cv2
import numpy as np

from retreg_server.registration.parametric_refinement import Level, QuadraticMap, sampled

SHRINK = 4  # full-size pixels per node of the residual
WIDTHS = (0.06, 0.025)  # standard deviations of the smoothing over the longer side
DOUBT = 0.01  # weight of "no displacement" against the mean weight of a window
TOLERANCE = 1.5  # pixels between two flows that count as equal
ROUNDS = 3
SMALLEST_JACOBIAN = 0.3
BEND_STEP = 8


def warped(moving: Level, mapped: QuadraticMap, shape: tuple[int, int]) -> tuple[
    np.ndarray, np.ndarray
]:
    """A full-size moving map brought to the fixed frame (h, w), and where it is valid."""
    height, width = shape
    matrix = mapped.affine
    small = np.stack(np.meshgrid(np.arange(0, width, BEND_STEP), np.arange(0, height, BEND_STEP)))
    nodes = small.reshape(2, -1).T + (BEND_STEP - 1) / 2
    bend = mapped.bend(nodes).reshape(*small.shape[1:], 2).astype(np.float32)
    size = bend.shape[1] * BEND_STEP, bend.shape[0] * BEND_STEP
    bend = cv2.resize(bend, size, interpolation=cv2.INTER_LINEAR)[:height, :width]
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    columns, rows = (
        (matrix[a, 0] * x + matrix[a, 1] * y + matrix[a, 2] + bend[..., a]).astype(np.float32)
        for a in range(2)
    )
    values = np.ascontiguousarray(moving.samples[..., 0])
    image = cv2.remap(values, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    shown = cv2.remap(moving.valid.astype(np.uint8), columns, rows, cv2.INTER_NEAREST)
    return image * shown, shown > 0


def dense_residual(fixed: Level, moving: Level, mapped: QuadraticMap) -> Level:
    """A level whose samples (h, w, 2) are displacements d in pixels: x goes to mapped(x + d(x))."""
    shape = fixed.valid.shape
    other, shown = warped(moving, mapped, (shape[0], shape[1]))
    here = fixed.samples[..., 0]
    first, second = (np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8) for x in (here, other))
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    there, back = flow.calc(first, second, None), flow.calc(second, first, None)
    x, y = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape[::-1]))
    returned = cv2.remap(back, x + there[..., 0], y + there[..., 1], cv2.INTER_LINEAR)
    mismatch = np.square((there + returned) / TOLERANCE).sum(axis=2)
    weight = np.sqrt(np.clip(here * other, 0, 1)) * np.exp(-mismatch) * (fixed.valid & shown)
    size = max(4, shape[1] // SHRINK), max(4, shape[0] // SHRINK)
    weighted = cv2.resize(there * weight[..., None], size, interpolation=cv2.INTER_AREA)
    weight = cv2.resize(weight.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    smooth = _smooth(weighted / np.maximum(weight, 1e-6)[..., None], weight)
    return Level(_unfolded(smooth), np.ones(smooth.shape[:2], bool), SHRINK)


def displaced(residual: Level, points: np.ndarray) -> np.ndarray:
    """points (n, 2) in full-size pixels plus the residual there."""
    moved: np.ndarray = points + sampled(residual, points)[0]
    return moved


def _smooth(flow: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The smooth field (h, w, 2) that the flow (h, w, 2) supports under its weights (h, w)."""
    robust = weight
    smooth = np.zeros_like(flow)
    for _ in range(ROUNDS):
        smooth = np.zeros_like(flow)
        for width in WIDTHS:
            sigma = width * max(weight.shape)
            total = cv2.GaussianBlur(robust, (0, 0), sigma) + DOUBT
            sums = cv2.GaussianBlur((flow - smooth) * robust[..., None], (0, 0), sigma)
            smooth = smooth + sums / total[..., None]
        surprise = np.square((flow - smooth) / TOLERANCE).sum(axis=2)
        robust = weight / (1 + surprise)
    return smooth


def _unfolded(field: np.ndarray) -> np.ndarray:
    """The field weakened as a whole until it neither folds nor squeezes too much."""
    down, across = np.gradient(field, SHRINK, axis=(0, 1))
    for strength in (1.0, 0.8, 0.6, 0.4, 0.2):
        jacobian = (1 + strength * across[..., 0]) * (1 + strength * down[..., 1]) - (
            strength**2 * across[..., 1] * down[..., 0]
        )
        if jacobian.min() > SMALLEST_JACOBIAN:
            return strength * field
    return np.zeros_like(field)
