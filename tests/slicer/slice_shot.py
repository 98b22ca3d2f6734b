"""Pictures of real slice views without the application: MRML's own displayable managers, offscreen.

shot = SliceShot(scene, application)
shot.save("axial.png", background=fixed, foreground=moving, opacity=0.5)
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

MANAGERS = (
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLTransformsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
)


class SliceShot:
    """One slice view of a scene."""

    def __init__(self, scene: Any, application: Any, size: tuple[int, int] = (480, 480)) -> None:
        self.scene, self.size = scene, size
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(application)
        self.logic.SetMRMLScene(scene)
        self.logic.AddSliceNode("Red")
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.SetSize(*size)
        self.interactor = vtk.vtkGenericRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.renderer = vtk.vtkRenderer()
        self.renderer.GradientBackgroundOff()
        self.window.AddRenderer(self.renderer)
        self.actor = vtk.vtkActor2D()
        self.mapper = vtk.vtkImageMapper()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        self.actor.SetMapper(self.mapper)
        self.actor.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(self.actor)
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.SetRenderer(self.renderer)
        self.managers = []
        for name in MANAGERS:
            manager = getattr(slicer, name)()
            manager.SetMRMLApplicationLogic(application)
            self.group.AddDisplayableManager(manager)
            self.managers.append(manager)
        node = self.logic.GetSliceNode()
        node.SetDimensions(*size, 1)
        self.group.SetMRMLDisplayableNode(node)

    def __enter__(self) -> SliceShot:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.group.SetMRMLDisplayableNode(None)
        self.window.Finalize()

    def pixels(
        self,
        background: Any,
        foreground: Any = None,
        opacity: float = 0.5,
        orientation: str = "Axial",
        zoom: float = 1.0,
    ) -> np.ndarray:
        """(rows, columns, 3) 8 bits: what the view shows, row 0 on top."""
        node, composite = self.logic.GetSliceNode(), self.logic.GetSliceCompositeNode()
        composite.SetBackgroundVolumeID(background.GetID())
        composite.SetForegroundVolumeID(None)
        node.SetOrientation(orientation)
        node.SetDimensions(*self.size, 1)
        self.logic.FitSliceToBackground(*self.size)
        width, height, depth = node.GetFieldOfView()
        node.SetFieldOfView(width / zoom, height / zoom, depth)
        node.UpdateMatrices()
        composite.SetForegroundVolumeID(foreground.GetID() if foreground is not None else None)
        composite.SetForegroundOpacity(opacity)
        self.mapper.SetInputConnection(self.logic.GetImageDataConnection())
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        image = grab.GetOutput()
        columns, rows, _ = image.GetDimensions()
        values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
        return values.reshape(rows, columns, -1)[::-1, :, :3].copy()

    def save(self, path: Path | str, **what: Any) -> np.ndarray:
        """Write the picture as PNG; see pixels."""
        from PIL import Image

        pixels = self.pixels(**what)
        Image.fromarray(pixels).save(path)
        return pixels
