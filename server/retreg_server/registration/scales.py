"""Whether a transform that keeps distances can bring two images together at all."""

from __future__ import annotations

from retreg.errors import InputError
from retreg.image import Image

LARGEST_RATIO = 10.0  # of the sizes of two images of one thing in the same unit
LARGEST_RATIO_OF_UNITS = 2.0  # where one picture counts in pixels and the other in mm


def refuse_other_scale(transform: object, fixed: Image, moving: Image) -> None:
    """Raise InputError when transform is rigid and the sizes of the images are too different.

    A picture without a scale counts in its pixels, which a rigid transform takes for millimetres.
    """
    if transform != "rigid":
        return
    sizes = [image.grid.diagonal_mm for image in (fixed, moving)]
    ratio = max(sizes) / min(sizes)
    without = [image.grid.is_unscaled_picture for image in (fixed, moving)]
    if ratio <= (LARGEST_RATIO_OF_UNITS if without[0] != without[1] else LARGEST_RATIO):
        return
    fixed_size, moving_size = (
        f"{size:.0f} px" if bare else f"{size:.3g} mm"
        for size, bare in zip(sizes, without, strict=True)
    )
    raise InputError(
        f"The fixed image measures {fixed_size} from corner to corner and the moving one "
        f"{moving_size}, and a rigid transform cannot change the scale 1 : {ratio:.0f}; choose "
        "similarity, or give both images their true pixel spacing."
    )
