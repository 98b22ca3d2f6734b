"""A result of the scene as DICOM objects, in the study of the fixed volume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from retreg.dicom.new_object import save
from retreg.dicom.objects import Registered, objects_of
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.transforms import Affine, Chain
from RetRegLib.scene.dicom_images import scene_from_stored, source_of_volume, stored_grid
from RetRegLib.scene.outcome import Outcome
from RetRegLib.scene.transform_nodes import transform_of
from RetRegLib.scene.volumes import voxels_of_volume

_BY_HAND = "The transform was edited by hand."


def save_objects(outcome: Outcome, folder: Path, database: Any) -> int:
    """Write all objects below folder; how many.

    A transform that was edited is saved as it is now, to be checked. Raises FileError or
    InputError, before anything is written, when the volumes do not come from the database or the
    registration failed.
    """
    registered = _registered(outcome, database)
    made = list(objects_of(registered))
    for name, data in made:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save(data, path)
    return len(made)


def _registered(outcome: Outcome, database: Any) -> Registered:
    """Images, transform and keypoints in the world of the files."""
    nodes = (outcome.fixed, outcome.moving)
    sources = tuple(source_of_volume(node, database) for node in nodes)
    grids = [stored_grid(node, source) for node, source in zip(nodes, sources, strict=True)]
    arrays = [voxels_of_volume(node, node.GetParentTransformNode()).array for node in nodes]
    images = [Image(array, grid) for array, grid in zip(arrays, grids, strict=True)]
    fixed = scene_from_stored(outcome.fixed, sources[0])
    moving = scene_from_stored(outcome.moving, sources[1], outcome.transform)
    version = str(outcome.result.provenance.get("version", "unknown"))
    return Registered(
        images[0], images[1], (sources[0], sources[1]), _result(outcome, fixed, moving), version
    )


def _result(outcome: Outcome, fixed: Affine, moving: Affine) -> RegistrationResult:
    """fixed, moving: from the world of the files to the scene."""
    result = outcome.result
    transform, quality = result.transform, result.quality
    if outcome.is_edited:
        transform = transform_of(outcome.transform)
        quality = replace(quality, verdict="check", reason=_BY_HAND)
    return replace(
        result,
        transform=Chain((fixed, transform, moving.inverse)),
        fixed_keypoints=_mapped(result.fixed_keypoints, fixed.inverse),
        moving_keypoints=_mapped(result.moving_keypoints, moving.inverse),
        quality=quality,
    )


def _mapped(keypoints: Keypoints, transform: Affine) -> Keypoints:
    return Keypoints(transform(keypoints.points), keypoints.weights, keypoints.inliers)
