"""What the tests of DICOM objects share: headers, directions of slices, transforms, results."""

from __future__ import annotations

import numpy as np

from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Affine, ThinPlateSpline

MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
OP, OP_16 = (f"1.2.840.10008.5.1.4.1.1.77.1.5.{n}" for n in (1, 2))
CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY = {
    "PatientName": "Secret^Patient", "PatientID": "P-1", "PatientBirthDate": "19700101",
    "PatientSex": "F", "StudyDate": "20260101", "StudyTime": "120000", "StudyID": "S-7",
    "AccessionNumber": "A-9", "ReferringPhysicianName": "Secret^Doctor",
    "OperatorsName": "Secret^Operator", "PatientComments": "secret comment",
    "InstitutionName": "Secret Clinic", "ProtocolName": "secret protocol",
    "ImageComments": "secret remark", "StationName": "SECRET",
}  # fmt: skip
AXIAL = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
SAGITTAL = ([0.0, 1.0, 0.0], [0.0, 0.0, -1.0])
CORONAL = ([1.0, 0.0, 0.0], [0.0, 0.0, -1.0])


def oblique():
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    return turn[:, 0].tolist(), turn[:, 1].tolist()


OBLIQUE = oblique()


def a_spline(grid, amount=1.5):
    """A smooth bending around the image on grid, by so many mm at most along each axis."""
    corners = grid.corners()
    low, extent = corners.min(axis=0), np.ptp(corners, axis=0)
    points = np.random.default_rng(5).uniform(low, low + extent, (24, 3))
    if grid.is_plane:
        points[:, 2] = 0
    moved = points + amount * np.sin(3 * (points[:, [1, 2, 0]] - low) / extent)
    if grid.is_plane:
        moved[:, 2] = 0
    return ThinPlateSpline(points, moved)


def a_result(transform, grid, verdict="accept", count=6):
    """The answer of a model: keypoints inside grid, and a verdict."""
    rng = np.random.default_rng(1)
    points = grid.world(rng.uniform(0, np.array(grid.size) - 1, (count, 3)))
    weights, inliers = rng.uniform(0.1, 1, count), np.arange(count) != 2
    fixed, moving = (Keypoints(p, weights, inliers) for p in (points, transform(points)))
    quality = Quality({"agreement": 0.9, "overlap": 0.97}, verdict, "It is made up.")
    made = {"model": "auto-brain", "options": {"transform": "affine"}}
    return RegistrationResult(transform, fixed, moving, quality, made)


def an_affine():
    """Turned, sheared, scaled and shifted."""
    matrix = np.eye(4)
    matrix[:3, :3] = [[0.95, -0.31, 0.02], [0.3, 0.97, 0.05], [-0.04, 0.01, 1.1]]
    matrix[:3, 3] = [3.25, -7.5, 1.0 / 3.0]
    return Affine(matrix)


def a_rigid(scale=1.0):
    """A turn about an oblique axis, a scale and a shift."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(0.3) * cross + (1 - np.cos(0.3)) * cross @ cross
    matrix[:3, :3] *= scale
    matrix[:3, 3] = [4.0, -2.0, 1.5]
    return Affine(matrix)


def in_plane(angle=0.2, shift=(2.0, -1.5)):
    """A turn and a shift of pictures."""
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:2, 3] = shift
    return Affine(matrix)
