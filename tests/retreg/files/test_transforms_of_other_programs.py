"""Transforms of elastix, FreeSurfer, FSL and Slicer move points as those programs move them."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import vtk
from fsl.data.image import Image as FslImage
from fsl.transform.fnirt import toFnirt
from fsl.transform.nonlinear import CoefficientField, DeformationField
from nitransforms.io.fsl import FSLLinearTransform
from nitransforms.linear import Affine as NiAffine

from retreg.bspline import BSpline
from retreg.errors import FileError
from retreg.files import read_transform
from retreg.files.fsl import write_flirt
from retreg.files.lta import write_lta
from retreg.geometry import Grid
from retreg.inverse import inverse_of
from retreg.transforms import Affine, ThinPlateSpline

RECORDED = Path(__file__).parent / "recorded"
ELASTIX = json.loads((RECORDED / "elastix.json").read_text())
LPS = np.diag([-1.0, -1, 1, 1])
RNG = np.random.default_rng(8)


def points_3d(points):
    points = np.asarray(points, float)
    return np.pad(points, ((0, 0), (0, 3 - points.shape[1])))


@pytest.mark.parametrize("case", ELASTIX)
def test_parameters_of_elastix_move_points_as_transformix_does(case):
    expected = ELASTIX[case]
    found = read_transform(RECORDED / expected["file"])(points_3d(expected["fixed"]))
    np.testing.assert_allclose(found, points_3d(expected["moving"]), atol=1e-4)


@pytest.mark.parametrize(("old", "new", "words"), [
    ('"Compose"', '"Add"', "adds its initial transform"),
    ("TransformParameters.0.txt", "TransformParameters.7.txt", "no file 'TransformParameters.7"),
    ('(Transform "BSplineTransform")', '(Transform "AffineLogStackTransform")', "AffineLogStack"),
    ('"false"', '"true"', "BSplineTransform of elastix that is not supported"),
])  # fmt: skip
def test_what_elastix_can_and_we_cannot_is_said(tmp_path, old, new, words):
    folder = RECORDED / "3d-affine-then-bspline"
    for path in folder.iterdir():
        text = path.read_text()
        text = text.replace(old, new) if path.name.endswith("1.txt") else text
        (tmp_path / path.name).write_text(text)
    with pytest.raises(FileError, match=words):
        read_transform(tmp_path / "TransformParameters.1.txt")


@pytest.mark.parametrize("space", ["world", "voxel"])
def test_an_lta_moves_points_as_freesurfer_does(space):
    expected = json.loads((RECORDED / "surfa.json").read_text())[space]
    fixed = np.array(expected["target"]) * [-1, -1, 1]
    moving = np.array(expected["source"]) * [-1, -1, 1]
    np.testing.assert_allclose(read_transform(RECORDED / f"{space}.lta")(fixed), moving, atol=1e-4)


def an_affine():
    matrix = np.eye(4)
    matrix[:3] = [[0.9, -0.3, 0.1, 4], [0.3, 1.0, 0, -7], [-0.1, 0.05, 1.1, 12]]
    return Affine(matrix)


def grids(handedness=1):
    a = 0.4
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    fixed, moving = np.eye(4), np.eye(4)
    fixed[:3, :3], fixed[:3, 3] = turn * [handedness * 1.0, 2, 3], (-5, 8, 10)
    moving[:3, :3], moving[:3, 3] = turn.T * [2, 1.5, 1], (4, -8, 1)
    return Grid((12, 14, 10), fixed), Grid((20, 16, 18), moving)


def nifti_of(path, grid):
    voxels = np.zeros(grid.size, np.uint8)
    nibabel.Nifti1Image(voxels, LPS @ grid.world_from_index).to_filename(path)
    return path


def test_an_lta_that_is_written_is_read_and_says_which_image_is_which(tmp_path):
    fixed, moving = grids()
    write_lta(tmp_path / "a.lta", an_affine(), fixed, moving)
    points = fixed.lattice(4)
    expected = an_affine()(points)
    np.testing.assert_allclose(read_transform(tmp_path / "a.lta")(points), expected, atol=1e-4)
    source = (tmp_path / "a.lta").read_text().split("src volume info")[1].split("dst volume")[0]
    assert "volume = 20 16 18" in source


@pytest.mark.parametrize("handedness", [1, -1])
def test_a_matrix_of_flirt_is_that_of_nitransforms(tmp_path, handedness):
    fixed, moving = grids(handedness)
    reference = nibabel.load(nifti_of(tmp_path / "f.nii", fixed))
    moved = nibabel.load(nifti_of(tmp_path / "m.nii", moving))
    ras = LPS @ an_affine().moving_from_fixed @ LPS
    oracle = FSLLinearTransform.from_ras(ras, moving=moved, reference=reference)
    oracle.to_filename(tmp_path / "a.mat")
    found = read_transform(tmp_path / "a.mat", fixed, moving)
    points = fixed.lattice(4)
    np.testing.assert_allclose(found(points), an_affine()(points), atol=1e-5)
    write_flirt(tmp_path / "b.mat", an_affine(), fixed, moving)
    back = FSLLinearTransform.from_filename(tmp_path / "b.mat")
    np.testing.assert_allclose(back.to_ras(moving=moved, reference=reference), ras, atol=1e-6)
    mapped = NiAffine(ras).map(points * [-1, -1, 1]) * [-1, -1, 1]
    np.testing.assert_allclose(found(points), mapped, atol=1e-5)


def test_a_matrix_of_flirt_without_its_images_is_refused(tmp_path):
    np.savetxt(tmp_path / "a.mat", np.eye(4))
    with pytest.raises(FileError, match="--fixed and --moving"):
        read_transform(tmp_path / "a.mat")


def scaled_voxels(grid, world):
    """FSL's coordinates: voxels times their size, with i counted down where the axes are RAS."""
    index = grid.index(world)
    if np.linalg.det((LPS @ grid.world_from_index)[:3, :3]) > 0:
        index[:, 0] = grid.size[0] - 1 - index[:, 0]
    return index * grid.spacing


@pytest.mark.parametrize("kind", ["absolute", "relative"])
@pytest.mark.parametrize("handedness", [1, -1])
def test_a_warp_of_fnirt_moves_points_by_the_definition_of_fsl(tmp_path, handedness, kind):
    fixed, moving = grids(handedness)
    nodes = fixed.lattice()
    moved = an_affine()(nodes) + 0.5 * np.sin(nodes / 9)
    values = scaled_voxels(moving, moved)
    if kind == "relative":
        values = values - scaled_voxels(fixed, nodes)
    values = values.reshape(*fixed.shape, 3).transpose(2, 1, 0, 3).astype(np.float32)
    image = nibabel.Nifti1Image(values, LPS @ fixed.world_from_index)
    image.header["intent_code"] = 2006
    image.to_filename(tmp_path / "warp.nii.gz")
    found = read_transform(tmp_path / "warp.nii.gz", fixed, moving)
    np.testing.assert_allclose(found(nodes), moved, atol=1e-3)


def test_coefficients_of_fnirt_move_points_as_fslpy_does(tmp_path):
    fixed, moving = grids()
    f, m = (FslImage(str(nifti_of(tmp_path / f"{n}.nii", g))) for n, g in
            (("f", fixed), ("m", moving)))  # fmt: skip
    coefficients = RNG.normal(size=(7, 8, 6, 3)).astype(np.float32)
    field = CoefficientField(
        coefficients, m, f, fieldType="cubic", knotSpacing=(3, 3, 3),
        fieldToRefMat=np.diag([3.0, 3, 3, 1]), srcToRefMat=np.eye(4),
    )
    toFnirt(field).save(str(tmp_path / "coefficients.nii.gz"))
    nodes = fixed.lattice()
    oracle: DeformationField = field.asDeformationField()
    expected = oracle.transform(nodes * [-1, -1, 1], "world", "world") * [-1, -1, 1]
    found = read_transform(tmp_path / "coefficients.nii.gz", fixed, moving)(nodes)
    assert np.linalg.norm(expected - nodes, axis=1).max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_b_spline_of_itk_moves_points_as_itk_does_also_beyond_it(tmp_path, dimension, order):
    image = sitk.Image([20, 24, 16][:dimension], sitk.sitkUInt8)
    image.SetSpacing([1.0, 2, 3][:dimension])
    image.SetOrigin([-5.0, 3, 8][:dimension])
    if dimension == 3:
        image.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1))
    oracle = sitk.BSplineTransformInitializer(image, [5, 4, 3][:dimension], order)
    oracle.SetParameters(RNG.normal(size=len(oracle.GetParameters())).tolist())
    sitk.WriteTransform(oracle, str(tmp_path / "a.h5"))
    points = RNG.uniform(-60, 60, (300, 3))
    points[:200] = RNG.uniform(0, 15, (200, 3)) * (1, 2, 3) + (-5, 3, 8)
    points[:, dimension:] = 0
    expected = [oracle.TransformPoint(point[:dimension].tolist()) for point in points]
    found = read_transform(tmp_path / "a.h5")
    assert isinstance(found, BSpline)
    np.testing.assert_allclose(found(points)[:, :dimension], expected, atol=1e-9)


def test_a_composite_with_a_b_spline_is_read_in_the_order_of_itk(tmp_path):
    spline = sitk.BSplineTransformInitializer(sitk.Image(20, 20, 20, sitk.sitkUInt8), [4, 4, 4])
    spline.SetParameters(RNG.normal(size=len(spline.GetParameters())).tolist())
    turn = sitk.Euler3DTransform((10, 10, 10), 0.1, 0.2, -0.3, (1, 2, 3))
    oracle = sitk.CompositeTransform([turn, spline])
    sitk.WriteTransform(oracle, str(tmp_path / "a.h5"))
    points = RNG.uniform(2, 17, (40, 3))
    expected = [oracle.TransformPoint(point.tolist()) for point in points]
    np.testing.assert_allclose(read_transform(tmp_path / "a.h5")(points), expected, atol=1e-9)


def a_kernel_file(path, kind, fixed, moving, dimension=3):
    numbers = [points[:, :dimension].ravel() for points in (fixed, moving)]
    name = f"{kind}_double_{dimension}_{dimension}"
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            group = file.create_group("TransformGroup/0")
            group["TransformType"] = np.array([name], dtype=h5py.string_dtype("ascii"))
            group["TransformParameters"], group["TransformFixedParameters"] = numbers
    else:
        words = [" ".join(map(repr, map(float, each))) for each in numbers]
        path.write_text(
            f"#Insight Transform File V1.0\n#Transform 0\nTransform: {name}\n"
            f"Parameters: {words[0]}\nFixedParameters: {words[1]}\n"
        )
    return path


@pytest.mark.parametrize("ending", ["h5", "tfm"])
@pytest.mark.parametrize("dimension", [2, 3])
def test_a_thin_plate_spline_of_itk_is_that_of_vtk(tmp_path, dimension, ending):
    fixed = RNG.uniform(0, 50, (9, 3))
    fixed[:, dimension:] = 0
    moving = fixed + RNG.normal(size=(9, 3)) * (np.arange(3) < dimension)
    oracle = vtk.vtkThinPlateSplineTransform()
    sides = []
    for side in (fixed, moving):
        sides.append(vtk.vtkPoints())
        for point in side:
            sides[-1].InsertNextPoint(point)
    oracle.SetSourceLandmarks(sides[0])
    oracle.SetTargetLandmarks(sides[1])
    oracle.SetBasisToR()
    path = a_kernel_file(tmp_path / f"a.{ending}", "ThinPlateSplineKernelTransform", fixed, moving,
                         dimension)  # fmt: skip
    found = read_transform(path)
    assert isinstance(found, ThinPlateSpline)
    points = RNG.uniform(0, 50, (30, 3)) * (np.arange(3) < dimension)
    expected = [oracle.TransformPoint(point) for point in points]
    np.testing.assert_allclose(found(points), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["ElasticBodySpline", "VolumeSpline"])
def test_splines_of_other_kernels_are_refused(tmp_path, kind):
    points = RNG.uniform(0, 50, (9, 3))
    with pytest.raises(FileError, match=r"a\.tfm"):
        read_transform(a_kernel_file(tmp_path / "a.tfm", f"{kind}KernelTransform", points, points))


def test_a_folder_of_results_stands_for_its_transform(tmp_path):
    with pytest.raises(FileError, match=r"no transform\.h5"):
        read_transform(tmp_path)
    sitk.WriteTransform(sitk.TranslationTransform(3, (1, 2, 3)), str(tmp_path / "transform.h5"))
    np.testing.assert_allclose(read_transform(tmp_path)(np.zeros((1, 3))), [[1, 2, 3]])


@pytest.mark.parametrize(("direction", "files"), [
    ("forward", ["1Warp.nii.gz", "0GenericAffine.mat"]),
    ("backward", ["0GenericAffine.mat", "1InverseWarp.nii.gz"]),
])  # fmt: skip
def test_transforms_of_ants_move_points_as_ants_does(direction, files):
    expected = json.loads((RECORDED / "ants" / "ants.json").read_text())
    points = np.array(expected["points"])
    for name in files:
        part = read_transform(RECORDED / "ants" / name)
        backward = direction == "backward" and name.endswith(".mat")
        points = (inverse_of(part) if backward else part)(points)
    np.testing.assert_allclose(points, expected[direction], atol=1e-4)
