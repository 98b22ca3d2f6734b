"""Objects far from the size of a head, such as a mouse: registered at the size of a head.

Lengths in the models and in the verdict suit objects of that size. Where the larger of the objects
is of another size, the worlds of all images are multiplied by one factor, and what was found is
taken back to them. Relative to the object, the same is then found at every size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from retreg.errors import GeometryError, InputError
from retreg.geometry import Grid, apply_matrix
from retreg.image import Image
from retreg.messages import Keypoints, RegistrationResult
from retreg.quality import Quality, judge
from retreg.transforms import Affine, Chain, DisplacementField, ThinPlateSpline, Transform

LEAST_MM, MOST_MM = 120.0, 300.0  # longest side of the larger object that stays as it is
HEAD_MM = 190.0  # and the one that all others get
MOST_UNLIKE = 8.0  # times as long as the other: not even as its part could it be found


@dataclass(frozen=True)
class UsualSize:
    """Within which lengths the longest side of what is registered lies, and what that is."""

    least_mm: float
    most_mm: float
    of: str

    def note(self, role: str, length_mm: float) -> str:
        """A sentence on an object that is smaller or larger; empty for the others."""
        if self.least_mm <= length_mm <= self.most_mm:
            return ""
        unlike = "small" if length_mm < self.least_mm else "large"
        return (
            f"What the {role} image shows is {_length(length_mm)} long, too {unlike} for {self.of}"
            "; unless it is an animal's, check the voxel size and the unit in the header."
        )


@dataclass(frozen=True, eq=False)
class CommonScale:
    """Worlds of LPS mm, moved by -origin (3,) and multiplied by factor; 1 changes nothing.

    notes: sentences on objects of an unusual size.
    """

    factor: float
    origin: np.ndarray
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, lengths_mm: Mapping[str, float], origin: np.ndarray, usual: UsualSize | None = None
    ) -> CommonScale:
        """The scale for objects of these longest sides, each by its role such as "fixed".

        origin: (3,) LPS mm, the centre of one of the images. Raises InputError for objects that
        are too unlike in size.
        """
        _refuse_unlike(lengths_mm)
        longest = max(lengths_mm.values(), default=HEAD_MM)
        factor = 1.0 if LEAST_MM <= longest <= MOST_MM else HEAD_MM / longest
        notes = [usual.note(*each) for each in lengths_mm.items()] if usual else []
        return cls(factor, origin, tuple(filter(None, notes)))

    def enlarged(self, image: Image) -> Image:
        """The image in the common world. Raises InputError when it lies too far from the first."""
        if self.factor == 1:
            return image
        try:
            grid = Grid(image.grid.size, self._common @ image.grid.world_from_index)
        except GeometryError as error:
            raise InputError(
                "The images differ too much in place or in voxel size to be registered; check "
                "the origins and the units of their headers."
            ) from error
        return replace(image, grid=grid)

    def common_map(self, initial: Affine) -> Affine:
        """A map between the worlds of two images, between their common worlds."""
        if self.factor == 1:
            return initial
        common = self._common
        return Affine(common @ initial.moving_from_fixed @ np.linalg.inv(common))

    def image(self, image: Image) -> Image:
        """An image of the common world, such as a mean, in the world of the images."""
        if self.factor == 1:
            return image
        return replace(image, grid=self._grid(image.grid))

    def restored(self, result: RegistrationResult) -> RegistrationResult:
        """A result between images of the common world, in the world of the images."""
        result = replace(result, notes=(*result.notes, *self.notes))
        if self.factor == 1:
            return result
        return replace(
            result,
            transform=self._transform(result.transform),
            fixed_keypoints=self._keypoints(result.fixed_keypoints),
            moving_keypoints=self._keypoints(result.moving_keypoints),
            quality=self._quality(result.quality),
            backward=None if result.backward is None else self._transform(result.backward),
        )

    @property
    def _common(self) -> np.ndarray:
        """(4, 4), from the world of the images to the common one."""
        matrix = np.diag([self.factor] * 3 + [1.0])
        matrix[:3, 3] = -self.factor * self.origin
        return matrix

    def _transform(self, transform: Transform) -> Transform:
        if isinstance(transform, Affine):
            moving = np.linalg.inv(self._common) @ transform.moving_from_fixed @ self._common
            return Affine(moving)
        if isinstance(transform, Chain):
            return Chain(tuple(self._transform(each) for each in transform.transforms))
        if isinstance(transform, DisplacementField):
            return DisplacementField(
                transform.vectors_mm / self.factor, self._grid(transform.grid)
            )
        assert isinstance(transform, ThinPlateSpline), "a kind of transform that no model makes"
        return replace(
            transform,
            fixed_points=self._points(transform.fixed_points),
            moving_points=self._points(transform.moving_points),
            solved=None,  # the smoothing has no unit, so that it is the same spline
        )

    def _grid(self, grid: Grid) -> Grid:
        return Grid(grid.size, np.linalg.inv(self._common) @ grid.world_from_index)

    def _points(self, points: np.ndarray) -> np.ndarray:
        return apply_matrix(np.linalg.inv(self._common), points)

    def _keypoints(self, keypoints: Keypoints) -> Keypoints:
        return replace(keypoints, points=self._points(keypoints.points))

    def _quality(self, quality: Quality) -> Quality:
        """The verdict stands on shares alone; its sentence names lengths."""
        numbers = {
            name: value / self.factor if name.endswith("_mm") else value
            for name, value in quality.numbers.items()
        }
        if (quality.verdict, quality.reason) != judge(quality.numbers):  # such as that of a group
            return replace(quality, numbers=numbers)
        return Quality(numbers, *judge(numbers))


def _refuse_unlike(lengths: Mapping[str, float]) -> None:
    if not lengths:
        return
    by_length = sorted(lengths, key=lambda role: lengths[role])
    least, most = by_length[0], by_length[-1]
    if lengths[most] > MOST_UNLIKE * lengths[least]:
        raise InputError(
            f"What the {least} image shows is {_length(lengths[least])} long, and what the {most} "
            f"image shows {_length(lengths[most])}, more than {MOST_UNLIKE:.0f} times as much; "
            "check the voxel sizes and the units in their headers."
        )


def _length(length_mm: float) -> str:
    return f"{length_mm:,.0f} mm" if length_mm > 100 else f"{length_mm:.2g} mm"
