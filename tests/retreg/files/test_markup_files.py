"""Point lists in and out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retreg.errors import FileError
from retreg.files import read_markups, write_markups
from retreg.messages import Keypoints


def some_keypoints():
    points = np.array([[1.25, -2.5, 1e-7], [1000.123456789, 0, -3], [7, 8, 9]])
    return Keypoints(points, np.array([1.0, 1 / 3, 2e-9]), np.array([True, False, True]))


def test_keypoints_survive_exactly(tmp_path):
    write_markups(tmp_path / "a.mrk.json", some_keypoints())
    read = read_markups(tmp_path / "a.mrk.json")
    np.testing.assert_array_equal(read.points, some_keypoints().points)
    np.testing.assert_array_equal(read.weights, some_keypoints().weights)
    np.testing.assert_array_equal(read.inliers, some_keypoints().inliers)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mrk.json"]


def test_the_file_says_what_slicer_expects(tmp_path):
    write_markups(tmp_path / "a.mrk.json", some_keypoints())
    content = json.loads((tmp_path / "a.mrk.json").read_text())
    assert content["@schema"].endswith("markups-schema-v1.0.3.json#")
    (markup,) = content["markups"]
    assert (markup["type"], markup["coordinateSystem"]) == ("Fiducial", "LPS")
    points = markup["controlPoints"]
    assert [p["label"] for p in points] == ["1", "2", "3"]
    assert [p["selected"] for p in points] == [True, False, True]
    assert points[0]["position"] == [1.25, -2.5, 1e-7]
    assert points[1]["description"] == f"weight={1 / 3!r}"


def test_no_points_are_a_list_too(tmp_path):
    write_markups(tmp_path / "a.mrk.json", Keypoints(np.zeros((0, 3)), np.zeros(0), np.zeros(0)))
    assert len(read_markups(tmp_path / "a.mrk.json")) == 0


def test_ras_points_become_lps_and_a_missing_weight_is_1(tmp_path):
    markup = {
        "coordinateSystem": "RAS",
        "controlPoints": [
            {"position": [1, 2, 3]},
            {"position": [0, 0, 0], "positionStatus": "undefined"},
            {"position": [4, 5, 6], "selected": False, "description": "by hand, weight=0.5"},
        ],
    }
    (tmp_path / "a.mrk.json").write_text(json.dumps({"markups": [markup]}))
    read = read_markups(tmp_path / "a.mrk.json")
    np.testing.assert_array_equal(read.points, [[-1, -2, 3], [-4, -5, 6]])
    np.testing.assert_array_equal(read.weights, [1, 0.5])
    np.testing.assert_array_equal(read.inliers, [True, False])


@pytest.mark.parametrize(("system", "sign"), [("LPS", 1), ("1", 1), ("RAS", -1), ("0", -1)])
def test_the_older_text_format_is_read(tmp_path, system, sign):
    (tmp_path / "a.fcsv").write_text(
        "# Markups fiducial file version = 4.11\n"
        f"# CoordinateSystem = {system}\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
        'vtk_0,1.5,2,3,0,0,0,1,1,1,0,"F-1, disc",weight=0.25,\n'
        "vtk_1,4,5,6,0,0,0,1,1,0,0,F-2,,\n"
    )
    read = read_markups(tmp_path / "a.fcsv")
    np.testing.assert_array_equal(read.points, [[1.5 * sign, 2 * sign, 3], [4 * sign, 5 * sign, 6]])
    np.testing.assert_array_equal(read.weights, [0.25, 1])
    np.testing.assert_array_equal(read.inliers, [True, False])


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"\xff\xfe\x00",
        b'{"markups": []}',
        b'{"markups": [{"coordinateSystem": "XYZ", "controlPoints": []}]}',
        b'{"markups": [{"controlPoints": [{"position": [1, 2]}]}]}',
        b'{"markups": [{"controlPoints": [{"position": ["a", 2, 3]}]}]}',
        b"[" * 100_000,
        b"",
    ],
)
def test_what_is_not_a_point_list_is_refused(tmp_path, content):
    (tmp_path / "a.mrk.json").write_bytes(content)
    with pytest.raises(FileError, match=r"a\.mrk\.json"):
        read_markups(tmp_path / "a.mrk.json")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    (tmp_path / "a.mrk.json").write_text('{"markups":[{"controlPoints":[{"position":[1,2,NaN]}]}]}')
    with pytest.raises(Exception, match="finite"):
        read_markups(tmp_path / "a.mrk.json")


def test_slicer_reads_the_points_and_keeps_weight_and_state(tmp_path):
    slicer = pytest.importorskip("slicer", reason="needs the slicer-core package")
    write_markups(tmp_path / "a.mrk.json", some_keypoints())
    node = slicer.vtkMRMLScene().AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    storage = slicer.vtkMRMLMarkupsJsonStorageNode()
    storage.SetFileName(str(tmp_path / "a.mrk.json"))
    assert storage.ReadData(node)
    assert node.GetNumberOfControlPoints() == 3
    np.testing.assert_allclose(node.GetNthControlPointPosition(0), [-1.25, 2.5, 1e-7])
    assert node.GetNthControlPointLabel(1) == "2"
    assert [node.GetNthControlPointSelected(n) for n in range(3)] == [True, False, True]
    storage.SetFileName(str(tmp_path / "b.mrk.json"))
    assert storage.WriteData(node)
    again = read_markups(tmp_path / "b.mrk.json")
    np.testing.assert_allclose(again.points, some_keypoints().points, atol=1e-9)
    np.testing.assert_array_equal(again.weights, some_keypoints().weights)
    np.testing.assert_array_equal(again.inliers, some_keypoints().inliers)
