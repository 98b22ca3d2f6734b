"""Where the object in a volume is: a mask, its centre and its size, from any contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from retreg.errors import EmptyImageError, InputError
from retreg.geometry import apply_matrix
from retreg.image import Image
from retreg_server.registration.numerics.spaces import TensorVolume, canonical, isotropic

WHOLE = np.array([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
GRID = 56  # voxels along the longest side of the volume in which the mask is made
THIN = 0.4  # of the longest side: a thinner volume is a slab, cut out of something that goes on
BEYOND = 8  # voxels of the mask by which a slab is continued beyond its faces
TISSUE = 0.08  # of the grey range, that the middle half of a face of the image spans unless air
FEWEST_FACES = 3  # of air, where an object ends in the image; a block out of a body has fewer
FEWEST = 12  # voxels that a volume has along two of its axes at least


@dataclass(frozen=True, eq=False)
class Foreground:
    """The object in an image.

    depth_mm: one channel, distance to the surface, positive inside the object and negative
    outside. background: intensity of the empty surroundings. bright: 99th percentile of the
    difference from background inside the object. centroid, core: (3,) LPS mm, the mean of all
    voxels and of the deep ones (a neck pulls the first, not the second). box: (2, 3) corners in
    normalised coordinates of the image. extent_mm: (3,) the sides of the box. is_slab: whether
    the image is a few slices out of something that goes on, whose faces are no surface. passes:
    (3,) how much of its largest section along each axis (i, j, k) both faces of the image show at
    least. has_air: whether the object ends in the image, rather than filling all of it.
    """

    depth_mm: TensorVolume
    background: float
    bright: float
    centroid: np.ndarray
    core: np.ndarray
    volume_mm3: float
    box: np.ndarray
    extent_mm: np.ndarray
    is_slab: bool
    passes: np.ndarray
    has_air: bool

    @property
    def longest_mm(self) -> float:
        """The longest side of the box around the object."""
        return float(self.extent_mm.max())

    @property
    def thickness_mm(self) -> float:
        """The shortest side of the box around the object."""
        return float(self.extent_mm.min())

    def is_thinner(self, other: Foreground) -> bool:
        """Whether it is a slab and the other one is none, or a thicker one."""
        return self.is_slab and not (other.is_slab and other.thickness_mm <= self.thickness_mm)

    @property
    def radius_mm(self) -> float:
        """Radius of the ball with the same volume."""
        return float((self.volume_mm3 * 3 / (4 * np.pi)) ** (1 / 3))


def find_foreground(volume: TensorVolume, role: str) -> Foreground:
    """Separate the object from its surroundings.

    volume: canonical, one channel. role ("fixed" or "moving") is for the message.
    Raises InputError for a volume of a few voxels, and EmptyImageError when the image is
    constant or the object too small.
    """
    _refuse_tiny(volume.size, role)
    half_mm = np.linalg.norm(volume.world_from_norm[:3, :3], axis=0)
    spacing = float(2 * half_mm.max() / GRID)
    small = isotropic(volume, spacing, WHOLE, 1)
    values = small.tensor[0, 0].numpy()
    inside = small.tensor[0, 1].numpy() > 0.5
    background = _border_level(values, inside)
    strength = np.where(inside, np.abs(values - background), 0.0)
    least = 1e-4 * float(np.abs(values).max())  # less than this is rounding, not contrast
    beyond = np.where(half_mm < THIN * half_mm.max(), BEYOND, 0)
    shown = _above_otsu(strength, least)
    has_air = not shown.any() or _faces_of_air(strength, inside) >= FEWEST_FACES
    mask, depth, outside = _with_distances(shown if has_air else inside, beyond)
    _refuse_small(mask, beyond, role)
    bright = float(np.percentile(strength[mask], 99))
    image_from_small = np.linalg.inv(volume.world_from_norm) @ small.world_from_norm
    box = apply_matrix(image_from_small, _box(mask))
    signed = np.where(mask, depth - 0.5, 0.5 - outside) * spacing
    tensor = torch.from_numpy(signed.astype(np.float32))[None, None]
    return Foreground(
        TensorVolume(tensor, small.world_from_norm),
        background,
        bright,
        _centre(small, mask.astype(float)),
        _centre(small, depth**4),
        float(mask.sum()) * spacing**3,
        box,
        np.ptp(box, axis=0) * half_mm,
        bool(beyond.any()),
        _passing(mask),
        has_air,
    )


def _refuse_small(mask: np.ndarray, beyond: np.ndarray, role: str) -> None:
    """Raise EmptyImageError for an object of a few voxels (k, j, i) or layers.

    beyond: (3,) above 0 along the axes (i, j, k) on which the image is thin.
    """
    layers = np.ptp(np.argwhere(mask), axis=0)[::-1] if mask.any() else np.zeros(3)
    if mask.sum() < 200 or (layers < np.where(beyond, 0, 5)).any():
        raise EmptyImageError(
            f"The {role} image shows nothing to register: it is empty, constant or far too small. "
            "Check the file and its intensity range."
        )


def _border_level(values: np.ndarray, inside: np.ndarray) -> float:
    """A low percentile of the outermost voxels: air, even where tissue touches the border."""
    border = inside & ~ndimage.binary_erosion(inside, np.ones((3, 3, 3)))
    return float(np.percentile(values[border], 10)) if border.any() else 0.0


def _faces_of_air(strength: np.ndarray, inside: np.ndarray) -> int:
    """How many of the six faces of the image (inside is it, on a larger grid) are mostly flat."""
    image = strength[ndimage.find_objects(inside.astype(np.uint8))[0]]
    faces = [image.take(end, axis) for axis in range(3) for end in (0, -1)]
    spreads = [np.ptp(np.percentile(face, (25, 75))) for face in faces]
    return int((np.array(spreads) <= TISSUE * np.percentile(strength, 98)).sum())


def _passing(mask: np.ndarray) -> np.ndarray:
    """(3,) the smaller of the sections at both ends of each axis (i, j, k), 1 for the largest."""
    sections = [mask.sum(axis=tuple({0, 1, 2} - {axis})) for axis in (2, 1, 0)]
    return np.array([min(each[0], each[-1]) / each.max() for each in sections])


def _box(mask: np.ndarray) -> np.ndarray:
    """(2, 3) normalised: the lowest and the highest corner of what is true in (k, j, i)."""
    corners, sizes = np.argwhere(mask)[:, ::-1], np.array(mask.shape[::-1])
    low = 2 * (corners.min(axis=0)) / sizes - 1
    high = 2 * (corners.max(axis=0) + 1) / sizes - 1
    return np.stack([low, high])


def object_length_mm(image: Image, role: str) -> float:
    """The longest side of the object in an image; raises as find_foreground."""
    return find_foreground(canonical(image), role).longest_mm


def _refuse_tiny(size: tuple[int, int, int], role: str) -> None:
    if sorted(size)[1] < FEWEST:
        raise InputError(
            f"The {role} image has {size[0]} x {size[1]} x {size[2]} voxels, too few to "
            f"register; at least {FEWEST} along two axes were expected."
        )


def _above_otsu(strength: np.ndarray, least: float) -> np.ndarray:
    """Otsu's threshold (1979) on square roots, which keeps dark tissue beside bright fluid.

    Nothing is above it when no strength exceeds least.
    """
    top = np.percentile(strength, 98)
    if top <= least:
        return np.zeros(strength.shape, dtype=bool)
    levels = np.sqrt(np.minimum(strength / top, 1.0))
    counts, edges = np.histogram(levels, bins=128, range=(0.0, 1.0))
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    total = np.cumsum(counts * middles)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = total / below - (total[-1] - total) / above
    between = np.nan_to_num(below * above * gap**2)
    found: np.ndarray = levels > 0.85 * middles[int(np.argmax(between))]
    return found


def _with_distances(mask: np.ndarray, beyond: np.ndarray) -> tuple[np.ndarray, ...]:
    """The largest object of a mask (k, j, i), the distance of its voxels to what is outside it, and
    of all others to it.

    beyond: (3,) voxels along (i, j, k) by which the object continues past the image, for a slab.
    """
    found = _largest_object(np.pad(mask, [(n, n) for n in beyond[::-1]], mode="edge"))
    padded = np.pad(found, 1)
    here = tuple(slice(n, n + size) for n, size in zip(beyond[::-1], mask.shape, strict=True))
    depth = ndimage.distance_transform_edt(padded)[1:-1, 1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~padded)[1:-1, 1:-1, 1:-1]
    return found[here], depth[here], outside[here]


def _largest_object(mask: np.ndarray) -> np.ndarray:
    """The largest connected part, without thin bridges, closed and with its holes filled."""
    labels, count = ndimage.label(ndimage.binary_opening(mask))
    if count == 0:
        return np.zeros(mask.shape, dtype=bool)
    sizes = np.bincount(labels.ravel())[1:]
    part = np.pad(labels == 1 + int(np.argmax(sizes)), 3)
    closed = ndimage.binary_closing(part, iterations=2)
    filled: np.ndarray = ndimage.binary_fill_holes(closed)[3:-3, 3:-3, 3:-3]
    return filled


def _centre(volume: TensorVolume, weights: np.ndarray) -> np.ndarray:
    centre: np.ndarray = np.average(volume.voxel_centres(), axis=0, weights=weights.ravel())
    return centre
