"""`retreg apply` and `retreg convert`, against SimpleITK, ANTs and hand calculation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nitransforms.io.fsl import FSLLinearTransform
from nitransforms.io.lta import FSLinearTransform

from retreg.files import read_image, read_transform, write_image, write_transform
from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine, DisplacementField, ThinPlateSpline
from retreg_server.cli import main

RECORDED = Path(__file__).parents[1] / "retreg" / "files" / "recorded"
RNG = np.random.default_rng(12)


def a_turn(degrees=20, shift=(4, -6, 3)):
    a = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    matrix[:3, 3] = shift
    return Affine(matrix)


def oblique(size, spacing, origin):
    matrix = a_turn(15).moving_from_fixed @ np.diag([*spacing, 1.0])
    matrix[:3, 3] = origin
    return Grid(size, matrix)


FIXED = oblique((24, 20, 16), (2, 2, 3), (-20, -15, -22))
MOVING = oblique((30, 26, 22), (1.5, 2, 2), (-18, -20, -20))


def smooth(grid, channels=1):
    values = sitk.GetImageFromArray(RNG.normal(size=grid.shape))
    blurred = sitk.GetArrayFromImage(sitk.DiscreteGaussian(values, 4.0))
    return Image((1000 * np.stack([blurred] * channels)).astype(np.float32), grid)


def some_labels(grid):
    return Image((smooth(grid).array > 0).astype(np.uint8) * 7, grid)


def an_itk_file(kind, path):
    """A transform in a file that SimpleITK writes, and the same as SimpleITK has it."""
    if kind == "affine":
        transform = sitk.AffineTransform(3)
        transform.SetMatrix([1.05, 0.1, 0, -0.12, 0.95, 0.05, 0, 0, 1.1])
        transform.SetTranslation((2, -3, 1))
    elif kind == "rigid":
        transform = sitk.VersorRigid3DTransform()
        transform.SetRotation((0, 0.6, 0.8), 0.3)
        transform.SetCenter((3, 4, 5))
    elif kind == "field":
        vectors = np.stack([4 * smooth(FIXED).array[0] / 1000 for _ in range(3)], axis=-1)
        field = sitk.GetImageFromArray(vectors.astype(np.float64), isVector=True)
        field.SetOrigin(FIXED.world_from_index[:3, 3].tolist())
        field.SetSpacing(FIXED.spacing.tolist())
        field.SetDirection(FIXED.direction.ravel().tolist())
        transform = sitk.DisplacementFieldTransform(field)
    elif kind == "B-spline":
        image = sitk.Image(100, 100, 100, sitk.sitkUInt8)
        image.SetOrigin((-50, -50, -50))
        transform = sitk.BSplineTransformInitializer(image, [5, 5, 5])
        transform.SetParameters((4 * RNG.normal(size=len(transform.GetParameters()))).tolist())
    else:
        turn = sitk.Euler3DTransform((1, 2, 3), 0.1, -0.2, 0.15, (1, 2, 3))
        transform = sitk.CompositeTransform([turn, an_itk_file("B-spline", path)])
    sitk.WriteTransform(transform, str(path))
    return transform


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def retreg(*words):
    assert main([str(word) for word in words]) == 0


@pytest.mark.parametrize("kind", ["affine", "rigid", "field", "B-spline", "composite"])
def test_images_and_labels_are_taken_along_as_by_simpleitk(here, kind):
    transform = an_itk_file(kind, here / "t.h5")
    images = {"image": smooth(MOVING), "labels": some_labels(MOVING)}
    write_image("fixed.nrrd", smooth(FIXED))
    reference = sitk.ReadImage("fixed.nrrd")
    for name, image in images.items():
        write_image(f"{name}.nrrd", image)
        flags = ["--labels"] if name == "labels" else ["--fill", "0"]
        retreg("apply", "t.h5", "--like", "fixed.nrrd", f"{name}.nrrd", "-o", "w.nrrd", *flags)
        method = sitk.sitkNearestNeighbor if name == "labels" else sitk.sitkLinear
        moving = sitk.ReadImage(f"{name}.nrrd")
        expected = sitk.GetArrayFromImage(sitk.Resample(moving, reference, transform, method, 0.0))
        found = read_image("w.nrrd").array[0]
        assert (expected != 0).mean() > 0.2
        if name == "labels":
            np.testing.assert_array_equal(found, expected)
        else:  # the largest step between two voxels is about 100
            np.testing.assert_allclose(found, expected, atol=0.1)


def test_labels_are_taken_along_as_by_ants():
    folder = RECORDED / "ants"
    retreg("apply", folder / "1Warp.nii.gz", folder / "0GenericAffine.mat", "--labels",
           "--like", folder / "labels_warped.nii.gz",
           folder / "labels.nii.gz", "-o", "w.nii.gz")  # fmt: skip
    expected = nibabel.load(folder / "labels_warped.nii.gz").get_fdata()
    np.testing.assert_array_equal(nibabel.load("w.nii.gz").get_fdata(), expected)


def test_the_way_back_of_ants_inverts_the_affine_by_name(here):
    folder = RECORDED / "ants"
    expected = json.loads((folder / "ants.json").read_text())
    table = "x,y,z,t\n" + "".join(f"{x},{y},{z},0\n" for x, y, z in expected["points"])
    (here / "p.csv").write_text(table)
    retreg("apply", f"[{folder / '0GenericAffine.mat'},1]", folder / "1InverseWarp.nii.gz",
           "--points", "p.csv", "-o", "q.csv")  # fmt: skip
    found = np.loadtxt("q.csv", delimiter=",", skiprows=1)[:, :3]
    np.testing.assert_allclose(found, expected["backward"], atol=1e-4)


def test_transforms_of_ants_in_an_order_that_cannot_be_meant_are_refused(here, capsys):
    folder = RECORDED / "ants"
    words = [str(folder / "0GenericAffine.mat"), str(folder / "1Warp.nii.gz")]
    (here / "p.csv").write_text("1,2,3\n")
    assert main(["apply", *words, "--points", "p.csv", "-o", "q.csv"]) == 2
    assert "points pass through the warp first" in capsys.readouterr().err


def results(folder, transform, grid):
    folder.mkdir()
    write_transform(folder / "transform.h5", transform, grid)
    write_image(folder / "fixed.nrrd", Image(np.zeros((1, *grid.shape), np.uint8), grid))
    return folder


@pytest.mark.parametrize("words", [
    ["out", "m.png"], ["out", "--like", "f.png", "m.png"], ["out/transform.h5", "m.png", "--like",
                                                            "f.png"],
])  # fmt: skip
def test_a_colour_picture_is_taken_along_as_by_simpleitk(here, words):
    grid = Grid.of_picture(60, 50)
    turn = a_turn(20, (5, 3, 0))
    results(here / "out", turn, grid)
    colours = RNG.integers(0, 255, (3, 1, 70, 80), np.uint8)
    write_image("m.png", Image(colours, Grid.of_picture(80, 70)))
    write_image("f.png", Image(np.zeros((1, *grid.shape), np.uint8), grid))
    retreg("apply", *words, "-o", "w.png")
    reference = sitk.Image(60, 50, 1, sitk.sitkUInt8)
    for channel, found in zip(colours, read_image("w.png").array, strict=True):
        moving = sitk.Cast(sitk.GetImageFromArray(channel), sitk.sitkFloat64)
        affine = sitk.ReadTransform("out/transform.h5")
        expected = sitk.GetArrayFromImage(sitk.Resample(moving, reference, affine))
        assert (expected > 0).mean() > 0.8
        np.testing.assert_allclose(found, expected, atol=0.51)  # to the nearest whole number


def test_a_bent_transform_there_and_back_brings_a_picture_home(here):
    grid = Grid.of_picture(60, 50)
    fixed = np.pad(RNG.uniform(0, 50, (8, 2)), ((0, 0), (0, 1)))
    spline = ThinPlateSpline(fixed, fixed + [2, -1, 0] + RNG.normal(size=(8, 3)) * [1, 1, 0])
    results(here / "out", spline, grid)
    ramp = np.add.outer(2 * np.arange(50), np.arange(60)).astype(np.float32)[None, None]
    write_image("f.nrrd", Image(ramp, grid))
    retreg("apply", "out", "--inverse", "--like", "f.nrrd", "f.nrrd", "-o", "there.nrrd")
    retreg("apply", "out", "--like", "f.nrrd", "there.nrrd", "-o", "back.nrrd")
    difference = read_image("back.nrrd").array[0, 0, 8:-8, 8:-8] - ramp[0, 0, 8:-8, 8:-8]
    np.testing.assert_allclose(difference, 0, atol=0.1)


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
def test_every_volume_of_a_4d_file_is_taken_along(here, ending):
    transform = an_itk_file("field", here / "t.h5")
    frames = [smooth(MOVING) for _ in range(6)]
    volumes = []
    for frame in frames:
        write_image("frame.nrrd", frame)
        volumes.append(sitk.ReadImage("frame.nrrd"))
    series = sitk.JoinSeries(volumes, 0.0, 2.5)
    sitk.WriteImage(series, f"m.{ending}")
    write_image("f.nrrd", smooth(FIXED))
    retreg("apply", "t.h5", "--like", "f.nrrd", f"m.{ending}", "-o", f"w.{ending}", "--fill", "0")
    found = sitk.ReadImage(f"w.{ending}")
    assert found.GetSize() == (*FIXED.size, 6)
    assert found.GetSpacing()[3] == pytest.approx(2.5)
    reference = sitk.ReadImage("f.nrrd")
    for n, volume in enumerate(volumes):
        expected = sitk.GetArrayFromImage(sitk.Resample(volume, reference, transform))
        np.testing.assert_allclose(sitk.GetArrayFromImage(found)[n], expected, atol=0.1)
    first = found[..., 0]
    np.testing.assert_allclose(first.GetOrigin(), reference.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(first.GetDirection(), reference.GetDirection(), atol=1e-5)


def test_a_sequence_of_slicer_stays_one():
    values = np.stack([smooth(MOVING).array[0] for _ in range(7)], axis=-1)
    image = sitk.GetImageFromArray(values, isVector=True)
    image.SetMetaData("axis 0 index type", "numeric")
    sitk.WriteImage(image, "m.seq.nrrd")
    content = Path("m.seq.nrrd").read_bytes().replace(b"kinds: vector", b"kinds: list", 1)
    Path("m.seq.nrrd").write_bytes(content)
    write_transform("t.h5", Affine.identity(), FIXED)
    retreg("apply", "t.h5", "--like", "m.seq.nrrd", "m.seq.nrrd", "-o", "w.seq.nrrd")
    head = Path("w.seq.nrrd").read_bytes().split(b"\n\n", 1)[0]
    assert b"kinds: list" in head
    assert b"axis 0 index type:=numeric" in head
    found = sitk.GetArrayFromImage(sitk.ReadImage("w.seq.nrrd"))
    np.testing.assert_allclose(found, values, atol=1e-3)


POINTS = np.array([[1.0, 2, 3], [-4, 5, 6.5]])


@pytest.mark.parametrize(("name", "text", "read"), [
    ("p.csv", "x,y,z,label\n1,2,3,a\n-4,5,6.5,b\n", lambda t: [r.split(",")[:3] for r in
                                                                t.splitlines()[1:]]),
    ("p.csv", "label;y;x;z\na;2;1;3\nb;5;-4;6.5\n", lambda t: [np.array(r.split(";"))[[2, 1, 3]]
                                                                for r in t.splitlines()[1:]]),
    ("p.tsv", "1\t2\t3\n-4\t5\t6.5\n", lambda t: [r.split("\t") for r in t.splitlines()]),
    ("p.txt", "1 2 3\n-4 5 6.5\n", lambda t: [r.split() for r in t.splitlines()]),
    ("p.json", "[[1, 2, 3], [-4, 5, 6.5]]", json.loads),
    ("p.json", '{"points": [[1, 2, 3], [-4, 5, 6.5]], "of": "me"}',
     lambda t: json.loads(t)["points"]),
    ("p.mrk.json", json.dumps({"markups": [{"coordinateSystem": "RAS", "controlPoints": [
        {"label": "a", "position": [-1, -2, 3]}, {"label": "b", "position": [4, -5, 6.5]}]}]}),
     lambda t: [np.array(p["position"]) * [-1, -1, 1]
                for p in json.loads(t)["markups"][0]["controlPoints"]]),
    ("p.fcsv", "# CoordinateSystem = LPS\n# columns = id,x,y,z,label\n1,1,2,3,a\n2,-4,5,6.5,b\n",
     lambda t: [r.split(",")[1:4] for r in t.splitlines()[2:]]),
])  # fmt: skip
def test_points_of_every_kind_of_file_are_moved_and_the_rest_is_kept(name, text, read):
    write_transform("t.h5", a_turn(), FIXED)
    Path(name).write_text(text)
    out = "q" + name[1:]
    retreg("apply", "t.h5", "--points", name, "-o", out)
    oracle = sitk.ReadTransform("t.h5")
    expected = [oracle.TransformPoint(point.tolist()) for point in POINTS]
    moved = Path(out).read_text()
    np.testing.assert_allclose(np.array(read(moved), float), expected, atol=1e-6)
    if "a" in text:
        assert '"a"' in moved or "a" in moved.replace("\n", ",").replace(";", ",").split(",")
    retreg("apply", "t.h5", "--points", out, "-o", name, "--inverse")
    np.testing.assert_allclose(np.array(read(Path(name).read_text()), float), POINTS, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_points_come_back_through_any_field(seed):
    rng = np.random.default_rng(seed)
    coarse = Grid((5, 5, 5), np.diag([15.0, 15, 15, 1]))
    field = DisplacementField(rng.normal(scale=1.5, size=(3, 5, 5, 5)), coarse)
    write_transform("t.h5", field, coarse)
    points = rng.uniform(0, 60, (50, 3))
    np.savetxt("p.csv", points, delimiter=",", header="x,y,z", comments="", fmt="%.12g")
    retreg("apply", "t.h5", "--points", "p.csv", "-o", "q.csv")
    retreg("apply", "t.h5", "--points", "q.csv", "-o", "r.csv", "--inverse")
    there, back = (np.loadtxt(n, delimiter=",", skiprows=1) for n in ("q.csv", "r.csv"))
    np.testing.assert_allclose(there, read_transform("t.h5")(points), atol=1e-6)
    np.testing.assert_allclose(back, points, atol=1e-5)


@pytest.mark.parametrize(("words", "said"), [
    (["t.h5", "--points", "p.csv", "-o", "q.json"], "should end in .csv"),
    (["t.h5", "--points", "none.csv", "-o", "q.csv"], "no file 'none.csv'"),
    (["t.h5", "--points", "heads.csv", "-o", "q.csv"], "no columns x and y"),
    (["t.h5", "--points", "nan.csv", "-o", "q.csv"], "not finite"),
    (["t.h5", "--points", "p.csv", "-o", "q.csv", "--labels"], "--labels belongs to images"),
    (["t.h5", "--points", "p.csv", "-o", "q.csv", "--fill", "3"], "--fill belongs to images"),
    (["t.h5", "-o", "w.nrrd"], "No image was named"),
    (["t.h5", "f.nrrd", "-o", "w.nrrd"], "name an image with --like"),
    (["t.h5", "--like", "f.nrrd", "f.nrrd", "-o", "w.jpg"], "unknown ending"),
    (["t.h5", "--like", "f.nrrd", "f.nrrd", "f.nrrd", "-o", "w.nrrd"], "one image"),
    (["f.nrrd", "--like", "f.nrrd", "f.nrrd", "-o", "w.nrrd"], "not a displacement field"),
    (["none.h5", "--like", "f.nrrd", "f.nrrd", "-o", "w.nrrd"], "no file 'none.h5'"),
    (["flirt.mat", "--points", "p.csv", "-o", "q.csv"], "--fixed and --moving"),
])  # fmt: skip
def test_what_cannot_be_applied_is_one_sentence(capsys, words, said):
    write_transform("t.h5", a_turn(), FIXED)
    write_image("f.nrrd", smooth(FIXED))
    Path("p.csv").write_text("x,y,z\n1,2,3\n")
    Path("heads.csv").write_text("a,b,c\n1,2,3\n")
    Path("nan.csv").write_text("x,y,z\n1,nan,3\n")
    np.savetxt("flirt.mat", np.eye(4))
    assert main(["apply", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_matrix_of_flirt_takes_the_images_that_are_named():
    for name, grid in (("f", FIXED), ("m", MOVING)):
        write_image(f"{name}.nii.gz", smooth(grid))
    reference, moved = (nibabel.load(f"{name}.nii.gz") for name in "fm")
    lps = np.diag([-1.0, -1, 1, 1])
    ras = lps @ a_turn().moving_from_fixed @ lps
    FSLLinearTransform.from_ras(ras, moving=moved, reference=reference).to_filename("flirt.mat")
    write_transform("t.h5", a_turn(), FIXED)
    for transform in ("flirt.mat", "t.h5"):
        retreg("apply", transform, "--like", "f.nii.gz", "m.nii.gz", "-o", f"{transform}.nrrd")
    expected = read_image("t.h5.nrrd").array
    np.testing.assert_allclose(read_image("flirt.mat.nrrd").array, expected, atol=0.05)
    retreg("apply", "flirt.mat", "--inverse", "--like", "m.nii.gz", "f.nii.gz", "-o", "b.nrrd")
    retreg("apply", "t.h5", "--inverse", "--like", "m.nii.gz", "f.nii.gz", "-o", "c.nrrd")
    np.testing.assert_allclose(read_image("b.nrrd").array, read_image("c.nrrd").array, atol=0.05)


@pytest.mark.parametrize("name", ["a.h5", "a.tfm", "a.mat", "a.nrrd", "a.nii.gz", "a.mha"])
def test_transforms_are_converted_to_what_simpleitk_reads(name):
    write_transform("t.h5", a_turn(), FIXED)
    write_image("f.nrrd", smooth(FIXED))
    retreg("convert", "t.h5", "t.h5", "-o", name, "--fixed", "f.nrrd")
    if name.endswith(("h5", "tfm", "mat")):
        stored = sitk.ReadTransform(name)
    else:
        field = sitk.Cast(sitk.ReadImage(name), sitk.sitkVectorFloat64)
        stored = sitk.DisplacementFieldTransform(field)
    points = FIXED.world(RNG.uniform(4, 10, (9, 3)))
    found = [stored.TransformPoint(point.tolist()) for point in points]
    np.testing.assert_allclose(found, a_turn()(a_turn()(points)), atol=0.02)


def test_transforms_are_converted_for_fsl_and_freesurfer():
    write_transform("t.h5", a_turn(), FIXED)
    for name, grid in (("f", FIXED), ("m", MOVING)):
        write_image(f"{name}.nii.gz", smooth(grid))
    both = ["--fixed", "f.nii.gz", "--moving", "m.nii.gz"]
    retreg("convert", "t.h5", "-o", "flirt.mat", "--flirt", *both)
    retreg("convert", "t.h5", "-o", "a.lta", *both)
    retreg("convert", "t.h5", "-o", "back.lta", "--inverse", *both)
    lps = np.diag([-1.0, -1, 1, 1])
    ras = lps @ a_turn().moving_from_fixed @ lps
    reference, moved = (nibabel.load(f"{name}.nii.gz") for name in "fm")
    flirt = FSLLinearTransform.from_filename("flirt.mat")
    np.testing.assert_allclose(flirt.to_ras(moving=moved, reference=reference), ras, atol=1e-5)
    np.testing.assert_allclose(FSLinearTransform.from_filename("a.lta").to_ras(), ras, atol=1e-5)
    back = FSLinearTransform.from_filename("back.lta").to_ras()
    np.testing.assert_allclose(back, np.linalg.inv(ras), atol=1e-5)


@pytest.mark.parametrize(("words", "said"), [
    (["field.nrrd", "-o", "a.lta"], "affine transforms; this one is curved"),
    (["field.nrrd", "-o", "a.h5"], "--fixed"),
    (["field.nrrd", "-o", "a.h5", "--inverse", "--fixed", "f.nrrd"], "--moving"),
    (["t.h5", "-o", "a.lta"], "needs both images"),
    (["t.h5", "-o", "a.xyz"], "ending that this transform cannot"),
])  # fmt: skip
def test_what_cannot_be_converted_is_one_sentence(capsys, words, said):
    write_transform("t.h5", a_turn(), FIXED)
    write_image("f.nrrd", smooth(FIXED))
    write_transform("field.nrrd", DisplacementField.sampled(np.sin, FIXED), FIXED)
    assert main(["convert", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_parameters_of_elastix_are_applied_from_their_folder(here):
    shutil.copytree(RECORDED / "2d-affine-then-bspline", here / "elastix")
    expected = json.loads((RECORDED / "elastix.json").read_text())["2d-affine-then-bspline"]
    Path("p.csv").write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in expected["fixed"]))
    retreg("apply", "elastix/TransformParameters.1.txt", "--points", "p.csv", "-o", "q.csv")
    found = np.loadtxt("q.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(found, expected["moving"], atol=1e-4)
