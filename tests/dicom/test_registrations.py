"""Registrations as files and back: the same points, in the direction of the standard."""

from __future__ import annotations

import shutil
import subprocess
from copy import deepcopy

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from made_up_dicom import (
    AXIAL,
    CORONAL,
    OBLIQUE,
    SAGITTAL,
    a_result,
    a_rigid,
    a_spline,
    an_affine,
    in_plane,
)
from pydicom.dataset import Dataset

from retreg.dicom.derived import Words, derived_series
from retreg.dicom.fiducials import fiducials_object
from retreg.dicom.new_object import decimal, save
from retreg.dicom.registration import Pair, axis_aligned, registration_object
from retreg.dicom.validate import validate
from retreg.errors import FileError
from retreg.files import read_image, read_transform, write_transform
from retreg.files.dicom_fiducials import in_common, read_fiducials
from retreg.files.dicom_registration import ImageSet, read_registration, registration_of
from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine, Chain, DisplacementField

AFFINES = {
    "rigid": (a_rigid(), "RIGID"),
    "similarity": (a_rigid(1.1), "RIGID_SCALE"),
    "affine": (an_affine(), "AFFINE"),
    "mirror": (Affine(np.diag([-1.0, 1, 1, 1])), "AFFINE"),
    "identity": (Affine.identity(), "RIGID"),
    "chain": (Chain((a_rigid(), an_affine())), "AFFINE"),
    "small": (Affine(np.diag([1e-3, 1e-3, 2e-3, 1])), "AFFINE"),
}
DIRECTIONS = {"axial": AXIAL, "sagittal": SAGITTAL, "coronal": CORONAL, "oblique": OBLIQUE}


def places(grid, count=200):
    """Points all over an image, up to the outer edges of its voxels."""
    index = np.random.default_rng(0).uniform(-0.5, np.array(grid.size) - 0.5, (count, 3))
    if grid.is_plane:
        index[:, 2] = 0
    return grid.world(index)


def stored(data, tmp_path):
    save(data, tmp_path / "object.dcm")
    return tmp_path / "object.dcm"


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("direction", ["axial", "oblique"])
def test_an_affine_comes_back_as_it_was(a_scan, pair_of, tmp_path, name, direction):
    transform, _ = AFFINES[name]
    pair = pair_of(a_scan("fixed", DIRECTIONS[direction]), a_scan("moving", SAGITTAL))
    found = read_registration(stored(registration_object(pair, transform), tmp_path))
    points = places(pair.grid)
    np.testing.assert_allclose(found.transform(points), transform(points), atol=1e-6)
    assert found.fixed == pair.fixed.images
    assert found.moving == pair.moving.images


@pytest.mark.parametrize("name", [name for name in AFFINES if name != "small"])
def test_a_matrix_goes_from_moving_to_fixed_and_says_what_it_is(a_scan, pair_of, name):
    transform, kind = AFFINES[name]
    pair = pair_of(a_scan("fixed"), a_scan("moving"))
    items = registration_object(pair, transform).RegistrationSequence
    step = items[1].MatrixRegistrationSequence[0].MatrixSequence[0]
    matrix = np.array(step.FrameOfReferenceTransformationMatrix, float).reshape(4, 4)
    moving = transform(places(pair.grid))
    back = moving @ matrix[:3, :3].T + matrix[:3, 3]
    np.testing.assert_allclose(back, places(pair.grid), atol=1e-6)
    assert step.FrameOfReferenceTransformationMatrixType == kind
    still = items[0].MatrixRegistrationSequence[0].MatrixSequence[0]
    np.testing.assert_array_equal(
        np.array(still.FrameOfReferenceTransformationMatrix, float).reshape(4, 4), np.eye(4)
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", ["spline", "field", "field and affines"])
def test_a_deformation_comes_back_within_a_hundredth_of_a_millimetre(
    a_scan, pair_of, tmp_path, direction, kind
):
    pair = pair_of(a_scan("fixed", DIRECTIONS[direction], (9, 20, 24)), a_scan("moving"))
    transform = a_spline(pair.grid, 0.5)
    if kind != "spline":
        transform = DisplacementField.sampled(transform, pair.grid.coarsened(4))
    if kind == "field and affines":
        transform = Chain((Affine(np.diag([1.01, 1.02, 0.98, 1])), transform, a_rigid()))
    found = read_registration(stored(registration_object(pair, transform), tmp_path))
    points = places(pair.grid, 2000)
    error = np.linalg.norm(found.transform(points) - transform(points), axis=1)
    assert np.linalg.norm(transform(points) - points, axis=1).max() > 0.5
    assert error.max() < 0.01
    assert found.fixed == pair.fixed.images
    assert found.moving == pair.moving.images


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, -1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_a_field_along_the_axes_stays_exactly_the_field_that_it_is(signs, order):
    matrix = np.zeros((4, 4))
    matrix[list(order), range(3)] = np.array(signs) * (1.0, 1.5, 2.0)
    matrix[:, 3] = 5, -7, 9, 1
    grid = Grid((6, 5, 4), matrix)
    vectors = np.random.default_rng(0).normal(0, 2, (3, *grid.coarsened(2).shape))
    field = DisplacementField(vectors, grid.coarsened(2))
    straight = axis_aligned(field, grid)
    np.testing.assert_allclose(straight.grid.direction, np.eye(3), atol=1e-12)
    points = places(grid)
    np.testing.assert_allclose(straight(points), field(points), atol=1e-9)
    assert straight.grid.contains(grid.corners() * (1 - 1e-9) + grid.centre * 1e-9).all()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_grid_lies_along_the_axes_and_covers_the_fixed_image(a_scan, pair_of, direction):
    pair = pair_of(a_scan("fixed", DIRECTIONS[direction]), a_scan("moving"))
    item = registration_object(pair, a_spline(pair.grid)).DeformableRegistrationSequence[0]
    assert "PreDeformationMatrixRegistrationSequence" not in item
    grid = item.DeformableRegistrationGridSequence[0]
    np.testing.assert_array_equal(grid.ImageOrientationPatient, [1, 0, 0, 0, 1, 0])
    low = np.array(grid.ImagePositionPatient, float)
    high = low + (np.array(grid.GridDimensions) - 1) * np.array(grid.GridResolution)
    assert (low <= pair.grid.corners().min(axis=0) + 1e-6).all()
    assert (high >= pair.grid.corners().max(axis=0) - 1e-6).all()
    assert min(grid.GridDimensions) >= 2


@pytest.mark.parametrize("spacing", [None, [0.02, 0.03]])
@pytest.mark.parametrize("kind", ["affine", "deformable"])
def test_pictures_come_back_in_their_pixels(a_photograph, pair_of, tmp_path, kind, spacing):
    more = {"PixelSpacing": spacing} if spacing else {}
    pair = pair_of(a_photograph("fixed", **more), a_photograph("moving", **more))
    step = pair.grid.spacing[0]
    transform = in_plane(shift=(2 * step, -step))
    if kind == "deformable":
        transform = a_spline(pair.grid, step)
    data = registration_object(pair, transform)
    found = read_registration(stored(data, tmp_path))
    points = places(pair.grid)
    atol = 1e-6 if kind == "affine" else 0.01 * step
    np.testing.assert_allclose(found.transform(points), transform(points), atol=atol)
    assert found.moving.is_same(pair.moving.images)
    assert found.fixed.is_same(pair.fixed.images)


@pytest.mark.parametrize("kind", ["affine", "deformable"])
def test_read_transform_takes_registrations_of_dicom_as_well(a_scan, pair_of, tmp_path, kind):
    pair = pair_of(a_scan("fixed"), a_scan("moving"))
    transform = an_affine() if kind == "affine" else a_spline(pair.grid)
    path = stored(registration_object(pair, transform), tmp_path)
    points = places(pair.grid)
    np.testing.assert_allclose(read_transform(path)(points), transform(points), atol=0.01)


def test_series_in_one_frame_of_reference_are_told_apart_by_their_images(a_scan, pair_of):
    shared = {"FrameOfReferenceUID": "1.2.3.4"}
    pair = pair_of(a_scan("fixed", **shared), a_scan("moving", **shared))
    for transform in (an_affine(), Affine.identity(), a_spline(pair.grid)):
        found = registration_of(registration_object(pair, transform))
        assert found.moving.instances == pair.moving.images.instances
        assert found.fixed.instances == pair.fixed.images.instances


def test_an_order_turned_round_and_a_common_third_space_are_understood(a_scan, pair_of):
    pair = pair_of(a_scan("fixed"), a_scan("moving"))
    data = registration_object(pair, an_affine())
    points = places(pair.grid)
    data.RegistrationSequence = data.RegistrationSequence[::-1]
    np.testing.assert_allclose(
        registration_of(data).transform(points), an_affine()(points), atol=1e-6
    )
    third = a_rigid().moving_from_fixed
    for item in data.RegistrationSequence:
        step = item.MatrixRegistrationSequence[0].MatrixSequence[0]
        matrix = np.array(step.FrameOfReferenceTransformationMatrix, float).reshape(4, 4)
        step.FrameOfReferenceTransformationMatrix = [decimal(v) for v in (third @ matrix).ravel()]
    found = registration_of(data)
    np.testing.assert_allclose(found.transform(points), an_affine()(points), atol=1e-6)


def test_the_moving_image_of_several_is_the_one_that_is_asked_for(a_scan, pair_of):
    fixed, names = a_scan("fixed"), ("moving", "third")
    pairs = [pair_of(fixed, a_scan(name)) for name in names]
    transforms = an_affine(), a_rigid()
    data, other = (
        registration_object(pair, t) for pair, t in zip(pairs, transforms, strict=True)
    )
    data.RegistrationSequence.append(other.RegistrationSequence[1])
    with pytest.raises(FileError, match="registers 2 sets of images, of which several"):
        registration_of(data)
    points = places(pairs[0].grid)
    for pair, transform in zip(pairs, transforms, strict=True):
        found = registration_of(data, moving=pair.moving.images)
        np.testing.assert_allclose(found.transform(points), transform(points), atol=1e-6)
    nobody = ImageSet("1.2.3", frozenset({"1.2"}))
    with pytest.raises(FileError, match="of which none"):
        registration_of(data, moving=nobody)


def test_several_matrices_act_one_after_the_other_and_matrices_around_a_grid_too(a_scan, pair_of):
    pair = pair_of(a_scan("fixed"), a_scan("moving"))
    points = places(pair.grid)
    data = registration_object(pair, a_rigid())
    steps = data.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence
    second = deepcopy(steps[0])
    second.FrameOfReferenceTransformationMatrix = [1, 0, 0, 5, 0, 1, 0, 6, 0, 0, 1, 7, 0, 0, 0, 1]
    steps.append(second)
    np.testing.assert_allclose(
        registration_of(data).transform(points), a_rigid()(points - [5, 6, 7]), atol=1e-6
    )
    bent = a_spline(pair.grid)
    data = registration_object(pair, bent)
    item = data.DeformableRegistrationSequence[0]
    field = registration_of(data).transform
    pre, post = Dataset(), Dataset()
    for matrix, transform in ((pre, a_rigid()), (post, an_affine())):
        matrix.FrameOfReferenceTransformationMatrixType = "AFFINE"
        values = transform.moving_from_fixed.ravel()
        matrix.FrameOfReferenceTransformationMatrix = [decimal(v) for v in values]
    item.PreDeformationMatrixRegistrationSequence = [pre]
    item.PostDeformationMatrixRegistrationSequence = [post]
    expected = an_affine()(a_rigid()(points) + (field(points) - points))  # PS3.3 C.20.3.1.1
    np.testing.assert_allclose(registration_of(data).transform(points), expected, atol=1e-6)


LEFT_HANDED = {"mirrored": np.diag([1.0, 1.0, -1.0]), "turned": np.eye(3)[[1, 0, 2]]}


@pytest.mark.parametrize("mirror", LEFT_HANDED)
@pytest.mark.parametrize("kind", ["affine", "spline", "field"])
def test_left_handed_grids_are_written_where_they_lie(
    a_scan, pair_of, tmp_path, dciodvfy, mirror, kind
):
    pair = pair_of(a_scan("fixed", OBLIQUE), a_scan("moving"))
    matrix = pair.grid.world_from_index.copy()
    matrix[:3, :3] = matrix[:3, :3] @ LEFT_HANDED[mirror]
    grid = Grid(pair.grid.size, matrix)
    assert np.linalg.det(grid.direction) < 0
    pair = Pair(pair.fixed, pair.moving, grid, "0.1")
    transform = an_affine() if kind == "affine" else a_spline(grid)
    if kind == "field":
        transform = DisplacementField.sampled(transform, grid.coarsened(2))
    data = registration_object(pair, transform)
    assert not dciodvfy(data, tmp_path)
    found = read_registration(stored(data, tmp_path))
    error = np.linalg.norm(found.transform(places(grid)) - transform(places(grid)), axis=1)
    assert error.max() < (1e-6 if kind == "affine" else 0.01)


@pytest.mark.parametrize("mirror", LEFT_HANDED)
def test_a_series_on_a_left_handed_grid_shows_every_voxel_where_it_lies(
    a_scan, pair_of, tmp_path, mirror
):
    pair = pair_of(a_scan("fixed", OBLIQUE), a_scan("moving"))
    matrix = pair.grid.world_from_index.copy()
    matrix[:3, :3] = matrix[:3, :3] @ LEFT_HANDED[mirror]
    grid = Grid((9, 8, 5), matrix)
    values = np.random.default_rng(0).integers(0, 999, (1, *grid.shape)).astype(np.int16)
    pair = Pair(pair.fixed, pair.moving, grid, "0.1")
    folder = tmp_path / "out"
    folder.mkdir()
    for n, data in enumerate(derived_series(pair, Image(values, grid), Words("affine"))):
        save(data, folder / f"{n}.dcm")
    image = read_image(folder)
    index = np.rint(image.grid.index(grid.lattice())).astype(int)
    np.testing.assert_allclose(image.grid.world(index), grid.lattice(), atol=1e-6)
    i, j, k = index.T
    np.testing.assert_array_equal(image.array[0, k, j, i], values.ravel())


def test_images_are_the_same_by_instances_first_and_by_frame_else():
    frame, one, other = "1.2", frozenset({"1.5", "1.6"}), frozenset({"1.7"})
    assert ImageSet("1.3", one).is_same(ImageSet(frame, frozenset({"1.6"})))
    assert not ImageSet(frame, one).is_same(ImageSet(frame, other))
    assert ImageSet(frame, one).is_same(ImageSet(frame, frozenset()))
    assert not ImageSet("", frozenset()).is_same(ImageSet("", frozenset()))


def test_an_oblique_grid_is_read_where_it_lies(a_scan, pair_of):
    pair = pair_of(a_scan("fixed", OBLIQUE), a_scan("moving"))
    data = registration_object(pair, a_spline(pair.grid))
    grid = data.DeformableRegistrationSequence[0].DeformableRegistrationGridSequence[0]
    place = pair.grid
    vectors = np.random.default_rng(1).normal(size=(3, *place.shape))
    grid.GridDimensions = list(place.size)
    grid.GridResolution = place.spacing.tolist()
    grid.ImageOrientationPatient = [decimal(v) for v in place.direction[:, :2].T.ravel()]
    grid.ImagePositionPatient = [decimal(v) for v in place.world_from_index[:3, 3]]
    grid.VectorGridData = vectors.transpose(1, 2, 3, 0).astype("<f4").tobytes()
    expected = DisplacementField(vectors, place)
    points = places(place)
    np.testing.assert_allclose(registration_of(data).transform(points), expected(points), atol=1e-5)


def registrations(pair_of, a_scan):
    pair = pair_of(a_scan("fixed"), a_scan("moving"))
    return registration_object(pair, an_affine()), registration_object(pair, a_spline(pair.grid))


def test_objects_that_lie_are_refused(a_scan, pair_of):
    affine, field = registrations(pair_of, a_scan)
    validate(affine)
    validate(field)
    lies = []
    for told, change in {
        "calls a matrix RIGID that is AFFINE": lambda d: setattr(
            step_of(d), "FrameOfReferenceTransformationMatrixType", "RIGID"
        ),
        "calls a matrix RIGID_SCALE that is AFFINE": lambda d: setattr(
            step_of(d), "FrameOfReferenceTransformationMatrixType", "RIGID_SCALE"
        ),
        "not affine": lambda d: step_of(d).FrameOfReferenceTransformationMatrix.__setitem__(12, 1),
        "not affine: 16": lambda d: step_of(d).FrameOfReferenceTransformationMatrix.pop(),
        "no images that stay": lambda d: d.RegistrationSequence.pop(0),
        "refers to 5 images": lambda d: d.ReferencedSeriesSequence.pop(1),
    }.items():
        lies.append((told, deepcopy(affine), change))
    grid_of = lambda d: d.DeformableRegistrationSequence[0].DeformableRegistrationGridSequence[0]  # noqa: E731
    for told, change in {
        "declares a grid": lambda d: setattr(grid_of(d), "VectorGridData", b"\0" * 24),
        "undefined": lambda d: setattr(
            grid_of(d), "VectorGridData", b"\xff" * len(grid_of(d).VectorGridData)
        ),
        "refers to 5 images": lambda d: d.pop("ReferencedSeriesSequence"),
    }.items():
        lies.append((told, deepcopy(field), change))
    for told, data, change in lies:
        change(data)
        with pytest.raises(FileError, match=told):
            validate(data)


def step_of(data):
    return data.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0]


def test_damaged_files_and_other_kinds_are_told(a_scan, pair_of, tmp_path):
    affine, _ = registrations(pair_of, a_scan)
    path = stored(affine, tmp_path)
    whole = path.read_bytes()
    for size in (200, 600, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(FileError):
            read_registration(path)
    image = next(a_scan("other").iterdir())
    with pytest.raises(FileError, match="another kind"):
        read_registration(image)
    with pytest.raises(FileError, match="another kind"):
        read_transform(image)


@pytest.mark.parametrize("photographs", [False, True])
def test_keypoints_come_back_as_they_were(a_scan, a_photograph, pair_of, tmp_path, photographs):
    write = a_photograph if photographs else a_scan
    more = {"PixelSpacing": [0.02, 0.03]} if photographs else {}
    pair = pair_of(write("fixed"), write("moving", **more))
    moving_grid = read_image(tmp_path / ("moving.dcm" if photographs else "moving")).grid
    result = a_result(in_plane(shift=(0.05, 0.1)), pair.grid)
    points = (result.fixed_keypoints, result.moving_keypoints)
    path = stored(fiducials_object(pair, moving_grid, *points), tmp_path)
    sets = in_common(*read_fiducials(path))
    for found, source, grid, expected in zip(
        sets, (pair.fixed, pair.moving), (pair.grid, moving_grid), points, strict=True
    ):
        assert found.identifiers == tuple("123456")
        assert found.in_pixels == photographs
        assert found.images == source.images
        placed = found.placed(grid)
        atol = 1e-5 if photographs else 1e-9
        np.testing.assert_allclose(placed.points, expected.points * (1, 1, not photographs),
                                   atol=atol)  # fmt: skip
        np.testing.assert_allclose(placed.weights, expected.weights, rtol=1e-6)
        np.testing.assert_array_equal(placed.inliers, expected.inliers)


def test_pixels_of_fiducials_count_from_the_corner_of_the_picture(a_photograph, pair_of):
    pair = pair_of(a_photograph("fixed"), a_photograph("moving"))
    result = a_result(Affine.identity(), pair.grid)
    points = result.fixed_keypoints
    data = fiducials_object(pair, pair.grid, points, points)
    place = data.FiducialSetSequence[0].FiducialSequence[0].GraphicCoordinatesDataSequence[0]
    np.testing.assert_allclose(place.GraphicData, points.points[0, :2] + 0.5, atol=1e-5)


@pytest.fixture
def by_plastimatch(tmp_path):
    """A function that has plastimatch write an ITK transform as a DICOM object."""
    program = shutil.which("plastimatch")
    if program is None:
        pytest.skip("plastimatch is not installed")

    def written(transform_file, fixed, moving):
        out = tmp_path / "plastimatch"
        subprocess.run(
            [program, "xf-convert", "--input", transform_file, "--fixed-rcs", fixed,
             "--moving-rcs", moving, "--output-dicom", out],
            check=True, capture_output=True,
        )  # fmt: skip
        (path,) = out.iterdir()
        return path

    return written


def test_the_matrix_is_the_one_that_plastimatch_writes(a_scan, pair_of, tmp_path, by_plastimatch):
    fixed, moving = a_scan("fixed", modality="CT"), a_scan("moving", modality="CT")
    write_transform(tmp_path / "a.tfm", an_affine(), read_image(fixed).grid)
    path = by_plastimatch(tmp_path / "a.tfm", fixed, moving)
    theirs = pydicom.dcmread(path)
    ours = registration_object(pair_of(fixed, moving), an_affine())
    matrices = [np.array(step_of(d).FrameOfReferenceTransformationMatrix, float).reshape(4, 4)
                for d in (theirs, ours)]  # fmt: skip
    np.testing.assert_allclose(matrices[0], matrices[1], atol=1e-5)
    assert np.abs(np.linalg.inv(matrices[1]) - matrices[0]).max() > 0.1
    points = places(read_image(fixed).grid)
    np.testing.assert_allclose(
        read_registration(path).transform(points), an_affine()(points), atol=1e-4
    )


def test_the_grid_is_the_one_that_plastimatch_writes(a_scan, pair_of, tmp_path, by_plastimatch):
    fixed, moving = a_scan("fixed", modality="CT"), a_scan("moving", modality="CT")
    pair = pair_of(fixed, moving)
    field = axis_aligned(a_spline(pair.grid), pair.grid)
    write_transform(tmp_path / "field.nrrd", field, pair.grid)
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "field.nrrd")), str(tmp_path / "field.mha"))
    theirs = pydicom.dcmread(by_plastimatch(tmp_path / "field.mha", fixed, moving))
    ours = registration_object(pair, field)
    grids = [d.DeformableRegistrationSequence[0].DeformableRegistrationGridSequence[0]
             for d in (theirs, ours)]  # fmt: skip
    for name in ("GridDimensions", "GridResolution", "ImagePositionPatient"):
        values = (np.array(grid[name].value, float) for grid in grids)
        np.testing.assert_allclose(*values, atol=1e-5)
    vectors = [np.frombuffer(grid.VectorGridData, "<f4") for grid in grids]
    np.testing.assert_allclose(*vectors, atol=1e-5)
    assert np.abs(vectors[0]).max() > 0.5


def test_a_viewer_that_resamples_by_the_files_sees_the_images_meet(a_scan, pair_of, tmp_path):
    fixed, moving = a_scan("fixed", AXIAL, (9, 20, 24)), a_scan("moving", AXIAL, (12, 24, 30))
    pair = pair_of(fixed, moving)
    shift = Affine(np.array([[1, 0, 0, 2.0], [0, 1, 0, 3.0], [0, 0, 1, 2.5], [0, 0, 0, 1]]))
    path = stored(registration_object(pair, shift), tmp_path)
    itk_transform = read_transform(path)
    write_transform(tmp_path / "t.h5", itk_transform, pair.grid)
    image = read_image(moving)
    reader = sitk.ImageSeriesReader()
    volumes = []
    for folder in (fixed, moving):
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        volumes.append(reader.Execute())
    inner = places(pair.grid) * 0.5 + pair.grid.centre * 0.5
    itk = sitk.ReadTransform(str(tmp_path / "t.h5"))
    for point in inner[:20]:
        np.testing.assert_allclose(
            itk.TransformPoint(point.tolist()), point + [2.0, 3.0, 2.5], atol=1e-6
        )
    warped = sitk.Resample(volumes[1], volumes[0], itk, sitk.sitkLinear)
    assert warped.GetSize() == volumes[0].GetSize()
    assert image.grid.contains(itk_transform(inner)).all()
