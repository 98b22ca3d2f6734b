"""A logic with a real server whose model is obedient, and volumes to register."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "serving"))

from obedient import Server, start
from obedient_server import TOKEN
from watching import a_volume


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    server = start(tmp_path_factory.mktemp("obedient"))
    yield server
    server.process.stop()


@pytest.fixture
def new_logic(scene):
    """Makes a logic that uses the server at an address."""
    assert scene
    from RetRegLib.logic import Registration
    from RetRegLib.server.connection import Connection

    return lambda url: Registration(connection=Connection(url, TOKEN))


@pytest.fixture
def logic(new_logic, server) -> Any:
    return new_logic(server.url)


@pytest.fixture(scope="session")
def seeds() -> Iterator[int]:
    """Another one for each volume, so that the server has not seen it yet."""
    return itertools.count(1000)


@pytest.fixture
def nodes(scene, slicer, seeds) -> tuple[Any, Any]:
    """A fixed and a moving volume, each with a file; the moving one under a transform."""
    pair = tuple(a_volume(scene, name, next(seeds)) for name in ("fixed", "moving"))
    for node in pair:
        storage = node.CreateDefaultStorageNode()
        scene.AddNode(storage)
        storage.SetFileName(f"somewhere/{node.GetName()}.nrrd")
        node.SetAndObserveStorageNodeID(storage.GetID())
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "parent")
    matrix = slicer.util.vtkMatrixFromArray(np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 4)
    parent.SetMatrixTransformToParent(matrix)
    pair[1].SetAndObserveTransformNodeID(parent.GetID())
    return pair
