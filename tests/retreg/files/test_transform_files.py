"""ITK transforms in and out, compared with SimpleITK."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from retreg.errors import FileError
from retreg.files import read_transform, write_transform
from retreg.geometry import Grid
from retreg.transforms import Affine, Chain, DisplacementField, ThinPlateSpline

PICTURE = Grid.of_picture(200, 150)


def an_oblique_grid():
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = turn * [1.5, 2, 3]
    matrix[:3, 3] = (-40, 20, 1000)
    return Grid((40, 30, 20), matrix)


def an_affine(planar=False):
    matrix = np.eye(4)
    if planar:
        matrix[:2, :2] = [[0.9, 0.3], [-0.31, 1.1]]
        matrix[:2, 3] = (12.3, -45.6)
    else:
        matrix[:3] += np.random.default_rng(0).normal(size=(3, 4)) * [0.1, 0.1, 0.1, 20]
    return Affine(matrix)


def a_spline(grid, planar=False):
    rng = np.random.default_rng(5)
    fixed = grid.world(rng.uniform(0, 1, (12, 3)) * (np.array(grid.size) - 1))
    shift = rng.normal(size=(12, 3)) * 3
    return ThinPlateSpline(fixed, fixed + shift * ([1, 1, 0] if planar else 1), smoothing=0.1)


def points_of(grid):
    """Random points in the image, and its corners up to the outer voxel edges."""
    sizes = np.array(grid.size)
    low, high = np.where(sizes > 1, -0.5, 0), np.where(sizes > 1, sizes - 0.5, 0)
    rng = np.random.default_rng(9)
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1).T
    inside = rng.uniform(low, high, (300, 3))
    return grid.world(np.concatenate([inside, corners, corners * 0.999999]))


def moved_by_itk(transform, points):
    return np.array([transform.TransformPoint(p.tolist()) for p in points])


@pytest.mark.parametrize("ending", ["h5", "tfm"])
def test_itk_applies_our_affine_as_we_do(tmp_path, ending):
    grid = an_oblique_grid()
    path = tmp_path / f"a.{ending}"
    write_transform(path, an_affine(), grid)
    points = points_of(grid)
    oracle = sitk.ReadTransform(str(path))
    assert oracle.GetDimension() == 3
    np.testing.assert_allclose(moved_by_itk(oracle, points), an_affine()(points), atol=1e-9)
    read = read_transform(path)
    assert isinstance(read, Affine)
    np.testing.assert_allclose(
        read.moving_from_fixed, an_affine().moving_from_fixed, rtol=1e-14, atol=1e-13
    )


def test_itk_applies_our_affine_of_a_picture_as_we_do(tmp_path):
    write_transform(tmp_path / "a.h5", an_affine(planar=True), PICTURE)
    oracle = sitk.ReadTransform(str(tmp_path / "a.h5"))
    for x, y in [(0, 0), (199, 149), (-0.5, 149.5), (31.5, 2.25)]:
        expected = an_affine(planar=True)(np.array([[x, y, 0]]))[0]
        np.testing.assert_allclose(oracle.TransformPoint((x, y, 0)), expected, atol=1e-9)


@pytest.mark.parametrize("ending", ["h5", "nrrd", "nii.gz", "mha"])
@pytest.mark.parametrize("planar", [True, False])
def test_itk_applies_our_spline_as_we_do_up_to_the_edges(tmp_path, planar, ending):
    grid = PICTURE if planar else an_oblique_grid()
    spline = a_spline(grid, planar)
    path = tmp_path / f"a.{ending}"
    write_transform(path, spline, grid)
    points = points_of(grid)
    expected = spline(points)
    assert np.linalg.norm(expected - points, axis=1).max() > 1
    if ending == "h5":
        oracle = sitk.ReadTransform(str(path))
    else:
        oracle = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    tolerance = 0.05 if planar else 0.2  # mm, with voxels of up to 3 mm and kinks at the knots
    for moved in (moved_by_itk(oracle, points), read_transform(path)(points)):
        np.testing.assert_allclose(moved, expected, atol=tolerance)
        assert np.linalg.norm(moved - expected, axis=1).mean() < 0.01
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_picture_is_resampled_by_itk_as_the_transform_says(tmp_path):
    spline = a_spline(PICTURE, planar=True)
    write_transform(tmp_path / "a.h5", spline, PICTURE)
    y, x = np.mgrid[0:150, 0:200].astype(np.float64)
    moving = sitk.GetImageFromArray(np.stack([x, y], axis=2)[None], isVector=True)
    warped = sitk.Resample(moving, moving, sitk.ReadTransform(str(tmp_path / "a.h5")))
    expected = spline(PICTURE.lattice())[:, :2].reshape(150, 200, 2)
    inside = ((expected > 0) & (expected < [199, 149])).all(axis=2)
    assert inside.mean() > 0.8
    error = sitk.GetArrayFromImage(warped)[0] - expected
    assert np.abs(error[inside]).max() < 0.05


def test_a_chain_and_a_field_are_written_as_fields(tmp_path):
    grid = an_oblique_grid()
    field = DisplacementField.sampled(a_spline(grid), grid.coarsened(4))
    chain = Chain((field, an_affine()))
    write_transform(tmp_path / "a.h5", chain, grid)
    points = points_of(grid)
    oracle = sitk.ReadTransform(str(tmp_path / "a.h5"))
    np.testing.assert_allclose(moved_by_itk(oracle, points), chain(points), atol=0.05)


def test_a_field_with_an_affine_after_it_is_stored_exactly_up_to_the_edges(tmp_path):
    grid = an_oblique_grid()
    lattice = grid.coarsened(7)
    vectors = np.random.default_rng(2).normal(0, 1, (3, *lattice.shape))
    chain = Chain((DisplacementField(vectors, lattice), an_affine()))
    write_transform(tmp_path / "t.h5", chain, grid)
    points = points_of(grid)
    moved = moved_by_itk(sitk.ReadTransform(str(tmp_path / "t.h5")), points)
    np.testing.assert_allclose(moved, chain(points), atol=1e-6)


def test_an_affine_before_a_field_does_not_make_a_skew_file(tmp_path):
    grid = an_oblique_grid()
    lattice = grid.coarsened(20)
    vectors = np.random.default_rng(2).normal(0, 1, (3, *lattice.shape))
    chain = Chain((an_affine(), DisplacementField(vectors, lattice)))
    write_transform(tmp_path / "t.h5", chain, grid)
    composite = sitk.CompositeTransform(sitk.ReadTransform(str(tmp_path / "t.h5")))
    stored = sitk.DisplacementFieldTransform(composite.GetNthTransform(0))
    direction = np.array(stored.GetDisplacementField().GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(direction @ direction.T, np.eye(3), atol=1e-9)
    points = points_of(grid)
    error = np.linalg.norm(moved_by_itk(stored, points) - chain(points), axis=1)
    assert error.mean() < 0.02


def linear_kinds():
    centre, turn = (10.0, -20.0, 30.0), (0.3, -0.2, 0.5)
    euler = sitk.Euler3DTransform(centre, *turn, (1.0, 2.0, 3.0))
    versor = sitk.VersorRigid3DTransform((0.1, 0.2, 0.3, 0.9), (4, 5, 6), centre)
    similarity = sitk.Similarity3DTransform(1.2, (1.0, 0.0, 1.0), 0.4, (7, 8, 9), centre)
    skewed = sitk.ScaleSkewVersor3DTransform()
    skewed.SetScale((1.1, 0.9, 1.3))
    skewed.SetSkew((0.1, 0.0, 0.2, 0.0, 0.0, 0.1))
    affine = sitk.AffineTransform([1, 0.1, 0, 0, 0.9, 0.2, 0, 0, 1.1], (1, 2, 3), centre)
    scale, shift = sitk.ScaleTransform(3, (2.0, 3.0, 4.0)), sitk.TranslationTransform(3, (1, 2, 3))
    return [euler, versor, similarity, skewed, affine, scale, shift, sitk.Transform()]


@pytest.mark.parametrize("ending", ["h5", "tfm"])
@pytest.mark.parametrize("kind", linear_kinds(), ids=lambda t: t.GetName())
def test_every_linear_kind_of_itk_is_read(tmp_path, kind, ending):
    sitk.WriteTransform(kind, str(tmp_path / f"a.{ending}"))
    points = points_of(an_oblique_grid())
    read = read_transform(tmp_path / f"a.{ending}")
    np.testing.assert_allclose(read(points), moved_by_itk(kind, points), atol=1e-9)


def test_a_composite_is_applied_in_the_order_of_itk(tmp_path):
    grid = an_oblique_grid()
    write_transform(tmp_path / "field.h5", a_spline(grid), grid)
    turn = sitk.Euler3DTransform(grid.centre.tolist(), 0.1, 0.2, -0.1, (1.0, 1.0, 1.0))
    scale = sitk.ScaleTransform(3, (1.1, 1.2, 0.9))
    scale.SetCenter(grid.centre.tolist())
    composite = sitk.CompositeTransform([sitk.ReadTransform(str(tmp_path / "field.h5")), turn])
    composite.AddTransform(scale)
    composite.FlattenTransform()  # ITK stores no composite within another
    sitk.WriteTransform(composite, str(tmp_path / "a.h5"))
    points = grid.world(np.random.default_rng(2).uniform(5, 15, (50, 3)))
    read = read_transform(tmp_path / "a.h5")
    np.testing.assert_allclose(read(points), moved_by_itk(composite, points), atol=1e-9)


def test_two_dimensional_transforms_become_three_dimensional(tmp_path):
    flat = sitk.Euler2DTransform((50.0, 60.0), 0.3, (4.0, 5.0))
    sitk.WriteTransform(flat, str(tmp_path / "a.tfm"))
    points = np.array([[10.0, 12, 0], [30, -40, 0], [1, 2, 5]])
    moved = read_transform(tmp_path / "a.tfm")(points)
    np.testing.assert_allclose(moved[:, :2], moved_by_itk(flat, points[:, :2]), atol=1e-9)
    np.testing.assert_allclose(moved[:, 2], points[:, 2])
    vectors = np.random.default_rng(0).normal(size=(20, 30, 2))
    field = sitk.DisplacementFieldTransform(sitk.GetImageFromArray(vectors, isVector=True))
    sitk.WriteTransform(field, str(tmp_path / "b.h5"))
    moved = read_transform(tmp_path / "b.h5")(points[:1])
    np.testing.assert_allclose(moved[0, :2], field.TransformPoint((10.0, 12.0)), atol=1e-9)


def test_a_kind_that_itk_does_not_know_is_refused(tmp_path):
    path = tmp_path / "a.tfm"
    sitk.WriteTransform(sitk.ScaleTransform(3, (1, 2, 3)), str(path))
    kind = "BSplineDeformableTransform"  # of ITK before 4.0
    path.write_text(path.read_text().replace("ScaleTransform", kind))
    with pytest.raises(FileError, match=r"a\.tfm"):
        read_transform(path)


def test_an_image_is_not_taken_for_a_transform(tmp_path):
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkInt16), str(tmp_path / "a.nrrd"))
    with pytest.raises(FileError, match="not a displacement field"):
        read_transform(tmp_path / "a.nrrd")
    sitk.WriteImage(sitk.Image(4, 4, sitk.sitkUInt8), str(tmp_path / "a.png"))
    with pytest.raises(FileError, match="was expected"):
        read_transform(tmp_path / "a.png")


@pytest.mark.parametrize("ending", ["h5", "tfm", "nrrd", "nii.gz"])
def test_damaged_transforms_are_refused(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    transform = an_affine() if ending == "tfm" else a_spline(PICTURE, True)
    write_transform(path, transform, PICTURE)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError):
        read_transform(path)
    path.write_bytes(b"")
    with pytest.raises(FileError, match="empty"):
        read_transform(path)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    write_transform(tmp_path / "a.tfm", an_affine(), PICTURE)
    text = (tmp_path / "a.tfm").read_text()
    first = text.split("Parameters: ")[1].split()[0]
    (tmp_path / "a.tfm").write_text(text.replace(first, "nan", 1))
    with pytest.raises(Exception, match=r"a\.tfm") as caught:
        read_transform(tmp_path / "a.tfm")
    assert type(caught.value).__name__ in ("GeometryError", "FileError")


def test_endings_that_cannot_hold_the_transform_are_refused(tmp_path):
    for name, transform in (("a.tfm", a_spline(PICTURE, True)), ("a.doc", an_affine())):
        with pytest.raises(FileError, match="ending"):
            write_transform(tmp_path / name, transform, PICTURE)


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n", b"II*\0", b"some text", b"%PDF-1.4", gzip.compress(b"x" * 99, mtime=0)],
    ids=["PNG", "TIFF", "text", "PDF", "gzip"],
)
def test_what_is_no_transform_is_told_which_ones_there_are(tmp_path, content):
    (tmp_path / "a.dat").write_bytes(content)
    with pytest.raises(FileError, match=r"a\.dat holds no transform; one of ITK or ANTs"):
        read_transform(tmp_path / "a.dat")
