"""From what a network says of the cells of a picture to points and their descriptors, in NumPy."""

from __future__ import annotations

import cv2
import numpy as np

CELL = 8
APART = 3  # pixels within which the strongest point stays
WINDOW = 2  # pixels around a point whose probabilities give its place


def point_map(cells: np.ndarray) -> np.ndarray:
    """How likely each pixel (8 h, 8 w) is a point, from logits (65, h, w)."""
    rows, columns = cells.shape[1:]
    raised = np.exp(cells - cells.max(axis=0))
    shares = raised[:-1] / raised.sum(axis=0)
    square = shares.reshape(CELL, CELL, rows, columns).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(square.reshape(CELL * rows, CELL * columns), dtype=np.float32)


def strongest_points(
    likely: np.ndarray, valid: np.ndarray, at_most: int, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points x, y (n, 2) in pixels, to a part of a pixel, and their strengths, strongest first.

    likely: (h, w) from 0 to 1. valid: (h, w) bool, where points are wanted.
    """
    near = np.ones((2 * APART + 1, 2 * APART + 1), np.uint8)
    peaks = (likely >= cv2.dilate(likely, near)) & valid & (likely > least)
    y, x = np.nonzero(peaks)
    order = np.argsort(-likely[y, x], kind="stable")[:at_most]
    y, x = y[order], x[order]
    reach = np.arange(-WINDOW, WINDOW + 1)
    padded = np.pad(likely, WINDOW)
    around = padded[
        y[:, None, None] + reach[:, None] + WINDOW, x[:, None, None] + reach[None] + WINDOW
    ]
    mass = np.maximum(around.sum(axis=(1, 2)), 1e-9)
    offset = np.stack([around.sum(axis=1) @ reach, around.sum(axis=2) @ reach], axis=1)
    return np.stack([x, y], axis=1) + offset / mass[:, None], likely[y, x]


def descriptors_at(described: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Unit descriptors (n, d) float32, from a map (d, h, w) of cells, at pixels x, y (n, 2)."""
    places = ((points + 0.5) / CELL - 0.5).astype(np.float32)
    height, width = described.shape[1:]
    low = np.floor(places)
    part = places - low
    found = np.zeros((len(points), len(described)), np.float32)
    for down in (0, 1):
        for right in (0, 1):
            x = np.clip(low[:, 0] + right, 0, width - 1).astype(int)
            y = np.clip(low[:, 1] + down, 0, height - 1).astype(int)
            weight = np.abs(1 - right - part[:, 0]) * np.abs(1 - down - part[:, 1])
            found += weight[:, None] * described[:, y, x].T
    unit: np.ndarray = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
    return unit
