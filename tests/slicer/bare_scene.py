"""A real MRML scene without the application: what slicer-core offers, put where Slicer has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

LOGICS = {
    "Markups": "vtkSlicerMarkupsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
}


@contextmanager
def bare_scene(slicer: Any) -> Iterator[tuple[Any, Any]]:
    """An empty scene and the application's logic, with the logics that modules would add.

    Meanwhile slicer.mrmlScene is the scene, and slicer.app has the application's logic.
    """
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
    yield scene, application
    scene.Clear(1)
    del slicer.mrmlScene, slicer.app
