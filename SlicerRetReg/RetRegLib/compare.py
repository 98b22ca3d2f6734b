"""Ways of looking at a registration in the slice views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from RetRegLib.nodes import Node
from RetRegLib.volumes import grid_of_volume

Deformation = Literal["grid", "glyph", "contour"]

_LAYERS = ("Background", "Foreground", "Label")
_LINES = 24  # of the grid, along the longest side of the image


@dataclass(frozen=True)
class Views:
    """What the slice views of a scene show."""

    shown: tuple[tuple[Node, tuple[str | None, ...], float], ...]

    @classmethod
    def of(cls, scene: Node) -> Views:
        """As it is now."""
        return cls(
            tuple(
                (
                    view,
                    tuple(getattr(view, f"Get{layer}VolumeID")() for layer in _LAYERS),
                    view.GetForegroundOpacity(),
                )
                for view in _views(scene)
            )
        )

    def restore(self) -> None:
        """Show it again."""
        for view, volumes, opacity in self.shown:
            for layer, volume in zip(_LAYERS, volumes, strict=True):
                getattr(view, f"Set{layer}VolumeID")(volume)
            view.SetForegroundOpacity(opacity)


def show_overlay(fixed: Node, moving: Node, opacity: float = 0.5) -> None:
    """The fixed volume behind the moving one in every slice view; opacity from 0 to 1."""
    for view in _views(fixed.GetScene()):
        view.SetBackgroundVolumeID(fixed.GetID())
        view.SetForegroundVolumeID(moving.GetID())
        view.SetForegroundOpacity(opacity)


def show_side_by_side(fixed: Node, moving: Node) -> None:
    """The fixed volume in the left one of two equal views, the moving one in the other."""
    scene = fixed.GetScene()
    for layout in _all(scene, "vtkMRMLLayoutNode"):
        layout.SetViewArrangement(layout.SlicerLayoutSideBySideView)
    for view in _views(scene):
        left = view.GetLayoutName() == "Red"
        view.SetBackgroundVolumeID(fixed.GetID() if left else moving.GetID())
        view.SetForegroundVolumeID(None)
    for plane in _all(scene, "vtkMRMLSliceNode"):
        plane.RotateToVolumePlane(fixed)


def show_alone(volume: Node) -> None:
    """One volume in every slice view."""
    for view in _views(volume.GetScene()):
        view.SetBackgroundVolumeID(volume.GetID())
        view.SetForegroundVolumeID(None)


def show_deformation(transform: Node, fixed: Node, how: Deformation | None) -> None:
    """Draw what the transform does, as far as the fixed volume reaches; None: no longer."""
    if transform.GetDisplayNode() is None:
        transform.CreateDefaultDisplayNodes()
    display = transform.GetDisplayNode()
    display.SetVisibility(how is not None)
    display.SetVisibility2D(how is not None)
    if how is None:
        return
    modes = {
        "grid": display.VIS_MODE_GRID,
        "glyph": display.VIS_MODE_GLYPH,
        "contour": display.VIS_MODE_CONTOUR,
    }
    display.SetVisualizationMode(modes[how])
    display.SetAndObserveRegionNode(fixed)
    grid = grid_of_volume(fixed)
    step = float((grid.spacing * grid.size).max()) / _LINES
    display.SetGridSpacingMm(step)
    display.SetGlyphSpacingMm(step)
    display.SetGridResolutionMm(step / 4)


def _views(scene: Node) -> list[Node]:
    return _all(scene, "vtkMRMLSliceCompositeNode")


def _all(scene: Node, kind: str) -> list[Node]:
    return [scene.GetNthNodeByClass(n, kind) for n in range(scene.GetNumberOfNodesByClass(kind))]
