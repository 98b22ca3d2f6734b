"""What images show: a retina, a head. Whatever depends on that is asked here.

The engine, the verdict, the default model and the clients work for any subject; a new one is one
entry of SUBJECTS and the quality measure that it names.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from retreg.errors import InputError
from retreg.image import Image
from retreg.messages import ImageKind, ModelInfo

if TYPE_CHECKING:
    from retreg_server.registration.quality.assess import Measure


@dataclass(frozen=True)
class Subject:
    """One kind of thing that is registered.

    name: as in ModelInfo.subject. kind: of the images that show it. measure: the class of its
    quality measure, "module:class" below this folder. default_model, keypoint_model: the model
    that is used when none is named, and the one whose network finds its keypoints. length: the
    function, "module:function", that finds the longest side of the subject in mm; empty where the
    subject has no size in the world.
    """

    name: str
    kind: ImageKind
    measure: str
    default_model: str
    keypoint_model: str
    length: str = ""

    def longest_mm(self, image: Image, role: str) -> float | None:
        """The longest side of the subject in an image; None where it has no size in the world.

        Raises RegistrationError or InputError when the image does not show it.
        """
        if not self.length:
            return None
        found: float = _loaded(self.length)(image, role)
        return found

    def measured(self, fixed: Image, moving: Image) -> Measure:
        """The quality measure of the two images, which finds the subject in each.

        Raises RegistrationError when an image does not show it.
        """
        found: Measure = _loaded(self.measure)(fixed, moving)
        return found


def _loaded(place: str) -> Any:
    """What "module:name" below this folder names."""
    module, name = place.split(":")
    return getattr(import_module(f"retreg_server.registration.{module}"), name)


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject(
            "retina", "picture", "quality.retina:PictureQuality", "auto-fundus", "keymorph-fundus"
        ),
        Subject(
            "head",
            "volume",
            "quality.head:VolumeQuality",
            "auto-brain",
            "keymorph-brain",
            "preprocessing.head_mask:head_length_mm",
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
