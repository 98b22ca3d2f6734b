"""From files to nodes: the server as the button starts it, real models, a real scene.

Errors are those of the transform node as Slicer maps points with it, against landmarks or a known
truth.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retreg import Grid, Image, read_image, write_image
from retreg_server.phantoms.fundus import make_fundus_pair
from retreg_server.phantoms.head import make_head_pair

EXAMPLE = Path(__file__).with_name("console_example.py")
FLIP = np.array([-1.0, -1.0, 1.0])  # LPS and RAS


@pytest.fixture(scope="module")
def local_server(slicer, tmp_path_factory) -> Iterator[Any]:
    assert slicer
    from RetRegLib.server.local_server import LocalServer

    server = LocalServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def logic(scene, local_server) -> Any:
    assert scene
    from RetRegLib.logic import Registration

    logic = Registration()
    logic.local_server = local_server
    logic.start_local_server()
    return logic


@pytest.fixture
def node_of(scene):
    """Makes a volume node of an image."""
    from RetRegLib.scene.volumes import volume_from_image

    return lambda image, name: volume_from_image(image, name, scene)


def mapped(node: Any, points: np.ndarray) -> np.ndarray:
    """Where a transform node takes points (n, 3) of the fixed world, LPS mm."""
    from_parent = node.GetTransformFromParent()
    return np.array([from_parent.TransformPoint(point) for point in points * FLIP]) * FLIP


def errors(outcome: Any, fixed_points: np.ndarray, moving_points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(mapped(outcome.transform, fixed_points) - moving_points, axis=1)


def test_the_console_example_takes_two_files_to_nodes(logic, tmp_path, capsys):
    lines = EXAMPLE.read_text("utf-8").splitlines()
    assert len(lines) <= 40
    spec = importlib.util.spec_from_file_location("console_example", EXAMPLE)
    assert spec is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    pair = make_head_pair(seed=4, rotation_deg=60.0, spacing_mm=3.0)
    paths = tmp_path / "t1.nrrd", tmp_path / "t2.nrrd"
    for image, path in zip((pair.fixed, pair.moving), paths, strict=True):
        write_image(path, image)

    outcome = example.main(logic, *paths)

    scene = outcome.fixed.GetScene()
    assert errors(outcome, pair.landmarks, pair.truth(pair.landmarks)).mean() < 1.5
    assert outcome.transform.IsA("vtkMRMLLinearTransformNode")
    assert outcome.moving.GetTransformNodeID() == outcome.transform.GetID()
    warped = read_image(tmp_path / "warped.nrrd")
    assert warped.grid.size == pair.fixed.grid.size
    assert json.loads(outcome.provenance.GetText())["model"] == "auto-brain"
    assert "accept" in capsys.readouterr().out
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 2


def test_a_made_up_eye_in_colour_and_with_dye(logic, node_of):
    pair = make_fundus_pair(seed=4, size=512, rotation_deg=40.0, elastic_px=1.0)
    nodes = node_of(pair.fixed, "colour"), node_of(pair.moving, "angiogram")
    assert nodes[0].IsA("vtkMRMLVectorVolumeNode")
    outcome = logic.register(*nodes, transform="tps", smoothing=0.1)
    assert errors(outcome, pair.landmarks, pair.truth(pair.landmarks)).mean() < 1.5
    assert outcome.transform.GetTransformFromParent().IsA("vtkThinPlateSplineTransform")


def test_a_real_fundus_pair_of_colour_and_angiography(logic, node_of, retreg_data):
    folder = retreg_data / "retina" / "multimodal_landmark_pairs"
    table = np.loadtxt(folder / "024_landmarks.csv", delimiter=",", skiprows=2)
    fixed, moving = (np.pad(table[:, n : n + 2], ((0, 0), (0, 1))) for n in (0, 2))
    images = [read_image(folder / f"024_{role}.png") for role in ("fixed", "moving")]
    nodes = [node_of(image, f"{n}") for n, image in enumerate(images)]
    outcome = logic.register(*nodes)
    per_mille = 1000 / max(images[0].grid.size)  # the points were set by hand, to a few pixels
    assert np.median(errors(outcome, fixed, moving)) * per_mille < 8
    assert np.median(np.linalg.norm(fixed - moving, axis=1)) * per_mille > 16  # it was needed


def test_a_real_brain_pair_of_t1_and_t2_turned_by_a_known_angle(logic, node_of, retreg_data):
    folder = retreg_data / "brain" / "openms_mni"
    fixed, aligned = (read_image(folder / f"patient07_{kind}.nii.gz") for kind in ("T1", "T2"))
    moving_from_fixed = rigid(np.array([1.0, 2.0, -1.0]), 70.0, (12.0, -9.0, 20.0))
    turned = Grid(aligned.grid.size, moving_from_fixed @ aligned.grid.world_from_index)
    nodes = node_of(fixed, "T1"), node_of(Image(aligned.array, turned), "T2")
    outcome = logic.register(*nodes, transform="rigid")
    points = inside(fixed)
    truth = points @ moving_from_fixed[:3, :3].T + moving_from_fixed[:3, 3]
    found = errors(outcome, points, truth)
    assert found.mean() < 1.0
    assert found.max() < 2.0


def rigid(axis: np.ndarray, degrees: float, shift: tuple[float, float, float]) -> np.ndarray:
    """Rodrigues' formula, and a shift in mm."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = shift
    return matrix


def inside(image: Image) -> np.ndarray:
    """World points (n, 3) of some voxels that show something."""
    k, j, i = np.nonzero(image.array[0] > 0)
    index = np.stack([i, j, k, np.ones_like(i)])[:, ::5000]
    return (image.grid.world_from_index @ index)[:3].T
