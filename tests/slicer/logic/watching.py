"""What happens to a scene, and what the callbacks of a registration hear."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from retreg import Grid, Image
from retreg.errors import RetRegError


def a_volume(scene, name: str, seed: int, size: int = 12) -> Any:
    from RetRegLib.scene.volumes import volume_from_image

    array = np.random.default_rng(seed).integers(-900, 900, (1, size, size, size)).astype(np.int16)
    grid = Grid((size, size, size), np.diag([1.5, -1.0, 2.0, 1.0]))
    return volume_from_image(Image(array, grid), name, scene)


class Untouched:
    """The scene must be afterwards as it was before."""

    def __init__(self, scene: Any, nodes: tuple[Any, Any]) -> None:
        self._scene, self._nodes = scene, nodes

    def __enter__(self) -> None:
        self._before = self._state()

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            assert self._state() == self._before

    def _state(self) -> Any:
        count = self._scene.GetNumberOfNodes()
        every = [self._scene.GetNthNode(n).GetID() for n in range(count)]
        return every, [self._input(node) for node in self._nodes]

    @staticmethod
    def _input(node: Any) -> Any:
        from slicer.util import arrayFromVolume

        storage = node.GetStorageNode().GetFileName()
        voxels = arrayFromVolume(node).tobytes()
        return node.GetName(), storage, node.GetTransformNodeID(), voxels


def poll_until(job: Any, condition, limit_s: float = 30.0) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)
        job.poll()


class Heard:
    """What the callbacks of a registration hear."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.ends: list[tuple[str, Any]] = []

    @property
    def callbacks(self) -> dict[str, Any]:
        return {
            "on_progress": lambda stage, _: self.stages.append(stage),
            "on_done": lambda outcome: self.ends.append(("done", outcome)),
            "on_error": lambda error: self.ends.append(("error", error)),
            "on_cancelled": lambda: self.ends.append(("cancelled", None)),
        }


def is_a_sentence(error: Any) -> bool:
    text = str(error)
    return isinstance(error, RetRegError) and text.endswith(".") and "Traceback" not in text
