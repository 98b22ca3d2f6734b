"""What images show: a retina, a head. Whatever depends on that is asked here.

The engine, the verdict, the default model and the clients work for any subject; a new one is one
entry of SUBJECTS and the quality measure that it names.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from retreg.errors import InputError
from retreg.image import Image
from retreg.messages import ImageKind, ModelInfo

if TYPE_CHECKING:
    from retreg_server.registration.quality.assess import Measure

LARGEST_RATIO = 10.0  # of the sizes of two images of one thing in the same unit
LARGEST_RATIO_OF_UNITS = 2.0  # where one picture counts in pixels and the other in mm


@dataclass(frozen=True)
class Subject:
    """One kind of thing that is registered.

    name: as in ModelInfo.subject. kind: of the images that show it. measure: the class of its
    quality measure, "module:class" below this folder. default_model, keypoint_model: the model
    that is used when none is named, and the one whose network finds its keypoints. usual: share of
    the usual agreement of a group that an image of it must reach, where other specimens are alike
    enough to be accepted.
    """

    name: str
    kind: ImageKind
    measure: str
    default_model: str
    keypoint_model: str
    usual: float = 0.0

    def measured(self, fixed: Image, moving: Image) -> Measure:
        """The quality measure of the two images, which finds the subject in each.

        Raises RegistrationError when an image does not show it.
        """
        module, name = self.measure.split(":")
        found: Measure = getattr(import_module(f"retreg_server.registration.{module}"), name)(
            fixed, moving
        )
        return found


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject(
            "retina", "picture", "quality.retina:PictureQuality", "auto-fundus", "keymorph-fundus"
        ),
        Subject(
            "head", "volume", "quality.head:VolumeQuality", "auto-brain", "keymorph-brain", 0.85
        ),
    )
}


def subject_of(image: Image) -> Subject:
    """The subject that an image is taken to show when nobody says: the first of its kind."""
    kind = image_kind(image)
    return next(subject for subject in SUBJECTS.values() if subject.kind == kind)


def image_kind(image: Image) -> ImageKind:
    """A picture, or a volume."""
    return "picture" if image.is_picture else "volume"


def check_kind(info: ModelInfo, image: Image, name: str) -> None:
    """Raise InputError for an image that cannot show the subject of a model.

    name: of the image for the message, such as "The fixed image".
    """
    kind, expected = image_kind(image), SUBJECTS[info.subject].kind
    if kind != expected:
        raise InputError(f"{name} is a {kind}; {info.name} registers {expected}s.")


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
