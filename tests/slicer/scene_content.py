"""Images, transforms and results to put into a scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from retreg import Affine, Chain, DisplacementField, Grid, Image, Keypoints, ThinPlateSpline
from retreg.messages import RegistrationResult
from retreg.quality import Quality
from retreg.transforms import Transform

QUALITY = Quality({"agreement": 0.5, "folding": 0.0}, "accept", "Half of the image fits.")
PROVENANCE = {
    "model": "some-model",
    "weights_sha256": "ab12",
    "version": "9.9",
    "options": {"transform": "tps", "smoothing": 0.1},
    "seconds": {"network": 0.25},
}


def turned(seed: int, mirrored: bool = False) -> np.ndarray:
    """A random rotation (3, 3), or a rotation and a reflection."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    if (np.linalg.det(q) < 0) != mirrored:
        q[:, 0] *= -1
    return q


def placed(direction: np.ndarray, spacing: Any, origin: Any) -> np.ndarray:
    """world_from_index of a direction (3, 3), spacings and an origin in LPS mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = direction * np.asarray(spacing)
    matrix[:3, 3] = origin
    return matrix


def around(centre: Any, size: tuple[int, int, int], direction: np.ndarray, spacing: Any) -> Grid:
    """A grid with its centre at a place."""
    start = Grid(size, placed(direction, spacing, (0, 0, 0))).centre
    return Grid(size, placed(direction, spacing, centre - start))


GRIDS = {
    "axis-aligned": Grid((11, 9, 7), placed(np.eye(3), (1, 1, 1), (-5, 4, 3))),
    "anisotropic": Grid((11, 9, 7), placed(np.eye(3), (0.4, 1.3, 5.5), (10, -20, 30))),
    "flipped": Grid((11, 9, 7), placed(np.diag([-1.0, -1, 1]), (0.9, 0.9, 2), (50, 60, -70))),
    "oblique": Grid((11, 9, 7), placed(turned(1), (0.7, 1.1, 3.0), (-31.5, 22.25, 8))),
    "left-handed": Grid((11, 9, 7), placed(turned(2, True), (1.2, 0.8, 2.5), (3, 5, -8))),
    "one slice": Grid((11, 9, 1), placed(np.eye(3), (1, 1, 1), (0, 0, 0))),
    "oblique slice": Grid((11, 9, 1), placed(turned(3), (0.5, 0.6, 4), (12, -3, 40))),
}


def image_on(grid: Grid, channels: int = 1, kind: str = "int16", seed: int = 0) -> Image:
    """Noise of a type on a grid."""
    values = np.random.default_rng(seed).integers(0, 200, (channels, *grid.shape))
    return Image(values.astype(kind), grid)


def smooth_image(grid: Grid, channels: int = 1, kind: str = "int16") -> Image:
    """Waves that any interpolation gets nearly right."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    waves = [
        100 + 90 * np.sin(i / (5 + c)) * np.cos(j / 7 + c) * np.cos(k / 6) for c in range(channels)
    ]
    return Image(np.rint(waves).astype(kind), grid)


def assert_alike_but_for_rounding(found: np.ndarray, expected: np.ndarray) -> None:
    """Rounded values that were computed in two ways: one processor sums in another order than the
    next, so that a few values that end in .5 are rounded to the neighbouring grey level."""
    assert found.dtype == expected.dtype
    difference = np.abs(found.astype(float) - expected)
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 1e-4 * difference.size + 1


FIXED_GRID = Grid((34, 32, 30), placed(np.eye(3), (1.0, 1.2, 1.4), (-16, -18, -20)))
MOVING_GRID = around(FIXED_GRID.centre, (30, 36, 28), turned(4), (1.2, 1.1, 1.3))
LARGE_GRID = Grid((90, 80, 70), placed(turned(6), (1.2, 1.3, 1.4), (-50, -60, -45)))
PICTURE_GRID = Grid.of_picture(64, 48)

AFFINE = np.array(
    [[1.05, 0.1, -0.03, 5], [-0.08, 0.97, 0.06, -4], [0.02, -0.05, 1.02, 3], [0, 0, 0, 1.0]]
)


def points_in(grid: Grid, count: int, seed: int = 0) -> np.ndarray:
    """Random world points (n, 3) inside a grid."""
    index = np.random.default_rng(seed).uniform(0.05, 0.95, (count, 3)) * (np.array(grid.size) - 1)
    return grid.world(index)


def spline(count: int, grid: Grid = FIXED_GRID, noise: float = 0.8, **how: Any) -> ThinPlateSpline:
    """A gentle spline through random points of a grid; within the plane of a picture."""
    fixed = points_in(grid, count, seed=count)
    shift = np.random.default_rng(count + 1).normal(0, noise, fixed.shape)
    if grid.is_plane:
        shift -= np.outer(shift @ grid.direction[:, 2], grid.direction[:, 2])
    return ThinPlateSpline(fixed, fixed + 0.05 * (fixed - grid.centre) + shift, **how)


def field(grid: Grid = FIXED_GRID) -> DisplacementField:
    """A smooth displacement field on a coarse oblique lattice around a grid."""
    lattice = Grid((8, 9, 7), placed(turned(5), (12, 11, 13), (0, 0, 0)))
    shift = np.eye(4)
    shift[:3, 3] = grid.centre - lattice.centre
    lattice = Grid(lattice.size, shift @ lattice.world_from_index)
    x = lattice.lattice()
    vectors = np.stack([np.sin(x[:, 1] / 25), np.cos(x[:, 2] / 30), 0.5 * np.sin(x[:, 0] / 20)])
    return DisplacementField(vectors.reshape(3, *lattice.shape), lattice)


@dataclass(frozen=True, eq=False)
class Kind:
    """A transform, the class of its node, and how exactly the node holds it."""

    transform: Transform
    node: str
    within_mm: float
    grid: Grid = FIXED_GRID


def transform_kinds() -> dict[str, Kind]:
    """One of every kind that a model returns."""
    weights = np.random.default_rng(1).uniform(0.1, 1, 30)
    linear, native = "vtkMRMLLinearTransformNode", "vtkMRMLTransformNode"
    sampled = "vtkMRMLGridTransformNode"
    slice_grid = Grid((60, 50, 1), GRIDS["oblique slice"].world_from_index)
    return {
        "affine": Kind(Affine(AFFINE), linear, 1e-6),
        "spline": Kind(spline(30), native, 1e-6),
        "smoothing spline": Kind(spline(30, smoothing=0.2, weights=weights), native, 1e-6),
        "spline of a picture": Kind(spline(20, PICTURE_GRID, 0.3), native, 1e-6, PICTURE_GRID),
        "spline of a slice": Kind(spline(20, slice_grid, 0.3), native, 1e-6, slice_grid),
        "three points": Kind(spline(3, PICTURE_GRID), native, 1e-6, PICTURE_GRID),
        "many points": Kind(spline(150, LARGE_GRID, 0.3, smoothing=0.1), sampled, 0.05, LARGE_GRID),
        "plane kernel": Kind(spline(20, noise=0.3, kernel="r2logr"), sampled, 0.05),
        "field": Kind(field(), sampled, 1e-3),
        "chain": Kind(Chain((Affine(AFFINE), field())), sampled, 0.05),
    }


def result_of(
    transform: Transform,
    fixed_points: np.ndarray,
    moving_points: np.ndarray | None = None,
    outliers: int = 2,
) -> RegistrationResult:
    """A result with keypoints, the first of which are outliers."""
    count = len(fixed_points)
    moving = transform(fixed_points) if moving_points is None else moving_points
    weights = np.random.default_rng(3).uniform(0.2, 1, count)
    inliers = np.arange(count) >= outliers
    return RegistrationResult(
        transform,
        Keypoints(fixed_points, weights, inliers),
        Keypoints(moving, weights, inliers),
        QUALITY,
        dict(PROVENANCE),
    )


def add_parent(scene: Any, node: Any, lps_matrix: np.ndarray, name: str = "parent") -> Any:
    """Put a node, and what is above it, under a new linear transform (node to world, LPS)."""
    import vtk

    flip = np.diag([-1.0, -1, 1, 1])
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy((flip @ lps_matrix @ flip).ravel().tolist())
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    parent.SetMatrixTransformToParent(matrix)
    top = node
    while top.GetParentTransformNode() is not None:
        top = top.GetParentTransformNode()
    top.SetAndObserveTransformNodeID(parent.GetID())
    return parent


def mapped_from_world(node: Any, points: np.ndarray) -> np.ndarray:
    """Where VTK takes LPS world points (n, 3) in the coordinates below a transform node."""
    import vtk

    general = vtk.vtkGeneralTransform()
    node.GetTransformFromWorld(general)
    signs = np.array([-1.0, -1, 1])
    return np.array([general.TransformPoint(*(p * signs)) for p in points]) * signs


def write(node: Any, path: Any) -> None:
    """With Slicer's own storage node, which the node does not keep."""
    storage = node.CreateDefaultStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(node)


def read(scene: Any, kind: str, path: Any) -> Any:
    """A new node of a class, read by Slicer's own storage node."""
    node = scene.AddNewNodeByClass(kind)
    storage = node.CreateDefaultStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return node


def node_ids(scene: Any) -> set[str]:
    """Of all nodes in a scene."""
    return {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}
