"""SIFT with a RANSAC homography, as the literature compares with: a baseline for pictures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from retreg.errors import InputError, RegistrationError
from retreg.image import Image
from retreg_server.evaluation.known_truth import foreground

WORKING_PIXELS = 1000
BORDER = 0.02
CLAHE_CLIP = 2.0
CLAHE_TILES = (8, 8)
RATIO = 0.8
RANSAC_PIXELS = 5.0


@dataclass(frozen=True, eq=False)
class Homography:
    """A projective transform of the plane z = 0, with a (3, 3) matrix in pixels."""

    moving_from_fixed: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        homogeneous = np.column_stack([points[:, :2], np.ones(len(points))])
        mapped = homogeneous @ self.moving_from_fixed.T
        return np.column_stack([mapped[:, :2] / mapped[:, 2:], points[:, 2]])


def sift_homography(fixed: Image, moving: Image) -> Homography:
    """Features by Lowe (2004) with his ratio test; raises RegistrationError without four matches.

    The usual preparation for fundus pictures: green channel, contrast-limited histogram
    equalisation, the border of the field of view left out, at most 1000 pixels.
    """
    if not (fixed.is_picture and moving.is_picture):
        raise InputError("sift-homography registers pictures; a volume was given.")
    fixed_at, fixed_features = _features(fixed)
    moving_at, moving_features = _features(moving)
    if min(len(fixed_at), len(moving_at)) < 2:
        raise RegistrationError("SIFT found no features in one of the pictures.")
    nearest = cv2.BFMatcher().knnMatch(fixed_features, moving_features, k=2)
    good = [first for first, second in nearest if first.distance < RATIO * second.distance]
    if len(good) < 4:
        raise RegistrationError(f"SIFT found {len(good)} matches; a homography needs four.")
    pairs = fixed_at[[m.queryIdx for m in good]], moving_at[[m.trainIdx for m in good]]
    matrix, _ = cv2.findHomography(*pairs, cv2.RANSAC, RANSAC_PIXELS)
    if matrix is None:
        raise RegistrationError("RANSAC found no homography for the SIFT matches.")
    return Homography(matrix)


def _features(picture: Image) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, 2) in pixels of the picture, and descriptors (n, 128)."""
    channel = picture.array[1 if picture.array.shape[0] >= 3 else 0, 0]
    green = np.clip(np.rint(channel.astype(np.float32)), 0, 255).astype(np.uint8)
    margin = 2 * int(BORDER * max(green.shape)) + 1
    mask = foreground(picture)[0].astype(np.uint8)
    mask = cv2.erode(mask, np.ones((margin, margin), np.uint8))
    scale = min(1.0, WORKING_PIXELS / max(green.shape))
    if scale < 1:
        green = cv2.resize(green, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, green.shape[::-1], interpolation=cv2.INTER_NEAREST)
    equalised = cv2.createCLAHE(CLAHE_CLIP, CLAHE_TILES).apply(green)
    keypoints, descriptors = cv2.SIFT.create().detectAndCompute(equalised, mask)
    positions = np.array([keypoint.pt for keypoint in keypoints]).reshape(-1, 2)
    return (positions + 0.5) / scale - 0.5, descriptors
