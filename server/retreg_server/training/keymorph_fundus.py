"""The recipe of keymorph-fundus: keypoints of the retina, from maps of its vessels.

Two objectives act together. Equivariance: two random views of the same retina, real or made up,
must show the same keypoints at the same places of the retina. Supervision: where optic disc and
fovea are known, keypoints are points of a lattice in their frame, which keeps them spread out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from retreg_server.registration.networks.centre_of_mass import HeatMapPoints
from retreg_server.registration.networks.keypoint_net import Architecture, KeypointNet
from retreg_server.training.export import Bundle
from retreg_server.training.eyes import (
    Retina,
    clutter_textures,
    lattice,
    phantom_retinas,
    real_retinas,
)
from retreg_server.training.fundus_views import RetinaView, retina_view
from retreg_server.training.losses import agreement_loss, keypoint_loss, weighted_affine_error
from retreg_server.training.real_pictures import RealPair, pair_errors, read_real_pairs
from retreg_server.training.recipe import Recipe, TrainingOrder

PIXELS = 192
ANGLE = 50.0
RAMP = 0.25
PHANTOMS = 300
UNSEEN_PHANTOMS = 30
UNSEEN_REAL = ("HRF_05", "CHASE_10")  # kept back for validation
VALIDATION_VIEWS = 2
FEWEST_FOR_AFFINE = 8
AGREEMENT = 1.0
PHANTOM_SHARE = 0.5


class FundusTask:
    """Samples, loss and validation for the loop. real: pairs whose errors are only logged."""

    def __init__(
        self,
        retinas: list[Retina],
        unseen: list[Retina],
        architecture: Architecture,
        pairs: list[RealPair],
        device: str = "cpu",
        textures: Sequence[torch.Tensor] = (),
    ) -> None:
        self._textures = [each.to(device) for each in textures]
        self.architecture = architecture
        self._device = device
        self.lattice = lattice(architecture.keypoints).to(device)
        moved = [each.on(device) for each in retinas]
        self._phantoms = [each for each in moved if each.name.startswith("phantom")]
        self._real = [each for each in moved if not each.name.startswith("phantom")]
        self._pairs = pairs
        generator = torch.Generator().manual_seed(20_000_003)
        self._validation = [
            (retina, retina_view(retina, PIXELS, ANGLE, generator, textures),
             retina_view(retina, PIXELS, ANGLE, generator, textures))
            for retina in unseen
            for _ in range(VALIDATION_VIEWS)
        ]  # fmt: skip

    def loss(
        self, net: KeypointNet, batch: int, progress: float, generator: torch.Generator
    ) -> torch.Tensor:
        """Equivariance and supervision on batch pairs of views of the same retina."""
        angle = ANGLE * (0.25 + 0.75 * min(1.0, progress / RAMP))
        retinas = [self._drawn(generator) for _ in range(batch)]
        views = [
            retina_view(each, PIXELS, angle, generator, self._textures)
            for each in retinas
            for _ in "ab"
        ]
        found = net(torch.cat([view.image for view in views]))
        terms = [self._supervision(found, retinas, views)]
        for index in range(batch):
            first, second = (
                view.warp.anatomy_of(found.points[2 * index + side])
                for side, view in enumerate(views[2 * index : 2 * index + 2])
            )
            both = torch.stack([
                view.visible(found.points[2 * index + side])
                for side, view in enumerate(views[2 * index : 2 * index + 2])
            ]).prod(dim=0)  # fmt: skip
            terms.append(AGREEMENT / batch * agreement_loss(first, second, both))
        return torch.stack(terms).sum()

    def _supervision(
        self, found: HeatMapPoints, retinas: list[Retina], views: list[RetinaView]
    ) -> torch.Tensor:
        rows, truths, visible = [], [], []
        for index, view in enumerate(views):
            keypoints = retinas[index // 2].keypoints(self.lattice)
            if keypoints is not None:
                truth = view.warp.image_of(keypoints)
                rows.append(index)
                truths.append(truth)
                visible.append(view.visible(truth))
        if not rows:
            return found.points.sum() * 0
        kept = HeatMapPoints(found.points[rows], found.energy[rows], found.variance[rows])
        return keypoint_loss(kept, torch.stack(truths), torch.stack(visible))

    def validation(self, net: KeypointNet) -> dict[str, float]:
        """Errors on unseen eyes, in per cent of the side of the picture.

        "error" is the mean over made-up and real eyes of the median distance of the keypoints.
        """
        net.eval()
        errors: dict[str, list[torch.Tensor]] = {"phantom": [], "vessels": []}
        affines = []
        for retina, first, second in self._validation:
            found = net(torch.cat([first.image, second.image]).to(self._device)).on("cpu")
            points = retina.keypoints(self.lattice.cpu())
            assert points is not None
            truth = torch.stack([view.warp.image_of(points) for view in (first, second)])
            visible = torch.stack([v.visible(t) for v, t in zip((first, second), truth,
                                                                strict=True)])
            kind = "phantom" if retina.name.startswith("phantom") else "vessels"
            errors[kind].append((found.points - truth).norm(dim=2)[visible > 0])
            both = visible.prod(dim=0) > 0
            if both.sum() >= FEWEST_FOR_AFFINE:
                affines.append(weighted_affine_error(found, truth, both))
        medians = {
            kind: 50 * float(torch.cat(each).median()) for kind, each in errors.items() if each
        }
        numbers = {
            "error": sum(medians.values()) / len(medians),
            **{f"error_{kind}": value for kind, value in medians.items()},
            "affine": 50 * float(torch.stack(affines).median()) if affines else float("nan"),
        }
        numbers |= pair_errors(net, self.lattice, self._pairs)
        net.train()
        return numbers

    def _drawn(self, generator: torch.Generator) -> Retina:
        share = float(torch.rand((), generator=generator, device=generator.device))
        group = self._phantoms if share < PHANTOM_SHARE or not self._real else self._real
        index = torch.randint(0, len(group), (), generator=generator, device=generator.device)
        return group[int(index)]


def fundus_task(order: TrainingOrder) -> FundusTask:
    """The task from a folder of real vessel masks and as many made-up eyes as PHANTOMS.

    The made-up eyes are kept in the folder of the run. Real images to look at are picture pairs
    with landmarks. Raises FileError for folders without what is needed, OptionError for a number of
    keypoints that no network has.
    """
    architecture = fundus_architecture(order.keypoints)
    found = real_retinas(order.folder)
    pairs = read_real_pairs(order.look_at, PIXELS) if order.look_at else []
    order.out.mkdir(parents=True, exist_ok=True)
    stored, seed = order.out / "retinas.npz", 1000 * order.seed
    made = phantom_retinas(stored, seed, PHANTOMS + UNSEEN_PHANTOMS)
    unseen = [each for each in found if each.name.startswith(UNSEEN_REAL) and each.disc is not None]
    seen = [each for each in found if not each.name.startswith(UNSEEN_REAL)]
    return FundusTask(
        seen + made[:PHANTOMS], made[PHANTOMS:] + unseen, architecture, pairs,
        order.device, clutter_textures(seen),
    )  # fmt: skip


def fundus_bundle(order: TrainingOrder, recipe: dict[str, Any], hardware: str) -> Bundle:
    """What the card of keymorph-fundus says."""
    return Bundle(
        name="keymorph-fundus",
        title="Corresponding keypoints in pictures of the retina, from maps of its vessels",
        architecture=fundus_architecture(order.keypoints),
        pixels=PIXELS,
        spacing_mm=None,
        template=lattice(order.keypoints),
        input_rule="vessel strength (preprocessing/vesselness.py) of the field of view at 768 "
        "pixels, in the middle of a square of 192 pixels; the 1st to 99.5th percentile of every "
        "fifth pixel becomes 0 to 1, cut off there",
        error_unit="per cent of the side of the picture",
        recipe=recipe,
        trained_on=(
            f"{PHANTOMS} made-up eyes in colour, red-free light and angiography; "
            f"{UNSEEN_PHANTOMS} more were kept back for validation",
            "vessel masks of HRF (15, Budai et al. 2013) and masks and pictures of CHASE_DB1 (20, "
            "Owen et al. 2009), CC BY 4.0 by their owners' statement; disc and fovea were read off "
            f"by eye; {' and '.join(UNSEEN_REAL)} were kept back for validation",
        ),
        hardware=hardware,
    )


def fundus_architecture(keypoints: int) -> Architecture:
    """The light network of the recipe, 2.2 million parameters."""
    return Architecture("light", 2, keypoints, width=16, levels=6)


RECIPE = Recipe(fundus_task, fundus_bundle)
