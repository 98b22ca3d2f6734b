"""Dense optical flow after the global stage of auto-fundus, as baselines for its deformable one.

The moving picture is brought to the fixed one by the quadratic transform, both are levelled to the
same local brightness and contrast, and the flow between them is added. The scale of the work is
that of auto-fundus: 768 pixels across the field of view.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import cv2
import numpy as np

from retreg.geometry import Grid
from retreg.image import Image
from retreg.transforms import Chain, DisplacementField
from retreg_server.registration.fundus.auto import DIAMETER, AutoFundus
from retreg_server.registration.fundus.tracking import warped
from retreg_server.registration.fundus.vessel_pyramid import VesselPyramidLevel
from retreg_server.registration.model import Stages
from retreg_server.registration.preprocessing.retina_picture import Picture, retina_picture

BACKGROUND = 0.03  # of the field of view
CONTRAST = 6.0  # deviations from black to white
COARSEST = 32  # pixels of the shorter side at which the variational flow may still be halved
MOST_HALVINGS, WARPS, SWEEPS = 4, 10, 20  # of the variational flow

Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(h, w, 2) shifts in pixels, from two pictures (h, w) float32 from 0 to 1: x is found at
x + shift in the second one."""


def skimage_is_installed() -> bool:
    """Whether scikit-image can be imported."""
    return find_spec("skimage") is not None


def dis_flow(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Dense inverse search (Kroeger et al. 2016) with its slowest setting, by OpenCV."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    first, second = (np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8) for x in (fixed, moving))
    flow: np.ndarray = search.calc(first, second, None)
    return flow


def variational_flow(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Horn and Schunck's energy (1981) with robust terms, warps and slopes (Brox et al. 2004).

    OpenCV's VariationalRefinement with its defaults and more sweeps, from coarse to fine; OpenCV
    itself has no such loop, and no quadratic terms.
    """
    step = cv2.VariationalRefinement.create()
    step.setSorIterations(SWEEPS)
    first, second = (_halved(np.rint(255 * np.clip(x, 0, 1))) for x in (fixed, moving))
    flow = np.zeros((*first[-1].shape, 2), np.float32)
    for fixed_level, moving_level in zip(first[::-1], second[::-1], strict=True):
        if flow.shape[:2] != fixed_level.shape:
            flow = 2 * cv2.resize(flow, fixed_level.shape[::-1], interpolation=cv2.INTER_LINEAR)
        for _ in range(WARPS):
            flow = step.calc(fixed_level, moving_level, flow)
    return flow


def _halved(picture: np.ndarray) -> list[np.ndarray]:
    """The picture (h, w) of 0 to 255 as uint8, and its half, quarter and so on."""
    pictures = [picture.astype(np.float32)]
    while min(pictures[-1].shape) > COARSEST and len(pictures) <= MOST_HALVINGS:
        pictures.append(cv2.pyrDown(pictures[-1]))
    return [each.astype(np.uint8) for each in pictures]


def tvl1_flow(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Total variation and L1 (Zach et al. 2007; Wedel et al. 2009), scikit-image's defaults."""
    from skimage.registration import optical_flow_tvl1

    down, across = optical_flow_tvl1(fixed, moving)
    return np.dstack([across, down])


def with_flow(flow: Flow, fixed: Image, moving: Image) -> Chain:
    """A field on the working pixels of the fixed picture, followed by the quadratic transform.

    Raises RegistrationError when there is no global transform.
    """
    options = AutoFundus.info.complete({"transform": "quadratic"})
    bent = AutoFundus().estimate(fixed, moving, options, Stages()).transform
    first = retina_picture(fixed, "fixed", DIAMETER)
    second = retina_picture(moving, "moving", DIAMETER)
    fixed_level = _levelled(first)
    size = first.inside.shape[0], first.inside.shape[1]

    def mapped(points: np.ndarray) -> np.ndarray:
        return second.pixels(bent(first.world(points)))

    brought, shown = warped(_levelled(second), mapped, size)
    both = shown & fixed_level.valid
    shifts = flow(fixed_level.samples[..., 0] * both, brought * both)
    height, width = shifts.shape[:2]
    vectors = first.world_from_pixel[:3, :2] @ shifts.reshape(-1, 2).T
    pixels = Grid((width, height, 1), first.world_from_pixel)
    return Chain((DisplacementField(vectors.reshape(3, 1, height, width), pixels), bent))


def _levelled(picture: Picture) -> VesselPyramidLevel:
    """The picture with its local mean at one half and its local deviation at 1 / CONTRAST."""
    sigma = BACKGROUND * max(picture.grey.shape)
    weight = picture.inside.astype(np.float32)

    def local_mean(values: np.ndarray, width: float) -> np.ndarray:
        counts = cv2.GaussianBlur(weight, (0, 0), width)
        mean: np.ndarray = cv2.GaussianBlur(values * weight, (0, 0), width) / (counts + 1e-3)
        return mean

    flat = (picture.grey - local_mean(picture.grey, sigma)) * weight
    deviation = np.sqrt(local_mean(flat * flat, 2 * sigma))
    floor = 0.2 * float(np.median(deviation[picture.inside])) + 1e-6
    level = np.clip(0.5 + flat / np.maximum(deviation, floor) / CONTRAST, 0, 1) * weight
    return VesselPyramidLevel(level[..., None].astype(np.float32), picture.inside, 1)
