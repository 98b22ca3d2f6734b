"""Sequences of volumes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from documented import python_blocks
from watching import Untouched, a_volume

from retreg import Affine, Keypoints, RegistrationResult, ThinPlateSpline
from retreg.errors import InputError, RegistrationError
from retreg.quality import Quality


@pytest.fixture
def a_sequence(scene, slicer) -> Any:
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "movie")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s")
    scratch = slicer.vtkMRMLScene()
    for number in range(3):
        sequence.SetDataNodeAtValue(a_volume(scratch, "frame", 30 + number), f"{number * 0.5}")
    slicer.vtkSlicerSequencesLogic().SetMRMLScene(scene)  # makes the class of browsers known
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    return sequence


def test_a_sequence_becomes_sequences_with_the_same_index(logic, server, scene, a_sequence):
    from RetRegLib.scene.transform_nodes import transform_of
    from RetRegLib.scene.volumes import grid_of_volume

    fixed = a_volume(scene, "fixed", 60)
    before, told = server.puts, []
    outcome = logic.register_sequence(
        fixed, a_sequence, shift=4.0, progress=lambda *what: told.append(what)
    )
    assert server.puts - before == 4  # the fixed volume once
    values = ["0.0", "0.5", "1.0"]
    for sequence in (outcome.transforms, outcome.warped):
        assert [sequence.GetNthIndexValue(n) for n in range(3)] == values
        assert (sequence.GetIndexName(), sequence.GetIndexUnit()) == ("time", "s")
    for number in range(3):
        transform = transform_of(outcome.transforms.GetNthDataNode(number))
        assert np.allclose(transform([[0, 0, 0]]), [[4, 0, 0]], atol=1e-9)
        warped = grid_of_volume(outcome.warped.GetNthDataNode(number))
        assert np.allclose(warped.world_from_index, grid_of_volume(fixed).world_from_index)
    assert outcome.verdicts.GetNumberOfRows() == 3
    assert outcome.verdicts.GetCellText(2, 1) == "accept"
    assert any(stage.startswith("volume 3 of 3: ") for stage, _ in told)


def test_the_new_sequences_play_along_with_the_input(logic, nodes, a_sequence, scene):
    outcome = logic.register_sequence(nodes[0], a_sequence)
    browser = scene.GetFirstNodeByName("browser")
    assert browser.IsSynchronizedSequenceNode(outcome.transforms)
    assert browser.IsSynchronizedSequenceNode(outcome.warped)


def test_a_sequence_that_fails_leaves_nothing(logic, nodes, a_sequence, scene):
    with Untouched(scene, nodes), pytest.raises(RegistrationError, match="looks alike"):
        logic.register_sequence(nodes[0], a_sequence, kind="nothing")
    empty = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "empty")
    with Untouched(scene, nodes), pytest.raises(InputError, match="does not hold volumes"):
        logic.register_sequence(nodes[0], empty)


def test_volumes_of_a_sequence_that_fail_are_left_out(nodes, a_sequence):
    from RetRegLib.sequences import register_frames

    calls = []

    def register_one(_fixed, moving, _tell):
        calls.append(moving)
        if len(calls) == 2:
            raise RegistrationError("Nothing looks alike.")
        none = Keypoints(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool))
        return RegistrationResult(Affine.identity(), none, none, Quality({}, "check", "So."), {})

    outcome = register_frames(nodes[0], a_sequence, register_one, None)
    values = [outcome.transforms.GetNthIndexValue(n) for n in range(2)]
    assert values == ["0.0", "1.0"]
    assert outcome.warped.GetNumberOfDataNodes() == 2
    assert outcome.verdicts.GetCellText(1, 1) == "fail"
    assert outcome.verdicts.GetCellText(1, 2) == "Nothing looks alike."
    assert isinstance(outcome.frames[1], RegistrationError)


def test_transforms_of_different_kinds_become_nodes_of_one_class(nodes, a_sequence):
    from RetRegLib.scene.transform_nodes import transform_of
    from RetRegLib.sequences import register_frames

    corners = np.array([[x, y, z] for x in (0.0, 20) for y in (0.0, 15) for z in (0.0, 30)])
    bent = corners + np.sin(corners / 9)
    shift = np.eye(4)
    shift[0, 3] = 5.0
    transforms = [Affine(shift), ThinPlateSpline(corners, bent, 0.0), Affine.identity()]
    waiting = iter(transforms)

    def register_one(_fixed, _moving, _tell):
        none = Keypoints(np.zeros((0, 3)), np.zeros(0), np.zeros(0, bool))
        return RegistrationResult(next(waiting), none, none, Quality({}, "check", "So."), {})

    made = register_frames(nodes[0], a_sequence, register_one, None).transforms
    assert {made.GetNthDataNode(n).GetClassName() for n in range(3)} == {"vtkMRMLTransformNode"}
    points = np.random.default_rng(0).uniform(0, 15, (20, 3))
    for number, transform in enumerate(transforms):
        found = transform_of(made.GetNthDataNode(number))(points)
        assert np.allclose(found, transform(points), atol=1e-6)


def test_the_console_lines_of_the_documentation_run_as_written(
    logic, scene, slicer, a_sequence, seeds, monkeypatch
):
    """The page's lines, with a server that runs already and volumes under the names they use."""
    names = ("HeadT1", "HeadT2", "Visit1", "Visit2")
    nodes = {name: a_volume(scene, name, next(seeds)) for name in names}
    begun = []
    monkeypatch.setattr(type(logic), "start_local_server", lambda _: None)
    monkeypatch.setattr(type(logic), "register_async", lambda *_, **more: begun.append(more))
    util = SimpleNamespace(
        getModuleLogic={"RetReg": logic}.get,
        getNode={**nodes, "Sequence": a_sequence}.get,
        getNodes=lambda _: {name: nodes[name] for name in names[2:]},
        arrayFromTransformMatrix=slicer.util.arrayFromTransformMatrix,
    )
    ran = {"slicer": SimpleNamespace(util=util)}
    for text in python_blocks("slicer.md"):
        exec(text, ran)
    assert ran["outcome"].result.quality.verdict == "accept"
    begun[0]["on_done"](ran["outcome"])  # a line of its own prints a name of the outcome
    assert all(nodes[name].GetTransformNodeID() for name in names[1:])
