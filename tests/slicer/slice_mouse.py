"""The mouse in a slice view: events go through Slicer's own interaction style and widgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slice_shot import SliceShot


class SliceMouse:
    """Moves and presses the left button at places of the world (LPS mm)."""

    def __init__(self, shot: SliceShot) -> None:
        self._shot = shot
        self._quiet = vtk.vtkInteractorStyleUser()  # in place of one that moves the camera
        shot.interactor.SetInteractorStyle(self._quiet)
        self._style = slicer.vtkMRMLSliceViewInteractorStyle()
        self._style.SetSliceLogic(shot.logic)
        self._style.SetDisplayableManagers(shot.group)
        self._style.SetInteractor(shot.interactor)
        shot.interactor.Initialize()

    def move(self, world: np.ndarray) -> None:
        self._send(world, "MouseMoveEvent")

    def press(self, world: np.ndarray) -> None:
        self.move(world)
        self._send(world, "LeftButtonPressEvent")

    def release(self, world: np.ndarray) -> None:
        self._send(world, "LeftButtonReleaseEvent")

    def _send(self, world: np.ndarray, event: str) -> None:
        display_from_ras = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self._shot.logic.GetSliceNode().GetXYToRAS(), display_from_ras)
        x, y, z = world
        place: Any = display_from_ras.MultiplyPoint((-x, -y, z, 1))
        self._shot.interactor.SetEventInformation(round(place[0]), round(place[1]), 0, 0)
        self._shot.interactor.InvokeEvent(event)
        self._shot.window.Render()
