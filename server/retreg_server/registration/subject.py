"""What images show: a retina, a head, or any anatomy. Whatever depends on that is asked here.

The engine, the verdict, the default model and the clients work for any subject; a new one is one
entry of SUBJECTS and the quality measure that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from retreg.errors import InputError, RegistrationError
from retreg.image import Image
from retreg.messages import ImageKind, ModelInfo, RegistrationRequest
from retreg_server.registration.numerics.common_scale import CommonScale, UsualSize

if TYPE_CHECKING:
    from retreg_server.registration.quality.assess import Measure

LARGEST_RATIO = 10.0  # of the sizes of two images of one thing in the same unit
LARGEST_RATIO_OF_UNITS = 2.0  # where one picture counts in pixels and the other in mm


@dataclass(frozen=True)
class Subject:
    """One kind of thing that is registered.

    name: as in ModelInfo.subject. kind: of the images that show it. measure: the class of its
    quality measure, "module:class" below this folder. default_model, keypoint_model: the model
    that is used when none is named, and the one whose network finds its keypoints. length: the
    function, "module:function", that finds the longest side of the subject in mm; empty where the
    subject has no size in the world. size: the usual one. usual: share of the usual agreement of a
    group that an image of it must reach, where other specimens are alike enough to be accepted.
    recognised_by: the function that says whether an image shows it; empty for what all images of
    the kind may show.
    """

    name: str
    kind: ImageKind
    measure: str
    default_model: str
    keypoint_model: str
    length: str = ""
    size: UsualSize | None = None
    usual: float = 0.0
    recognised_by: str = ""

    def at_common_scale(
        self, info: ModelInfo, request: RegistrationRequest
    ) -> tuple[CommonScale, RegistrationRequest]:
        """The request with both images, which are checked, at a size that suits the model."""
        images = {"fixed": request.fixed, "moving": request.moving}
        for role, image in images.items():
            check_kind(info, image, f"The {role} image")
        scale = self.common_scale(images)
        fixed, moving = (scale.enlarged(image) for image in images.values())
        initial = None if request.initial is None else scale.common_map(request.initial)
        return scale, replace(request, fixed=fixed, moving=moving, initial=initial)

    def common_scale(self, images: Mapping[str, Image]) -> CommonScale:
        """The scale at which images, by their roles such as "fixed", suit the models.

        One that does not show the subject has no say; the models refuse it. Raises InputError
        when two show it in sizes that are far apart.
        """
        lengths = {}
        for role, image in images.items() if self.length else ():
            with suppress(RegistrationError):
                lengths[role] = _loaded(self.length)(image, role)
        return CommonScale.of(lengths, next(iter(images.values())).grid.centre, self.size)

    def is_shown_by(self, image: Image) -> bool:
        """Whether an image of its kind is taken to show it."""
        return not self.recognised_by or bool(_loaded(self.recognised_by)(image))

    def measured(self, fixed: Image, moving: Image, seen: object = None) -> Measure:
        """The quality measure of the two images, which finds the subject in each.

        seen: what a model of the subject found out about them (Estimate.seen), if it says. Raises
        RegistrationError when an image does not show the subject.
        """
        known = () if seen is None else (seen,)
        found: Measure = _loaded(self.measure)(fixed, moving, *known)
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
            "quality.volume:VolumeQuality",
            "auto-brain",
            "keymorph-brain",
            "preprocessing.foreground:object_length_mm",
            UsualSize(60.0, 500.0, "the head of a person"),
            0.85,
            "preprocessing.head:shows_head",
        ),
        Subject(
            "anatomy",
            "volume",
            "quality.volume:VolumeQuality",
            "auto-volume",
            "keymorph-brain",
            "preprocessing.foreground:object_length_mm",
            UsualSize(20.0, 700.0, "a part of a person's body"),
            0.85,
        ),
    )
}


def subject_of(*images: Image) -> Subject:
    """The subject that images are taken to show when nobody says: the first that one of them does.

    The first image decides whether they are pictures or volumes.
    """
    kind = image_kind(images[0])
    return next(
        subject
        for subject in SUBJECTS.values()
        if subject.kind == kind and any(subject.is_shown_by(image) for image in images)
    )


def image_kind(image: Image) -> ImageKind:
    """A picture, or a volume."""
    return "picture" if image.is_picture else "volume"


def refuse_other_kinds(images: Mapping[str, Image]) -> None:
    """Raise InputError when some images, by their roles such as "fixed", are pictures, some not."""
    kinds = {role: image_kind(image) for role, image in images.items()}
    (first, expected), *_ = kinds.items()
    for role, kind in kinds.items():
        if kind != expected:
            raise InputError(
                f"The {first} image is a {expected} and the {role} image is a {kind}; all pictures "
                "or all volumes were expected, and a volume must come whole."
            )


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
