"""A sequence of volumes registered to one fixed volume: sequences of transforms and of volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import slicer
import vtk

from retreg.errors import Cancelled, InputError, RetRegError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import RegistrationResult
from retreg.progress import Progress
from retreg.resample import resample
from RetRegLib.jobs import counted
from RetRegLib.scene.transform_nodes import transform_node
from RetRegLib.scene.undo import all_or_nothing
from RetRegLib.scene.volumes import image_from_volume, is_label, volume_from_image

RegisterOne = Callable[[Image, Image, Progress | None], RegistrationResult]
Frame = RegistrationResult | RetRegError


@dataclass(frozen=True, eq=False)
class SequenceOutcome:
    """What came of a sequence.

    frames: result or error of each volume, in their order. transforms, warped: sequence nodes
    with the index values of the input, without those that failed. verdicts: table node with one
    row for each volume.
    """

    frames: tuple[Frame, ...]
    transforms: Any
    warped: Any
    verdicts: Any


def register_frames(
    fixed: Any, sequence: Any, register_one: RegisterOne, progress: Progress | None
) -> SequenceOutcome:
    """Register the volumes in a vtkMRMLSequenceNode, and make nodes of the results, or none.

    Raises InputError when it holds no volumes, the first error when all volumes fail, and
    Cancelled.
    """
    nodes = _volumes(sequence)
    image = image_from_volume(fixed)
    frames: list[Frame] = []
    for number, node in enumerate(nodes, 1):
        tell = counted(progress, "volume", number, len(nodes))
        try:
            frames.append(register_one(image, image_from_volume(node), tell))
        except Cancelled:
            raise
        except RetRegError as error:
            frames.append(error)
    errors = [frame for frame in frames if isinstance(frame, RetRegError)]
    if len(errors) == len(frames):
        raise errors[0]
    with all_or_nothing(fixed.GetScene()):
        return _nodes_of(tuple(frames), image.grid, fixed.GetScene(), sequence)


def _volumes(sequence: Any) -> list[Any]:
    count = sequence.GetNumberOfDataNodes() if sequence is not None else 0
    nodes = [sequence.GetNthDataNode(number) for number in range(count)]
    if not nodes or not all(node.IsA("vtkMRMLVolumeNode") for node in nodes):
        raise InputError("The sequence does not hold volumes; choose one of volumes.")
    return nodes


def _nodes_of(frames: Sequence[Frame], grid: Grid, scene: Any, sequence: Any) -> SequenceOutcome:
    scratch = slicer.vtkMRMLScene()  # a sequence keeps copies of the nodes it is given
    transforms, warped = _sequence(sequence, "transforms"), _sequence(sequence, "warped")
    good = [(n, frame) for n, frame in enumerate(frames) if isinstance(frame, RegistrationResult)]
    found = [transform_node(each.transform, "transform", scratch, grid) for _, each in good]
    for (number, result), node in zip(good, _of_one_class(found), strict=True):
        value, volume = sequence.GetNthIndexValue(number), sequence.GetNthDataNode(number)
        transforms.SetDataNodeAtValue(node, value)
        label = is_label(volume)
        voxels = resample(image_from_volume(volume), result.transform, grid, nearest=label)
        warped.SetDataNodeAtValue(volume_from_image(voxels, "warped", scratch, label), value)
    verdicts = _table(frames, sequence)
    for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode", scene):
        if browser.IsSynchronizedSequenceNode(sequence, True):
            browser.AddSynchronizedSequenceNode(transforms)
            browser.AddSynchronizedSequenceNode(warped)
    return SequenceOutcome(tuple(frames), transforms, warped, verdicts)


def _sequence(original: Any, what: str) -> Any:
    """An empty sequence node with the kind of index of another one."""
    scene = original.GetScene()
    name = scene.GenerateUniqueName(f"{original.GetName()} {what}")
    node = scene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
    node.SetIndexName(original.GetIndexName())
    node.SetIndexUnit(original.GetIndexUnit())
    node.SetIndexType(original.GetIndexType())
    return node


def _of_one_class(nodes: list[Any]) -> list[Any]:
    """The nodes, or when their classes differ general ones: a player needs one class for all."""
    if len({node.GetClassName() for node in nodes}) == 1:
        return nodes
    general = []
    for node in nodes:
        each = slicer.vtkMRMLTransformNode()
        each.SetAndObserveTransformFromParent(node.GetTransformFromParent())
        general.append(each)
    return general


def _table(frames: Sequence[Frame], sequence: Any) -> Any:
    columns: dict[str, list[str]] = {
        sequence.GetIndexName() or "index": [],
        "verdict": [],
        "reason": [],
    }
    index, verdict, reason = columns.values()
    for number, frame in enumerate(frames):
        index.append(sequence.GetNthIndexValue(number))
        if isinstance(frame, RetRegError):
            verdict.append("fail")
            reason.append(str(frame))
        else:
            verdict.append(frame.quality.verdict)
            reason.append(frame.quality.reason)
    scene = sequence.GetScene()
    name = scene.GenerateUniqueName(f"{sequence.GetName()} verdicts")
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    for title, texts in columns.items():
        column = vtk.vtkStringArray()
        column.SetName(title)
        for text in texts:
            column.InsertNextValue(text)
        node.AddColumn(column)
    return node
