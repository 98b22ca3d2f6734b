"""What the page for looking at a result needs: both images as bytes to show, and the transform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from retreg import wire
from retreg.errors import InputError
from retreg.geometry import Grid
from retreg.hand_edit import HandEdit, usual_reach_mm
from retreg.image import Image
from retreg.messages import RegistrationResult
from retreg.transforms import DisplacementField
from retreg_server.reporting.map_figures import world_unit

LONGEST = {True: 2048, False: 256}  # voxels along an axis of a picture, of a volume
MOST_NODES = 25_000  # of the field that the page shows the transform with
DARKEST, BRIGHTEST = 0.5, 99.5  # percentiles of what is not stored in 8 bits


def shown_image(image: Image) -> Image:
    """The image in one or three channels of 8 bits, coarser where it is larger than LONGEST."""
    size = np.array(image.grid.size)
    i, j, k = (int(n) for n in np.ceil(size / LONGEST[image.is_picture]))
    array = image.array[:, ::k, ::j, ::i]
    array = array[:3] if len(array) >= 3 else array[:1]
    grid = Grid(array.shape[:0:-1], image.grid.world_from_index @ np.diag([i, j, k, 1.0]))
    if array.dtype != np.uint8:
        values = np.nan_to_num(array.astype(np.float32), posinf=0.0, neginf=0.0)
        low, high = np.percentile(values, (DARKEST, BRIGHTEST))
        array = np.clip((values - low) * (255 / max(high - low, 1e-12)), 0, 255).astype(np.uint8)
    return Image(array, grid)


def page_message(result: RegistrationResult, fixed: Grid) -> dict[str, Any]:
    """What the page is told as JSON, besides the images.

    field: the transform on a lattice over the whole fixed image, at most MOST_NODES nodes.
    """
    step = 1
    while np.prod(fixed.coarsened(step).size, dtype=float) > MOST_NODES:
        step += 1
    field = DisplacementField.sampled(result.transform, fixed.coarsened(step))
    message = wire.encode_result(result)
    kept = ("fixed_keypoints", "moving_keypoints", "quality", "notes")
    return {
        **{name: message[name] for name in kept if name in message},
        "model": str(result.provenance.get("model", "")),
        "field": wire.encode_transform(field),
        "reach_mm": usual_reach_mm(fixed),
        "unit": world_unit(fixed),
    }


def edit_of(message: Mapping[str, Any]) -> HandEdit:
    """The edit in a message of the page. Raises InputError or OptionError."""
    numbers = {name: message[name] for name in ("smoothing", "reach_mm")}
    if any(isinstance(number, str) for number in numbers.values()):
        raise InputError("The smoothing and the reach are not numbers.")
    points = {
        name: np.array(message[name], dtype=np.float64).reshape(-1, 3)
        for name in ("fixed", "moving")
    }
    used = np.array(message["used"], dtype=bool)
    return HandEdit(points["fixed"], points["moving"], used, message["transform"], **numbers)
