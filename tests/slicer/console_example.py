"""Two files in, nodes out: what one types into Slicer's Python console.

In Slicer, logic is slicer.util.getModuleLogic("RetReg"); here a script without the application.
"""

# ruff: noqa: T201

from __future__ import annotations

from pathlib import Path

import slicer


def load(path: Path, kind: str = "vtkMRMLScalarVolumeNode"):
    """A volume node from a file; in Slicer: slicer.util.loadVolume(path)."""
    node = slicer.mrmlScene.AddNewNodeByClass(kind, path.stem)
    storage = node.CreateDefaultStorageNode()
    storage.SetFileName(str(path))
    storage.ReadData(node)
    return node


def main(logic, fixed_path: Path, moving_path: Path):
    """Register two files; the nodes are in the scene afterwards."""
    fixed, moving = load(fixed_path), load(moving_path)

    outcome = logic.register(fixed, moving, model="auto-brain", transform="affine", progress=print)

    print(outcome.result.quality.verdict, "-", outcome.result.quality.reason)
    print(slicer.util.arrayFromTransformMatrix(outcome.transform))  # moving to fixed, RAS
    print(slicer.util.arrayFromMarkupsControlPoints(outcome.fixed_keypoints)[:3])
    storage = outcome.warped.CreateDefaultStorageNode()  # in Slicer: slicer.util.exportNode
    storage.SetFileName(str(moving_path.with_name("warped.nrrd")))
    storage.WriteData(outcome.warped)
    return outcome
