"""Ways of looking at a registration in the slice views."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import vtk

from retreg.geometry import Grid
from RetRegLib.scene.nodes import Node, flipped
from RetRegLib.scene.volumes import grid_of_volume

Deformation = Literal["grid", "glyph"]

_LAYERS = ("Background", "Foreground", "Label")
_LINES = 24  # of the grid, or arrows, along the longest side of the image
_ARROW = 2.0  # length of the longest one, in distances between them


@dataclass(frozen=True)
class SliceViewState:
    """What the slice views of a scene show."""

    shown: tuple[tuple[Node, tuple[str | None, ...], float], ...]

    @classmethod
    def of(cls, scene: Node) -> SliceViewState:
        """As it is now."""
        return cls(
            tuple(
                (
                    view,
                    tuple(_volume(view, layer) for layer in _LAYERS),
                    view.GetForegroundOpacity(),
                )
                for view in _views(scene)
            )
        )

    def but_overlays(self, fixed: Node, moving: Node) -> SliceViewState:
        """Without the views that show these two already, as after an earlier registration."""
        overlay = (fixed.GetID(), moving.GetID())
        return SliceViewState(tuple(view for view in self.shown if view[1][:2] != overlay))

    def restore(self, instead_of: Collection[str] | None = None) -> None:
        """Show it again; instead_of: only in views that show no volumes but those of these IDs."""
        for view, volumes, opacity in self.shown:
            scene = view.GetScene()
            shown = {_volume(view, layer) for layer in _LAYERS} - {None}
            if scene is None or (instead_of is not None and not shown <= set(instead_of)):
                continue
            for layer, volume in zip(_LAYERS, volumes, strict=True):
                there = volume is not None and scene.GetNodeByID(volume) is not None
                getattr(view, f"Set{layer}VolumeID")(volume if there else None)
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
    display.SetVisualizationMode(display.VIS_MODE_GRID if how == "grid" else display.VIS_MODE_GLYPH)
    display.SetAndObserveRegionNode(fixed)
    grid = grid_of_volume(fixed)
    step = float((grid.spacing * grid.size).max()) / _LINES
    display.SetGridSpacingMm(step)
    display.SetGridResolutionMm(step / 4)
    display.SetGlyphSpacingMm(step)
    longest = _longest(transform, grid)
    display.SetGlyphDisplayRangeMinMm(0.0)
    display.SetGlyphDisplayRangeMaxMm(1.1 * longest)
    display.SetGlyphScalePercent(100 * min(1.0, _ARROW * step / max(longest, 1e-9)))


def _longest(transform: Node, grid: Grid) -> float:
    """The largest displacement in mm that a transform node makes at a few places of a grid."""
    world = vtk.vtkGeneralTransform()
    transform.GetTransformFromWorld(world)
    points = flipped(grid.coarsened(max(1, max(grid.size) // 8)).lattice())
    moved = np.array([world.TransformPoint(point) for point in points])
    return float(np.linalg.norm(moved - points, axis=1).max())


def _volume(view: Node, layer: str) -> str | None:
    """The identity of the volume in a layer of a slice view, unless it has gone."""
    volume: str | None = getattr(view, f"Get{layer}VolumeID")()
    return volume if volume and view.GetScene().GetNodeByID(volume) is not None else None


def _views(scene: Node) -> list[Node]:
    return _all(scene, "vtkMRMLSliceCompositeNode")


def _all(scene: Node, kind: str) -> list[Node]:
    return [scene.GetNthNodeByClass(n, kind) for n in range(scene.GetNumberOfNodesByClass(kind))]
