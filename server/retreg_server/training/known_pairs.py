"""Pairs of images whose displacement field is known, in both directions."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from retreg_server.registration.numerics.fields import half_sizes, identity_grid
from retreg_server.training.warps import Warp, sample_points


@dataclass(frozen=True, eq=False)
class KnownPairs:
    """2 n images, fixed and moving of one pair after the other.

    images: (2n, 1, *shape), 0 to 1. fields: (2n, d, *half), the true field from each image to its
    partner in pixels of the images, at half the number of pixels. seen: (2n, 1, *half), 1 where
    the partner shows what the image shows, 0 where it does not or where the truth is not known.
    tissues: (2n, c, *half), shares of tissues per pixel, or None.
    """

    images: torch.Tensor
    fields: torch.Tensor
    seen: torch.Tensor
    tissues: torch.Tensor | None = None

    def on(self, device: str) -> KnownPairs:
        """The same on another device."""
        images, fields, seen = (each.to(device) for each in (self.images, self.fields, self.seen))
        tissues = None if self.tissues is None else self.tissues.to(device)
        return KnownPairs(images, fields, seen, tissues)


def joined(pairs: list[KnownPairs]) -> KnownPairs:
    """Several pairs as one batch; all of them have tissues, or none."""
    tissues = [pair.tissues for pair in pairs if pair.tissues is not None]
    return KnownPairs(
        torch.cat([pair.images for pair in pairs]),
        torch.cat([pair.fields for pair in pairs]),
        torch.cat([pair.seen for pair in pairs]),
        torch.cat(tissues) if tissues else None,
    )


def partners(values: torch.Tensor) -> torch.Tensor:
    """Values (2n, …) of each image's partner: fixed and moving of every pair exchanged."""
    return values.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)  # type: ignore[no-untyped-call]


def known_fields(
    moving_from_fixed: Warp, shown: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The fields (2, d, *half) of KnownPairs there and back, and seen (2, 1, *half).

    moving_from_fixed: takes places in the fixed image to those in the moving one. shown: where the
    fixed and the moving image show something, (1, 1, *shape) bool or float.
    """
    shape = tuple(shown[0].shape[2:])
    half = tuple(n // 2 for n in shape)
    lattice_points = identity_grid(half, shown[0].device)
    d = len(half)
    forward = moving_from_fixed.anatomy_at_pixels(half)
    backward = moving_from_fixed.image_of(lattice_points.reshape(-1, d)).reshape(
        lattice_points.shape
    )
    fields, seen = [], []
    for places, own, opposite in ((forward, *shown), (backward, *shown[::-1])):
        fields.append((places - lattice_points).movedim(-1, 1) * _per_unit(shape, lattice_points))
        found = sample_points(opposite.float(), places.reshape(-1, d)).reshape(1, 1, *half)
        inside = (places.abs() < 1).all(dim=-1)[:, None]
        at_home = sample_points(own.float(), lattice_points.reshape(-1, d)).reshape(1, 1, *half)
        seen.append((found > 0.5) & (at_home > 0.5) & inside)
    return torch.cat(fields), torch.cat(seen).float()


def _per_unit(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Pixels per normalised unit (1, d, 1, …)."""
    return half_sizes(shape, like).reshape(1, -1, *(1,) * len(shape))
