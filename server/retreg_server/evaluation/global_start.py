"""The affine of auto-brain before other people's deformable registration: the same for all."""

from __future__ import annotations

from retreg.image import Image
from retreg.resample import resample
from retreg.transforms import Affine, Chain, DisplacementField
from retreg_server.evaluation.cost import Cost, measured
from retreg_server.evaluation.peer_worker import PeerWorker
from retreg_server.registration.model import Stages
from retreg_server.registration.volume.brain import AutoBrain


def after_affine(
    worker: PeerWorker, fixed: Image, moving: Image
) -> tuple[Chain, Cost]:
    """The field of worker on the affinely aligned volumes, then the affine; and the whole cost.

    Raises RegistrationError.
    """
    found, before = measured(lambda: _affine(fixed, moving))
    if isinstance(found, Exception):
        raise found
    vectors, after = worker(fixed, resample(moving, found, fixed.grid))
    cost = Cost(
        before.seconds + after.seconds,
        before.cpu_seconds + after.cpu_seconds,
        max(before.peak_mb, after.peak_mb),
    )
    return Chain((DisplacementField(vectors, fixed.grid), found)), cost


def _affine(fixed: Image, moving: Image) -> Affine:
    options = AutoBrain.info.complete({"transform": "affine"})
    estimate = AutoBrain().estimate(fixed, moving, options, Stages())
    if not isinstance(estimate.transform, Affine):
        raise TypeError("auto-brain was asked for an affine.")
    return estimate.transform
