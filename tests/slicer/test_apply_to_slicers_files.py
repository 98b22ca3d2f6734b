"""`retreg apply` on files that Slicer itself wrote, read by Slicer again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vtk

from retreg.files import read_transform, write_transform
from retreg.geometry import Grid
from retreg.transforms import Affine, ThinPlateSpline
from retreg_server.cli import main

RAS = np.array([-1.0, -1, 1])


@pytest.mark.parametrize("ending", ["h5", "tfm"])
def test_a_spline_that_slicer_saved_moves_points_as_in_slicer(
    scene: Any, slicer: Any, tmp_path: Path, ending: str
) -> None:
    rng = np.random.default_rng(0)
    fixed = rng.uniform(0, 50, (8, 3))
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    for points, put in ((fixed, spline.SetSourceLandmarks),
                        (fixed + rng.normal(size=(8, 3)), spline.SetTargetLandmarks)):  # fmt: skip
        landmarks = vtk.vtkPoints()
        for point in points:
            landmarks.InsertNextPoint(point)
        put(landmarks)
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode")
    node.SetAndObserveTransformFromParent(spline)
    storage = scene.AddNode(slicer.vtkMRMLTransformStorageNode())
    storage.SetFileName(str(tmp_path / f"spline.{ending}"))
    assert storage.WriteData(node)
    found = read_transform(tmp_path / f"spline.{ending}")
    assert isinstance(found, ThinPlateSpline)
    points = rng.uniform(0, 50, (20, 3))
    expected = [spline.TransformPoint(point) for point in points]
    np.testing.assert_allclose(found(points * RAS) * RAS, expected, atol=1e-9)


@pytest.mark.parametrize("count", [3, 6])
def test_a_sequence_that_slicer_saved_is_one_for_slicer_again(
    scene: Any, slicer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.chdir(tmp_path)
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode")
    for n in range(count):
        volume = slicer.vtkMRMLScalarVolumeNode()
        voxels = vtk.vtkImageData()
        voxels.SetDimensions(4, 5, 6)
        voxels.AllocateScalars(vtk.VTK_SHORT, 1)
        voxels.GetPointData().GetScalars().Fill(n + 1)
        volume.SetAndObserveImageData(voxels)
        volume.SetSpacing(1, 2, 3)
        volume.SetOrigin(7, 8, 9)
        sequence.SetDataNodeAtValue(volume, str(n / 2))
    storage = scene.AddNode(slicer.vtkMRMLVolumeSequenceStorageNode())
    storage.SetFileName("m.seq.nrrd")
    assert storage.WriteData(sequence)
    write_transform("t.h5", Affine.identity(), Grid((4, 5, 6), np.eye(4)))
    words = ["t.h5", "--like", "m.seq.nrrd", "m.seq.nrrd", "-o", "w.seq.nrrd"]
    assert main(["apply", *words]) == 0
    again = scene.AddNewNodeByClass("vtkMRMLSequenceNode")
    storage.SetFileName("w.seq.nrrd")
    assert storage.ReadData(again)
    assert again.GetNumberOfDataNodes() == count
    for n in range(count):
        assert again.GetNthIndexValue(n) == sequence.GetNthIndexValue(n)
        found = again.GetNthDataNode(n)
        assert found.GetImageData().GetScalarRange() == (n + 1, n + 1)
        np.testing.assert_allclose(found.GetOrigin(), (7, 8, 9))
