"""Transforms to nodes and back: the points they map, against retreg and SimpleITK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from scene_content import (
    AFFINE,
    FIXED_GRID,
    LARGE_GRID,
    PICTURE_GRID,
    Kind,
    field,
    mapped_from_world,
    points_in,
    read,
    spline,
    transform_kinds,
    write,
)

from retreg import Affine, Chain, ThinPlateSpline, write_transform
from retreg.errors import InputError
from retreg.transforms import Transform

KINDS = transform_kinds()


def errors(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest distance in mm."""
    return float(np.linalg.norm(found - expected, axis=1).max())


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """One kind of transform after the other."""
    return KINDS[request.param]


@pytest.fixture
def node(kind: Kind, scene: Any) -> Any:
    """The node of that kind."""
    from RetRegLib.scene.transform_nodes import transform_node

    return transform_node(kind.transform, "transform", scene, kind.grid)


def test_the_node_is_of_the_right_class(kind: Kind, node: Any) -> None:
    assert node.GetClassName() == kind.node


def test_the_node_maps_points_as_retreg_does(kind: Kind, node: Any) -> None:
    points = points_in(kind.grid, 300, seed=9)
    assert errors(mapped_from_world(node, points), kind.transform(points)) <= kind.within_mm


def test_what_lies_under_the_node_returns_through_the_inverse(kind: Kind, node: Any) -> None:
    import vtk

    points = points_in(kind.grid, 40, seed=9)
    inverse = vtk.vtkGeneralTransform()
    node.GetTransformToWorld(inverse)
    signs = np.array([-1.0, -1, 1])
    moved = mapped_from_world(node, points) * signs
    back = np.array([inverse.TransformPoint(*p) for p in moved]) * signs
    assert errors(back, points) <= 5e-3


def test_the_transform_comes_back_from_its_node(kind: Kind, node: Any) -> None:
    from RetRegLib.scene.transform_nodes import transform_of

    points = points_in(kind.grid, 100, seed=9)
    assert errors(transform_of(node)(points), kind.transform(points)) <= kind.within_mm


@pytest.mark.parametrize("ending", ["h5", "tfm"])
def test_slicer_saves_and_loads_the_same_transform(
    kind: Kind, node: Any, scene: Any, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"transform.{ending}"
    write(node, path)
    again = read(scene, kind.node, path)
    points = points_in(kind.grid, 100, seed=9)
    # Slicer interpolates the grids that it loads cubically, and is nearer to smooth transforms.
    within = max(kind.within_mm, 0.05) if "Grid" in kind.node else kind.within_mm
    assert errors(mapped_from_world(again, points), kind.transform(points)) <= within
    assert b"Inverse" not in path.read_bytes()


@pytest.mark.parametrize("ending", ["h5", "tfm"])
@pytest.mark.parametrize("name", ["affine", "many points", "plane kernel", "field", "chain"])
def test_simpleitk_reads_what_slicer_saved(
    scene: Any, tmp_path: Path, name: str, ending: str
) -> None:
    # ITK's Python has no reader for splines; transform.h5 of retreg is for that.
    from RetRegLib.scene.transform_nodes import transform_node

    kind = KINDS[name]
    path = tmp_path / f"transform.{ending}"
    write(transform_node(kind.transform, "transform", scene, kind.grid), path)
    found = sitk.ReadTransform(str(path))
    points = points_in(kind.grid, 100, seed=9)
    moved = np.array([found.TransformPoint(p.tolist()) for p in points])
    assert errors(moved, kind.transform(points)) <= max(kind.within_mm, 1e-6)


def test_node_retreg_and_simpleitk_from_transform_h5_agree(
    kind: Kind, node: Any, scene: Any, tmp_path: Path
) -> None:
    path = tmp_path / "transform.h5"
    write_transform(path, kind.transform, kind.grid)
    stored = sitk.ReadTransform(str(path))
    loaded = read(scene, kind.node, path)
    points = points_in(kind.grid, 100, seed=9)
    by_itk = np.array([stored.TransformPoint(p.tolist()) for p in points])
    by_retreg = kind.transform(points)
    linear = isinstance(kind.transform, Affine)
    assert errors(by_itk, by_retreg) <= (1e-6 if linear else 0.05)
    assert errors(mapped_from_world(node, points), by_retreg) <= kind.within_mm
    assert errors(mapped_from_world(loaded, points), by_retreg) <= (1e-6 if linear else 0.05)


def test_an_affine_with_a_centre_from_simpleitk_is_read(scene: Any, tmp_path: Path) -> None:
    from RetRegLib.scene.transform_nodes import transform_of

    stored = sitk.AffineTransform(3)
    stored.SetMatrix(AFFINE[:3, :3].ravel().tolist())
    stored.SetTranslation([4.0, -3, 2])
    stored.SetCenter([30.0, 20, -10])
    sitk.WriteTransform(stored, str(tmp_path / "centre.tfm"))
    found = transform_of(read(scene, "vtkMRMLLinearTransformNode", tmp_path / "centre.tfm"))
    points = points_in(FIXED_GRID, 50)
    expected = np.array([stored.TransformPoint(p.tolist()) for p in points])
    assert errors(found(points), expected) <= 1e-6


@pytest.mark.parametrize("other", ["affine", "spline", "many points"])
def test_a_node_takes_every_other_kind_and_saves_it(
    kind: Kind, node: Any, scene: Any, tmp_path: Path, other: str
) -> None:
    from RetRegLib.scene.transform_nodes import update_transform_node

    new = KINDS[other]
    update_transform_node(node, new.transform, new.grid)
    assert node.GetClassName() == kind.node
    assert bool(node.IsLinear()) == (other == "affine")
    points = points_in(new.grid, 50, seed=9)
    assert errors(mapped_from_world(node, points), new.transform(points)) <= new.within_mm
    write(node, tmp_path / "transform.h5")
    again = read(scene, kind.node, tmp_path / "transform.h5")
    assert errors(mapped_from_world(again, points), new.transform(points)) <= max(
        new.within_mm, 1e-6
    )


def test_a_spline_in_a_plane_is_right_beside_it_too(scene: Any) -> None:
    from RetRegLib.scene.transform_nodes import transform_node

    transform = KINDS["spline of a slice"].transform
    node = transform_node(transform, "transform", scene)
    beside = points_in(KINDS["spline of a slice"].grid, 50) + 7.0
    assert errors(mapped_from_world(node, beside), transform(beside)) <= 1e-6


def test_coincident_points_with_smoothing_are_no_obstacle(scene: Any) -> None:
    from RetRegLib.scene.transform_nodes import transform_node

    fixed = points_in(FIXED_GRID, 20)
    fixed[1] = fixed[0]
    moving = fixed + np.random.default_rng(0).normal(0, 0.5, fixed.shape)
    transform = ThinPlateSpline(fixed, moving, smoothing=0.5)
    node = transform_node(transform, "transform", scene)
    points = points_in(FIXED_GRID, 50, seed=1)
    assert errors(mapped_from_world(node, points), transform(points)) <= 1e-6


@pytest.mark.parametrize(
    "transform",
    [spline(150, noise=0.1, smoothing=0.2), Chain((Affine(AFFINE), field()))],
    ids=["spline", "chain"],
)
def test_without_a_grid_the_transform_is_sampled_where_it_is_known(
    scene: Any, transform: Transform
) -> None:
    from RetRegLib.scene.transform_nodes import transform_node

    node = transform_node(transform, "transform", scene)
    points = points_in(FIXED_GRID, 100, seed=9)
    assert errors(mapped_from_world(node, points), transform(points)) <= 0.1


def test_a_sampled_spline_reaches_beyond_the_image(scene: Any) -> None:
    from RetRegLib.scene.transform_nodes import transform_node

    transform = KINDS["many points"].transform
    node = transform_node(transform, "transform", scene, LARGE_GRID)
    beyond = LARGE_GRID.world(np.array([[-6.5, 10, 10], [20, 84.4, 10], [20, 10, 74.0]]))
    assert errors(mapped_from_world(node, beyond), transform(beyond)) <= 0.05


def test_a_sketch_is_nearly_right_and_far_quicker_to_use(scene: Any) -> None:
    from RetRegLib.scene.transform_nodes import sketch_transform_node, transform_node

    for name in ("many points", "spline", "spline of a picture", "affine"):
        kind = KINDS[name]
        node = transform_node(Affine(np.eye(4)), "transform", scene)
        sketch_transform_node(node, kind.transform, kind.grid)
        points = points_in(kind.grid, 200, seed=9)
        assert errors(mapped_from_world(node, points), kind.transform(points)) <= 0.3, name


def test_foreign_kinds_are_refused(scene: Any) -> None:
    import vtk

    from RetRegLib.scene.transform_nodes import transform_node, transform_of

    node = transform_node(spline(20, PICTURE_GRID), "their warp", scene)
    inverse = node.GetTransformFromParent()
    node.SetAndObserveTransformToParent(inverse)
    with pytest.raises(InputError, match="their warp is of a kind"):
        transform_of(node)
    other = vtk.vtkThinPlateSplineTransform()
    other.DeepCopy(inverse)
    other.SetBasisToR2LogR()
    node.SetAndObserveTransformFromParent(other)
    with pytest.raises(InputError, match="their warp is of a kind"):
        transform_of(node)
