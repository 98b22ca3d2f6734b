"""A real MRML scene without the application: what slicer-core offers, put where Slicer has it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # for the modules that the tests here share

SLICER_MODULE = Path(__file__).parents[2] / "SlicerRetReg"
LOGICS = {
    "Markups": "vtkSlicerMarkupsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
}


@pytest.fixture(scope="session")
def slicer() -> Any:
    """The package slicer, with RetRegLib on the path as Slicer's loader puts it."""
    package = pytest.importorskip("slicer", reason="slicer-core is not installed")
    if str(SLICER_MODULE) not in sys.path:
        sys.path.append(str(SLICER_MODULE))
    return package


@pytest.fixture
def scene(slicer: Any) -> Iterator[Any]:
    """An empty scene with the logics that Slicer's modules would add; slicer.mrmlScene is it."""
    scene = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    application.GetColorLogic().SetMRMLScene(scene)
    application.GetColorLogic().AddDefaultColorNodes()
    kept = []  # the application logic holds its modules' logics by weak pointers only
    for name, kind in LOGICS.items():
        logic = getattr(slicer, kind)()
        logic.SetMRMLScene(scene)
        logic.SetMRMLApplicationLogic(application)
        application.SetModuleLogic(name, logic)
        kept.append(logic)
    slicer.mrmlScene = scene
    slicer.app = SimpleNamespace(applicationLogic=lambda: application)
    yield scene
    scene.Clear(1)
    del slicer.mrmlScene, slicer.app
