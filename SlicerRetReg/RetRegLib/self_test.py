"""A registration inside Slicer without a server and without a network: RetRegTest runs it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from retreg.client import Client
from retreg.fitting import fit_affine, fit_rigid
from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult, Scalar
from retreg.progress import Progress
from retreg.quality import Quality
from retreg.transforms import Affine
from RetRegLib.logic import Registration
from RetRegLib.scene.outcome import Outcome, remove_outcome
from RetRegLib.scene.transform_nodes import transform_of
from RetRegLib.scene.volumes import image_from_volume, volume_from_image
from RetRegLib.server.connection import Connection

SIZE = (24, 28, 20)
SPACING_MM = (2.0, 2.0, 2.5)


def truth() -> Affine:
    """Turned by 10 degrees about an axis through the middle, and shifted: fixed to moving, mm."""
    angle, middle = math.radians(10), np.array(SIZE) * SPACING_MM / 2
    matrix = np.eye(4)
    matrix[:2, :2] = (math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))
    matrix[:3, 3] = middle - matrix[:3, :3] @ middle + (2.0, -3.0, 1.0)
    return Affine(matrix)


def known_pair() -> tuple[Image, Image]:
    """One smooth object, fixed and as truth moves it."""
    index = np.indices(SIZE[::-1]).reshape(3, -1).T[:, ::-1].astype(np.float64)
    grid = Grid(SIZE, np.diag([*SPACING_MM, 1.0]))
    world = apply_matrix(grid.world_from_index, index)
    fixed, moving = (
        Image(_brightness(points).reshape(1, *SIZE[::-1]).astype(np.float32), grid)
        for points in (world, truth().inverse(world))
    )
    return fixed, moving


def _brightness(points: np.ndarray) -> np.ndarray:
    """A function of the fixed world that has no symmetry."""
    centres = np.array([[20.0, 24.0, 25.0], [30.0, 30.0, 15.0], [15.0, 35.0, 30.0]])
    distances = np.linalg.norm(points[:, None] - centres, axis=2)
    return 100 * np.exp(-((distances / 9) ** 2)).sum(axis=1)


class KnownAnswer(Client):
    """A client that sends nothing and answers with the truth."""

    def register(
        self,
        fixed: Image,
        moving: Image,  # noqa: ARG002 - the signature is that of Client
        model: str | None = None,
        progress: Progress | None = None,
        *,
        fixed_mask: Image | None = None,  # noqa: ARG002
        moving_mask: Image | None = None,  # noqa: ARG002
        initial: Affine | None = None,  # noqa: ARG002
        **options: Scalar | None,
    ) -> RegistrationResult:
        """The truth, fitted to keypoints on a coarse lattice of the fixed image."""
        tell = progress or (lambda _stage, _fraction: None)
        tell("asking nobody", 0.5)
        index = np.indices((3, 3, 3)).reshape(3, -1).T * (np.array(fixed.grid.size) - 1) / 2
        here = apply_matrix(fixed.grid.world_from_index, index)
        there = truth()(here)
        ones = np.ones(len(here))
        family = str(options.get("transform") or "affine")
        numbers = {"agreement": 1.0, "overlap": 1.0, "blocks": 27.0, "folding": 0.0}
        return RegistrationResult(
            fit_rigid(here, there) if family == "rigid" else fit_affine(here, there),
            Keypoints(here, ones, ones > 0),
            Keypoints(there, ones, ones > 0),
            Quality(numbers, "accept", "The answer was known."),
            {"model": model or "known-answer", "options": {"transform": family}},
        )


@dataclass(frozen=True)
class NoServer(Connection):
    """A connection that leads nowhere."""

    url: str = field(default="http://127.0.0.1:1")

    def client(self) -> Client:
        """The client that knows the answer."""
        return KnownAnswer(self.url)


def register_without_a_server(logic: Registration, scene: Any) -> float:
    """Register the known pair, undo it, and return the largest error of the transform in mm.

    Raises AssertionError when a node is missing, or left behind.
    """
    images = known_pair()
    names = ("RetReg fixed", "RetReg moving")
    fixed, moving = (
        volume_from_image(image, name, scene) for image, name in zip(images, names, strict=True)
    )
    logic.connection = NoServer()
    outcome = logic.register(fixed, moving, transform="rigid")
    if moving.GetParentTransformNode() is not outcome.transform:
        raise AssertionError("The moving volume does not lie under the transform.")
    error_mm = _largest_error_mm(outcome, images[0])
    remove_outcome(outcome)
    if moving.GetParentTransformNode() is not None:
        raise AssertionError("The moving volume was not put back.")
    if any(node.GetScene() is not None for node in outcome.made):
        raise AssertionError("Nodes of the result were left behind.")
    return error_mm


def _largest_error_mm(outcome: Outcome, fixed: Image) -> float:
    corners = np.array([[0, 0, 0], *np.diag(fixed.grid.size), fixed.grid.size], dtype=np.float64)
    points = apply_matrix(fixed.grid.world_from_index, corners)
    found = transform_of(outcome.transform)
    warped = image_from_volume(outcome.warped).array
    middle = tuple(slice(4, n - 4) for n in warped.shape[1:])
    if np.abs(warped[0][middle] - fixed.array[0][middle]).max() > 5:
        raise AssertionError("The warped image does not look like the fixed one.")
    return float(np.linalg.norm(found(points) - truth()(points), axis=1).max())
