"""Ways of looking at a registration in the slice views."""

from __future__ import annotations

from dataclasses import dataclass

from RetRegLib.nodes import Node

_LAYERS = ("Background", "Foreground", "Label")


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


def _views(scene: Node) -> list[Node]:
    kind = "vtkMRMLSliceCompositeNode"
    return [scene.GetNthNodeByClass(n, kind) for n in range(scene.GetNumberOfNodesByClass(kind))]
