"""One registration in the scene: nodes for all that came back, in one folder.

The moving volume and its keypoints lie under the transform, so both follow when it changes; the
coordinates of the moving keypoints are those of the moving image as it was registered. What belongs
to the moving image, such as its segmentations, can go along. Removing the folder, or the transform
alone, puts everything back where it was. Several results can be there; one of them moves the image.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import slicer

from retreg.geometry import Grid
from retreg.messages import RegistrationResult
from RetRegLib.scene.correspondences import correspondences_node, fill_correspondences, residuals
from RetRegLib.scene.folders import file_node, hierarchy_of, items_below
from RetRegLib.scene.markups import MOVING_LOOK, fill_markups, markups_from_keypoints
from RetRegLib.scene.nodes import Node, parents
from RetRegLib.scene.output_nodes import OutputNodes, check_companions, check_output_nodes
from RetRegLib.scene.placement import (
    Placement,
    PlacementObserver,
    disregarded,
    mark_result,
    place_under,
)
from RetRegLib.scene.records import record_outcome
from RetRegLib.scene.reports import fill_metrics, fill_provenance, provenance_of
from RetRegLib.scene.slice_views import SliceViewState, show_overlay
from RetRegLib.scene.transform_nodes import transform_node, transform_of, update_transform_node
from RetRegLib.scene.undo import Undo, all_or_nothing
from RetRegLib.scene.volumes import (
    copy_display,
    fill_volume,
    grid_of_volume,
    is_label,
    volume_from_image,
    warped_image,
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """A result and the nodes that show it.

    folder: its item in the subject hierarchy. carrier: what the transform node holds for it.
    caretaker: tidies up when nodes are removed. also: what goes along with the moving image.
    """

    result: RegistrationResult
    folder: int
    transform: Node
    fixed_keypoints: Node
    moving_keypoints: Node
    lines: Node
    warped: Node
    metrics: Node
    provenance: Node
    fixed: Node
    moving: Node
    carrier: Any = None
    caretaker: PlacementObserver | None = None
    also: tuple[Node, ...] = ()

    @property
    def made(self) -> tuple[Node, ...]:
        """The nodes of the result, without the images that were registered."""
        return (
            self.transform,
            self.fixed_keypoints,
            self.moving_keypoints,
            self.lines,
            self.warped,
            self.metrics,
            self.provenance,
        )

    @property
    def fixed_grid(self) -> Grid:
        """Where the voxels of the fixed image lie in the world."""
        return grid_of_volume(self.fixed)

    @property
    def is_edited(self) -> bool:
        """Whether the transform is no longer the one of the result."""
        return self.transform.GetTransformFromParent() is not self.carrier

    @property
    def is_shown(self) -> bool:
        """Whether this result moves the moving image, and none that was put on top of it."""
        on_top = disregarded(self.transform, None, False)
        return self.transform in parents(self.moving) and on_top is None

    def restore_transform(self) -> None:
        """Set the transform of the result again."""
        self.transform.SetAndObserveTransformFromParent(self.carrier)

    def adopt(self, node: Node) -> None:
        """Let another node, made later, live and go with this outcome."""
        file_node(hierarchy_of(node.GetScene()), self.folder, node, Undo(node.GetScene()))
        if self.caretaker is not None:
            self.caretaker.watch(node)


def show_outcome(
    result: RegistrationResult,
    fixed: Node,
    moving: Node,
    wanted: OutputNodes | None = None,
    also: Sequence[Node] = (),
    on_top: bool = False,
) -> Outcome:
    """Put a result into the scene of the fixed volume: all of it or, when it fails, nothing.

    fixed, moving: the volume nodes that were registered. When the moving volume already lies under
    wanted.transform, that one is replaced, and the result refers to what lies below it. So it does
    below an earlier result, unless the new one goes on_top. also: nodes that go with the moving
    volume.
    Raises InputError when the nodes cannot be used.
    """
    wanted = wanted or OutputNodes()
    below = disregarded(moving, wanted.transform, on_top)
    check_output_nodes(wanted, fixed, moving, below)
    check_companions(also, fixed)
    scene = fixed.GetScene()
    with all_or_nothing(scene) as undo:
        views = SliceViewState.of(scene)
        undo.later(views.restore)
        builder = _Builder(result, fixed, moving, wanted, undo, below, tuple(also), on_top)
        outcome = builder.build(views)
        show_overlay(fixed, moving)
    return outcome


def remove_outcome(outcome: Outcome) -> None:
    """Remove all nodes of a result; the moving volume returns to where it was."""
    scene = outcome.fixed.GetScene() or outcome.transform.GetScene()
    if scene is None:
        return
    hierarchy = hierarchy_of(scene)
    if outcome.folder in items_below(hierarchy, hierarchy.GetSceneItemID()):
        for item in items_below(hierarchy, outcome.folder):
            node = hierarchy.GetItemDataNode(item)
            hierarchy.RemoveItem(item, False, False)  # outside the application it would stay
            if node is not None:
                scene.RemoveNode(node)
        hierarchy.RemoveItem(outcome.folder, False, False)
    for node in outcome.made:  # what people have moved to another folder
        if node.GetScene() is not None:
            scene.RemoveNode(node)


def warp_again(outcome: Outcome) -> None:
    """Resample the moving volume with the transform as it is now, after it was edited."""
    transform = transform_of(outcome.transform) if outcome.is_edited else outcome.result.transform
    above = outcome.transform if outcome.is_shown else disregarded(outcome.moving, None, False)
    image = warped_image(outcome.fixed, outcome.moving, transform, above)
    fill_volume(outcome.warped, image)


class _Builder:
    """Makes or fills the nodes of one outcome."""

    def __init__(
        self,
        result: RegistrationResult,
        fixed: Node,
        moving: Node,
        wanted: OutputNodes,
        undo: Undo,
        below: Node | None,
        also: tuple[Node, ...],
        on_top: bool,
    ) -> None:
        self.result, self.fixed, self.moving = result, fixed, moving
        self.wanted, self.undo, self.below = wanted, undo, below
        self.also, self.on_top = also, on_top
        self.scene = fixed.GetScene()
        self.grid = grid_of_volume(fixed)
        self.title = f"{moving.GetName()} to {fixed.GetName()}"

    def build(self, views: SliceViewState) -> Outcome:
        """All nodes, with the moving volume under the transform."""
        warped = self._warped()
        transform = self._transform()
        placements = self._placed_under(transform)
        fixed_points, moving_points = self._points(transform)
        made = {
            "transform": transform,
            "fixed_keypoints": fixed_points,
            "moving_keypoints": moving_points,
            "lines": self._lines(),
            "warped": warped,
            "metrics": self._metrics(),
            "provenance": self._provenance(),
        }
        registered = {self.fixed.GetID(), self.moving.GetID()}
        earlier = views.but_overlays(self.fixed, self.moving)

        def show_again(made: Collection[str]) -> None:
            earlier.restore(registered.union(made))

        nodes = tuple(made.values())
        caretaker = PlacementObserver(self.scene, transform, placements, nodes, show_again)
        self.undo.later(caretaker.retire)
        folder = self._folder(nodes)
        carrier = transform.GetTransformFromParent()
        images = {"fixed": self.fixed, "moving": self.moving}
        record_outcome(self.result, {**made, **images}, placements, self.also)
        kept = {"carrier": carrier, "caretaker": caretaker, "also": self.also}
        return Outcome(self.result, folder, **images, **made, **kept)

    def _placed_under(self, transform: Node) -> list[Placement]:
        """The moving volume and what goes with it, each put under the transform once."""
        placements = [place_under(transform, self.moving, self.fixed, self.undo, self.below)]
        for node in self.also:
            if transform not in parents(node):  # with the moving volume, below the same parent
                below = disregarded(node, self.wanted.transform, self.on_top)
                placements.append(place_under(transform, node, self.fixed, self.undo, below))
        return placements

    def _name(self, what: str) -> str:
        return str(self.scene.GenerateUniqueName(f"{self.title} {what}"))

    def _transform(self) -> Node:
        node = self.wanted.transform
        if node is None:
            node = transform_node(
                self.result.transform, self._name("transform"), self.scene, self.grid
            )
        else:
            self.undo.content_of(node)
            self.undo.parent_of(node)
            node.SetAndObserveTransformNodeID(None)
            update_transform_node(node, self.result.transform, self.grid)
        mark_result(node)
        kind = slicer.vtkMRMLTransformNode
        for role, image in (
            (kind.GetFixedNodeReferenceRole(), self.fixed),
            (kind.GetMovingNodeReferenceRole(), self.moving),
        ):
            former = node.GetNodeReferenceID(role)
            self.undo.later(partial(node.SetNodeReferenceID, role, former))
            node.SetNodeReferenceID(role, image.GetID())
        return node

    def _points(self, transform: Node) -> tuple[Node, Node]:
        fixed = self._list(self.wanted.fixed_keypoints, "fixed keypoints", fixed=True)
        moving = self._list(self.wanted.moving_keypoints, "moving keypoints", fixed=False)
        for node, parent in ((fixed, None), (moving, transform.GetID())):
            self.undo.parent_of(node)
            node.SetAndObserveTransformNodeID(parent)
        return fixed, moving

    def _list(self, node: Node | None, what: str, fixed: bool) -> Node:
        keypoints = self.result.fixed_keypoints if fixed else self.result.moving_keypoints
        if node is not None:
            self.undo.content_of(node)
            fill_markups(node, keypoints)
            return node
        if fixed:
            return markups_from_keypoints(keypoints, self._name(what), self.scene)
        return markups_from_keypoints(keypoints, self._name(what), self.scene, MOVING_LOOK)

    def _lines(self) -> Node:
        fixed, moving = self.result.fixed_keypoints, self.result.moving_keypoints
        node = correspondences_node(self._name("correspondences"), self.scene)
        left = residuals(self.result.transform, fixed.points, moving.points)
        fill_correspondences(node, fixed.points, moving.points, fixed.weights, left)
        return node

    def _warped(self) -> Node:
        """The moving image on the grid of the fixed one, beside it under the same parent."""
        parent = self.fixed.GetParentTransformNode()
        lattice = warped_image(self.fixed, self.moving, self.result.transform, self.below)
        node = self.wanted.warped
        if node is None:
            label = is_label(self.moving)
            node = volume_from_image(lattice, self._name("warped"), self.scene, label)
            copy_display(node, self.moving)
        else:
            self.undo.content_of(node)
            fill_volume(node, lattice)
            if node.GetDisplayNode() is None:
                node.CreateDefaultDisplayNodes()
        self.undo.parent_of(node)
        node.SetAndObserveTransformNodeID(parent.GetID() if parent is not None else None)
        return node

    def _metrics(self) -> Node:
        node = self.scene.AddNewNodeByClass("vtkMRMLTableNode", self._name("metrics"))
        fill_metrics(node, self.result.quality)
        return node

    def _provenance(self) -> Node:
        node = self.scene.AddNewNodeByClass("vtkMRMLTextNode", self._name("provenance"))
        fill_provenance(node, provenance_of(self.result, self.fixed, self.moving))
        return node

    def _folder(self, made: Sequence[Node]) -> int:
        hierarchy = hierarchy_of(self.scene)
        title = hierarchy.GenerateUniqueItemName(f"RetReg: {self.title}")
        folder = int(hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), title))
        self.undo.later(partial(hierarchy.RemoveItem, folder, False, False))
        for node in made:
            file_node(hierarchy, folder, node, self.undo)
        return folder
