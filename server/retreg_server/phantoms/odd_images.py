"""Images that nobody would register, but that files can hold: for sweeps that look for crashes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation

from retreg.geometry import Grid
from retreg.image import Image

SIDES = (1, 2, 3, 4, 5, 8, 12, 13, 20, 40)
TYPES = ("uint8", "int8", "int16", "uint16", "int32", "float32", "float64")
EXPONENTS = (-6.0, 6.0)  # of the spacing in mm, to the base of ten
STRETCHES = (1.0, 1.0, 1.0, 4.0, 30.0)  # of the spacing along one axis
FARTHEST_MM = 5e6  # a grid holds no larger numbers

Content = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _ball(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    axes = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else [0.0] for n in shape), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.6
    values: np.ndarray = inside * (60.0 + 30 * random.random(shape))
    return values


def _with(value: float, share: float) -> Content:
    def content(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.where(random.random(shape) < share, value, _ball(random, shape))

    return content


CONTENTS: dict[str, Content] = {
    "nothing": lambda _, shape: np.zeros(shape),
    "constant": lambda _, shape: np.full(shape, 7.0),
    "noise": lambda random, shape: 100 * random.random(shape),
    "ball": _ball,
    "ramp": lambda _, shape: np.linspace(-50, 50, int(np.prod(shape))).reshape(shape),
    "one voxel": lambda _, shape: np.where(np.arange(np.prod(shape)) == 0, 99, 0).reshape(shape),
    "not a number": lambda _, shape: np.full(shape, np.nan),
    "holes": _with(np.nan, 0.3),
    "infinities": _with(np.inf, 0.05),
    "huge numbers": _with(1e38, 0.1),
    "padding": _with(-32768.0, 0.5),
}


def odd_image(seed: int) -> tuple[str, Image]:
    """A description, and an image of any size, axes, spacing, strides, type and content."""
    random = np.random.default_rng(seed)
    size = tuple(int(n) for n in random.choice(SIDES, 3))
    if seed % 2:  # every other one large enough to be looked at, and some of those with few slices
        size = tuple(int(n) for n in random.choice(SIDES[6:], 3))
    if seed % 6 == 1:
        few = [*size]
        few[int(random.integers(3))] = int(random.choice(SIDES[:6]))
        size = tuple(few)
    name = str(random.choice(list(CONTENTS)))
    stretches: tuple[float, ...] = STRETCHES
    if seed % 10 == 3:  # something that can be registered, apart from its size and axes
        size, name, stretches = (20, 24, 22), str(random.choice(["ball", "holes", "noise"])), (1.0,)
    kind = str(random.choice(TYPES))
    with np.errstate(invalid="ignore"):
        array = CONTENTS[name](random, size[::-1]).astype(kind)
    order = "as it is"
    if random.random() < 0.3:  # read-only, backwards in memory
        array, order = array[::-1, ::-1, ::-1], "backwards"
    spacing = 10 ** (random.uniform(*EXPONENTS) if random.random() < 0.7 else 0.0)
    grid = Grid((size[0], size[1], size[2]), _matrix(random, spacing, stretches))
    return f"{seed}: {size} {kind} {name}, {spacing:.2g} mm, {order}", Image(array[None], grid)


def _matrix(
    random: np.random.Generator, spacing: float, stretches: tuple[float, ...]
) -> np.ndarray:
    """(4, 4) with permuted, reversed and now and then oblique axes of unlike spacing."""
    linear = np.eye(3)[random.permutation(3)] * random.choice((-1.0, 1.0), 3)
    if random.random() < 0.3:
        linear = Rotation.random(random_state=int(random.integers(1 << 30))).as_matrix() @ linear
    matrix = np.eye(4)
    matrix[:3, :3] = linear * np.minimum(spacing * random.choice(stretches, 3), FARTHEST_MM)
    matrix[:3, 3] = (random.normal(size=3) * spacing * 50).clip(-FARTHEST_MM, FARTHEST_MM)
    return matrix
