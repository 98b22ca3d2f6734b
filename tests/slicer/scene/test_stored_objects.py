"""DICOM registrations and keypoints in the scene, and results of the scene as DICOM objects."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pydicom
import pytest
import vtk
from pydicom.uid import generate_uid

sys.path.append(str(Path(__file__).parents[2] / "dicom"))

from made_up_dicom import a_result, a_spline, an_affine, in_plane

from retreg.dicom.new_object import save
from retreg.dicom.objects import Registered, objects_of
from retreg.dicom.source import source_of
from retreg.errors import FileError, InputError
from retreg.files import read_image, read_transform
from retreg.files.dicom_fiducials import read_fiducials
from retreg.files.dicom_registration import read_registration
from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Affine

SCAN = {
    "StudyInstanceUID": "1.2.3", "Modality": "MR", "PixelSpacing": [0.75, 0.5],
    "SliceThickness": 2.5, "ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "BodyPartExamined": "X",
}  # fmt: skip


class Database:
    """slicer.dicomDatabase, of the files in some folders."""

    def __init__(self, *folders):
        self._files = {}
        for folder in folders:
            for path in folder.rglob("*.dcm") if folder.is_dir() else [folder]:
                self._files[str(pydicom.dcmread(path).SOPInstanceUID)] = path

    def fileForInstance(self, uid):
        return str(self._files.get(uid, ""))

    def instanceValue(self, uid, tag):
        return self.fileValue(self.fileForInstance(uid), tag)

    def fileValue(self, path, tag):
        element = pydicom.dcmread(path).get(tuple(int(part, 16) for part in tag.split(",")))
        return str(element.value) if element else ""


@pytest.fixture
def scans(tmp_path, write_dicom):
    """Two folders with slices, each in a space of its own."""
    folders = []
    for name in ("fixed", "moving"):
        folder = tmp_path / name
        folder.mkdir()
        frame, series = generate_uid(), generate_uid()
        pixels = np.random.default_rng(len(name)).integers(0, 999, (6, 9, 8), dtype=np.int16)
        for n in range(6):
            write_dicom(
                folder / f"{n}.dcm", pixels[n], **SCAN, FrameOfReferenceUID=frame,
                SeriesInstanceUID=series, ImagePositionPatient=[10 + 2.5 * n, 20, 30],
            )  # fmt: skip
        folders.append(folder)
    return folders


@pytest.fixture
def photographs(tmp_path, write_dicom):
    """Two files with pictures."""
    rng = np.random.default_rng(0)
    return [
        write_dicom(
            tmp_path / f"{name}.dcm", rng.integers(0, 256, (20, 30), dtype=np.uint8),
            SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.5.1", Modality="OP", StudyInstanceUID="1.2.3",
            SeriesInstanceUID=generate_uid(), ImageLaterality="R", PixelSpacing=spacing,
        )
        for name, spacing in (("fixed", [0.01, 0.02]), ("moving", [0.03, 0.04]))
    ]


@pytest.fixture
def load(scene):
    """A function that puts an image of files into the scene as the module DICOM does."""

    def loaded(path, name, placement=None):
        from RetRegLib.scene.volumes import volume_from_image

        image = read_image(path)
        if placement is not None:
            image = Image(image.array, Grid(image.grid.size, placement))
        node = volume_from_image(image, name, scene)
        uids = [str(header.SOPInstanceUID) for header in source_of(path).headers]
        node.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
        return node

    return loaded


def written(tmp_path, fixed, moving, transform):
    """Paths of the objects of a registration."""
    images = read_image(fixed), read_image(moving)
    sources = source_of(fixed), source_of(moving)
    made = Registered(*images, sources, a_result(transform, images[0].grid), "0.1")
    paths = {}
    for name, data in objects_of(made):
        paths[name] = tmp_path / name.replace("/", "-")
        save(data, paths[name])
    return paths


def shown(node, points):
    """Where a transform node takes points (n, 3) LPS mm, from parent."""
    transform = node.GetTransformFromParent()
    flip = np.array([-1.0, -1.0, 1.0])
    return np.array([transform.TransformPoint(p) for p in points * flip]) * flip


def inside(grid, count=30):
    return np.random.default_rng(2).uniform(0, np.array(grid.size) - 1, (count, 3))


@pytest.mark.parametrize("kind", ["affine", "deformable"])
def test_a_registration_of_scans_is_loaded_in_the_right_direction(
    slicer, scene, scans, load, tmp_path, kind
):
    from RetRegLib.scene.stored_objects import load_registration

    grid = read_image(scans[0]).grid
    transform = an_affine() if kind == "affine" else a_spline(grid)
    path = written(tmp_path, *scans, transform)["registration.dcm"]
    nodes = [load(folder, folder.name) for folder in scans]
    node = load_registration(path, "stored", scene, Database(*scans))
    points = grid.world(inside(grid))
    np.testing.assert_allclose(shown(node, points), transform(points), atol=0.01)
    role = slicer.vtkMRMLTransformNode
    assert node.GetNodeReference(role.GetFixedNodeReferenceRole()) is nodes[0]
    assert node.GetNodeReference(role.GetMovingNodeReferenceRole()) is nodes[1]
    assert nodes[1].GetParentTransformNode() is node
    assert nodes[0].GetParentTransformNode() is None


def test_without_the_volumes_a_registration_is_loaded_alone(scene, scans, tmp_path):
    from RetRegLib.scene.stored_objects import load_registration

    path = written(tmp_path, *scans, an_affine())["registration.dcm"]
    node = load_registration(path, "stored", scene, Database())
    points = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(shown(node, points), an_affine()(points), atol=1e-6)


@pytest.mark.parametrize("kind", ["affine", "deformable"])
def test_a_registration_of_photographs_fits_where_slicer_put_them(
    scene, photographs, load, tmp_path, kind
):
    from RetRegLib.scene.stored_objects import load_fiducials, load_registration

    grids = [read_image(path).grid for path in photographs]
    transform = in_plane(0.1, (0.02, 0.03)) if kind == "affine" else a_spline(grids[0], 0.03)
    paths = written(tmp_path, *photographs, transform)
    places = np.diag([1.0, 1.0, 1.0, 1.0]), np.diag([-2.0, 3.0, 1.0, 1.0])
    places[1][:3, 3] = 5, 6, 7
    nodes = [load(path, path.stem, place) for path, place in zip(photographs, places, strict=True)]
    database = Database(*photographs)
    node = load_registration(paths["registration.dcm"], "stored", scene, database)
    index = inside(grids[0]) * (1, 1, 0)
    moving_index = grids[1].index(transform(grids[0].world(index)))
    found = shown(node, Grid(grids[0].size, places[0]).world(index))
    np.testing.assert_allclose(found, Grid(grids[1].size, places[1]).world(moving_index), atol=0.01)
    lists = load_fiducials(paths["fiducials.dcm"], "points", scene, database)
    expected = a_result(transform, grids[0]).fixed_keypoints.points
    position = np.zeros(3)
    lists[0].GetNthControlPointPosition(0, position)
    np.testing.assert_allclose(position * (-1, -1, 1) * (1, 1, 0),
                               grids[0].index(expected)[0] * (1, 1, 0), atol=1e-4)  # fmt: skip
    assert nodes[1].GetParentTransformNode() is node


def test_keypoints_are_loaded_as_two_lists_with_the_same_labels(scene, scans, load, tmp_path):
    from RetRegLib.scene.markups import keypoints_from_markups
    from RetRegLib.scene.stored_objects import load_fiducials, load_registration

    paths = written(tmp_path, *scans, an_affine())
    result = a_result(an_affine(), read_image(scans[0]).grid)
    for folder in scans:
        load(folder, folder.name)
    database = Database(*scans)
    transform = load_registration(paths["registration.dcm"], "stored", scene, database)
    fixed, moving = load_fiducials(paths["fiducials.dcm"], "points", scene, database)
    for node, expected in ((fixed, result.fixed_keypoints), (moving, result.moving_keypoints)):
        found = keypoints_from_markups(node)
        np.testing.assert_allclose(found.points, expected.points, atol=1e-6)
        np.testing.assert_array_equal(found.inliers, expected.inliers)
        assert [node.GetNthControlPointLabel(n) for n in range(6)] == list("123456")
    assert moving.GetParentTransformNode() is transform
    assert fixed.GetParentTransformNode() is None


def test_a_damaged_registration_leaves_nothing_in_the_scene(scene, scans, tmp_path):
    from RetRegLib.scene.stored_objects import load_registration

    path = written(tmp_path, *scans, an_affine())["registration.dcm"]
    path.write_bytes(path.read_bytes()[:900])
    count = scene.GetNumberOfNodes()
    with pytest.raises(FileError):
        load_registration(path, "stored", scene, Database(*scans))
    assert scene.GetNumberOfNodes() == count


@pytest.fixture
def outcome(load):
    """A function that registers two files in the scene."""

    def made(paths, transform, placements=(None, None), verdict="accept"):
        from RetRegLib.scene.outcome import show_outcome
        from RetRegLib.scene.volumes import grid_of_volume

        nodes = [load(path, f"volume {n}", placements[n]) for n, path in enumerate(paths)]
        result = a_result(transform, grid_of_volume(nodes[0]), verdict)
        return show_outcome(result, *nodes)

    return made


@pytest.mark.parametrize("kind", ["affine", "deformable"])
def test_a_result_is_saved_so_that_it_can_be_read_again(outcome, scans, tmp_path, kind):
    from RetRegLib.scene.dicom_saving import save_objects

    grid = read_image(scans[0]).grid
    transform = an_affine() if kind == "affine" else a_spline(grid)
    out = tmp_path / "out"
    count = save_objects(outcome(scans, transform), out, Database(*scans))
    assert count == len(list(out.rglob("*.dcm"))) == 8
    points = grid.world(inside(grid))
    stored = read_registration(out / "registration.dcm")
    np.testing.assert_allclose(stored.transform(points), transform(points), atol=0.01)
    assert stored.moving == source_of(scans[1]).images
    series = read_image(out / "series")
    np.testing.assert_allclose(series.grid.world_from_index, grid.world_from_index, atol=1e-6)


def test_photographs_are_saved_in_their_pixels_wherever_slicer_put_them(
    outcome, photographs, tmp_path
):
    from RetRegLib.scene.dicom_saving import save_objects

    places = np.diag([1.0, 1, 1, 1]), np.diag([2.0, 2, 1, 1])
    result = outcome(photographs, in_plane(0.1), places)
    save_objects(result, tmp_path / "out", Database(*photographs))
    grids = [read_image(path).grid for path in photographs]
    index = inside(grids[0]) * (1, 1, 0)
    transform = read_transform(tmp_path / "out" / "registration.dcm")
    found = grids[1].index(transform(grids[0].world(index)))
    np.testing.assert_allclose(found, in_plane(0.1)(index) / (2, 2, 1), atol=1e-4)
    fixed, _ = read_fiducials(tmp_path / "out" / "fiducials.dcm")
    expected = result.result.fixed_keypoints.points * (1, 1, 0)
    np.testing.assert_allclose(fixed.points.points, expected, atol=1e-4)


def test_an_edited_transform_is_saved_as_it_is_now_and_to_be_checked(
    outcome, scans, tmp_path
):
    from RetRegLib.scene.dicom_saving import save_objects
    from RetRegLib.scene.transform_nodes import update_transform_node

    made = outcome(scans, an_affine())
    shift = np.eye(4)
    shift[:3, 3] = 1, 2, 3
    update_transform_node(made.transform, Affine(shift))
    save_objects(made, tmp_path / "out", Database(*scans))
    stored = read_transform(tmp_path / "out" / "registration.dcm")
    np.testing.assert_allclose(stored(np.zeros((1, 3))), [[1, 2, 3]], atol=1e-9)
    header = pydicom.dcmread(tmp_path / "out" / "series" / "0001.dcm")
    assert "to be checked" in header.SeriesDescription


def test_what_cannot_be_saved_is_told_and_nothing_is_written(outcome, scans, tmp_path):
    from RetRegLib.scene.dicom_saving import save_objects

    made, out = outcome(scans, an_affine()), tmp_path / "out"
    with pytest.raises(InputError, match="was not loaded from Slicer's DICOM database"):
        save_objects(made, out, Database(scans[0]))
    failed = replace(made, result=a_result(an_affine(), read_image(scans[0]).grid, "fail"))
    with pytest.raises(FileError, match="failed"):
        save_objects(failed, out, Database(*scans))
    matrix = vtk.vtkMatrix4x4()
    made.fixed.GetIJKToRASMatrix(matrix)
    matrix.SetElement(0, 3, matrix.GetElement(0, 3) + 4)
    made.fixed.SetIJKToRASMatrix(matrix)
    with pytest.raises(InputError, match="no longer where its DICOM files put it"):
        save_objects(made, out, Database(*scans))
    assert not out.exists()


@pytest.fixture
def dicom_module(slicer, monkeypatch):
    """What the plugin needs of Slicer's module DICOM."""

    class Plugin:
        def __init__(self):
            self.tags, self.filed = {}, []

        def addSeriesInSubjectHierarchy(self, loadable, node):
            self.filed.append((loadable.files, node.GetName()))

    module = ModuleType("DICOMLib")
    module.DICOMPlugin, module.DICOMLoadable = Plugin, SimpleNamespace
    monkeypatch.setitem(sys.modules, "DICOMLib", module)
    monkeypatch.setattr(slicer, "modules", SimpleNamespace(), raising=False)
    return slicer.modules


def test_the_module_dicom_finds_and_loads_every_object(
    slicer, scene, scans, tmp_path, dicom_module, monkeypatch
):
    from RetRegLib.dicom_plugin import NAME, offer_plugin

    paths = written(tmp_path, *scans, an_affine())
    monkeypatch.setattr(slicer, "dicomDatabase", Database(*scans, *paths.values()), raising=False)
    offer_plugin()
    plugin = dicom_module.dicomPlugins[NAME]()
    files = [str(path) for path in paths.values()]
    loadables = plugin.examineForImport([files, [str(scans[0] / "0.dcm")]])
    named = {Path(each.files[0]).name for each in loadables}
    assert named == {"registration.dcm", "fiducials.dcm"}
    for loadable in loadables:
        assert loadable.selected
        assert loadable.confidence > 0.9
        assert plugin.load(loadable)
    assert len(plugin.filed) == 3
    assert scene.GetNumberOfNodesByClass("vtkMRMLLinearTransformNode") == 1
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 2
