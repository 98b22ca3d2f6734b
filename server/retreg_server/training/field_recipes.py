"""The recipes of smoothproper-fundus, smoothproper-brain and voxelmorph-brain.

No real picture or volume is needed: vessel maps of made-up and annotated eyes, and painted label
maps, are bent by fields that are known. Weights are chosen by the endpoint error on unseen ones.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from retreg_server.registration.networks.field_net import FieldArchitecture
from retreg_server.training.export import Bundle
from retreg_server.training.eyes import (
    Retina,
    clutter_textures,
    phantom_retinas,
    real_retinas,
)
from retreg_server.training.field_task import Draw, FieldTask
from retreg_server.training.head_pairs import SPACING_MM, VOXELS, head_pair
from retreg_server.training.known_pairs import KnownPairs, joined
from retreg_server.training.label_maps import LabelMap, read_label_maps
from retreg_server.training.recipe import Recipe, TrainingOrder
from retreg_server.training.vessel_pairs import vessel_pair

FUNDUS_SQUARE = 384  # pixels across the field of view when the network is used
PHANTOMS, UNSEEN_PHANTOMS = 120, 12
PHANTOM_SHARE = 0.5
UNSEEN_HEADS = 2
OTHER_PERSON = 0.4  # share of the head pairs that show two people
VALIDATION_SEED = 20_000_003
VALIDATION_BATCHES, VALIDATION_BATCH = 8, 3
ARCHITECTURES = {
    "smoothproper-fundus": FieldArchitecture("smoothproper", 2, width=16, depth=4, radii=(4, 2)),
    "smoothproper-brain": FieldArchitecture(
        "smoothproper", 3, width=12, depth=4, radii=(2, 1), steps=2, descriptors=True
    ),
    "voxelmorph-brain": FieldArchitecture("voxelmorph", 3, width=16, depth=4, descriptors=True),
}


def fundus_field_task(order: TrainingOrder) -> FieldTask:
    """The task from a folder of vessel masks and PHANTOMS made-up eyes, kept there.

    layer_steps: of the SmoothProper layer where it is not the usual number; 0 leaves it out.
    """
    order.out.mkdir(parents=True, exist_ok=True)
    stored, seed, device = order.out / "retinas.npz", 1000 * order.seed, order.device
    made = phantom_retinas(stored, seed, PHANTOMS + UNSEEN_PHANTOMS)
    real = real_retinas(order.folder)
    textures = [each.to(device) for each in clutter_textures(real)]
    groups = [[each.on(device) for each in group] for group in (made[:PHANTOMS], real)]
    architecture = ARCHITECTURES["smoothproper-fundus"]
    if order.layer_steps is not None:
        changed = {**architecture.as_dict(), "steps": order.layer_steps}
        architecture = FieldArchitecture(**changed)
    unseen = _validation(partial(_vessels, [made[PHANTOMS:]], []))
    return FieldTask(architecture, partial(_vessels, groups, textures), unseen, 1.0, device)


def brain_field_task(name: str, order: TrainingOrder) -> FieldTask:
    """The task of a brain recipe from a folder of label maps of heads."""
    heads = read_label_maps(order.folder)
    seen = [one for head in heads[:-UNSEEN_HEADS] for one in (head, head.mirrored())]
    training = [LabelMap(head.name, head.labels.to(order.device)) for head in seen]
    unseen = _validation(partial(_heads, heads[-UNSEEN_HEADS:]), batch=1)
    draw = partial(_heads, training)
    return FieldTask(ARCHITECTURES[name], draw, unseen, SPACING_MM, order.device)


def _vessels(
    groups: list[list[Retina]], textures: list[torch.Tensor], generator: torch.Generator
) -> KnownPairs:
    """A pair of a random retina: the first group as often as PHANTOM_SHARE."""
    share = float(torch.rand((), generator=generator, device=generator.device))
    group = groups[0] if share < PHANTOM_SHARE else groups[-1]
    return vessel_pair(group[_index(len(group), generator)], textures, generator)


def _heads(heads: list[LabelMap], generator: torch.Generator) -> KnownPairs:
    """A pair of one person, or, as often as OTHER_PERSON, of any two."""
    fixed = heads[_index(len(heads), generator)]
    other = float(torch.rand((), generator=generator, device=generator.device)) < OTHER_PERSON
    moving = heads[_index(len(heads), generator)] if other else fixed
    return head_pair(fixed, moving, generator)


def _index(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(0, count, (), generator=generator, device=generator.device))


def _validation(draw: Draw, batch: int = VALIDATION_BATCH) -> tuple[KnownPairs, ...]:
    generator = torch.Generator().manual_seed(VALIDATION_SEED)
    return tuple(
        joined([draw(generator) for _ in range(batch)]) for _ in range(VALIDATION_BATCHES)
    )


def _fundus_bundle(_order: TrainingOrder, recipe: dict[str, Any], hardware: str) -> Bundle:
    name = "smoothproper-fundus"
    return Bundle(
        name=name,
        title="Local displacement between two vessel maps of a retina that are aligned globally",
        architecture=ARCHITECTURES[name],
        pixels=FUNDUS_SQUARE,
        spacing_mm=None,
        input_rule="vessel strength (preprocessing/vesselness.py) of the field of view at 768 "
        "pixels, halved; the 1st to 99.5th percentile of every fifth pixel becomes 0 to 1, cut "
        "off there; the moving picture in the frame of the fixed one",
        error_unit="pixels, 384 of which are the field of view",
        recipe=_without_keypoints(recipe),
        trained_on=(
            f"{PHANTOMS} made-up eyes in colour, red-free light and angiography; "
            f"{UNSEEN_PHANTOMS} more were kept back for validation",
            "vessel masks of HRF (15, Budai et al. 2013) and masks and pictures of CHASE_DB1 (20, "
            "Owen et al. 2009), CC BY 4.0 by their owners' statement",
        ),
        hardware=hardware,
    )


def _brain_bundle(
    name: str, _order: TrainingOrder, recipe: dict[str, Any], hardware: str
) -> Bundle:
    return Bundle(
        name=name,
        title="Local displacement between two brain MRI of any contrast, aligned globally",
        architecture=ARCHITECTURES[name],
        pixels=VOXELS,
        spacing_mm=SPACING_MM,
        input_rule="a cube of 64 voxels of 3 mm around the head or brain of the fixed volume along "
        "its axes, the moving volume in the same frame; the 1st to 99.5th percentile of every "
        "fifth voxel becomes 0 to 1, cut off there",
        error_unit="mm",
        recipe=_without_keypoints(recipe),
        trained_on=(
            "18 label maps of whole heads and their mirror images, painted at random (SynthSeg's "
            "training label maps, Billot et al. 2023, Apache-2.0); "
            f"{UNSEEN_HEADS} more were kept back for validation",
            "no real image",
        ),
        hardware=hardware,
    )


def _without_keypoints(recipe: dict[str, Any]) -> dict[str, Any]:
    """The options of the training, of which the number of keypoints says nothing here."""
    return {name: value for name, value in recipe.items() if name != "keypoints"}


def _brain_recipe(name: str) -> Recipe:
    return Recipe(partial(brain_field_task, name), partial(_brain_bundle, name))


SMOOTHPROPER_FUNDUS = Recipe(fundus_field_task, _fundus_bundle)
SMOOTHPROPER_BRAIN = _brain_recipe("smoothproper-brain")
VOXELMORPH_BRAIN = _brain_recipe("voxelmorph-brain")
