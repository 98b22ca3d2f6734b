"""What a file says of its image beyond voxels and grid, and what two files say of each other."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from retreg.errors import InputError

if TYPE_CHECKING:
    from retreg.image import Image

Content = Literal["", "photograph", "scan", "projection", "other"]
"""Empty: the file does not say. scan: slices of a body. other: radiographs, ultrasound, …"""

_NO_PHOTOGRAPHS = {
    "scan": "a single slice of a scan, such as MR or CT",
    "projection": "a projection or a localizer of a scan",
    "other": "a radiograph, an ultrasound picture or the like",
}


@dataclass(frozen=True)
class About:
    """What the file says of an image; all of it may be empty.

    notes: sentences about what was noticed while the file was read. laterality: R or L.
    region: code of the part of the retina. body_part: as DICOM calls it. patient: number, name
    and day of birth, to be compared only: it is never shown, sent or written. tokens: what stands
    for the patient between the processes of a server, see tokens_of.
    """

    content: Content = ""
    notes: tuple[str, ...] = ()
    laterality: str = ""
    region: str = ""
    body_part: str = ""
    patient: tuple[str, str, str] = field(default=("", "", ""), repr=False)
    tokens: tuple[str, ...] = field(default=(), repr=False)


SAYS_NOTHING = About()


def tokens_of(patient: tuple[str, str, str], key: bytes) -> tuple[str, ...]:
    """What can be compared in place of the patient, and tells nothing without the secret key."""
    return tuple(
        hmac.new(key, f"{n} {value}".encode(), "sha256").hexdigest()[:32] if value else ""
        for n, value in enumerate(patient)
    )


def refuse_scans_as_photographs(images: Mapping[str, Image]) -> None:
    """Raise InputError when a single picture (by role) says that it is no photograph.

    Asked where a model is chosen for the user: one for the retina would be taken for it.
    """
    for role, image in images.items():
        what = _NO_PHOTOGRAPHS.get(image.about.content)
        if image.is_picture and what:
            raise InputError(
                f"The {role} image is {what}, but pictures are registered as photographs of the "
                "retina by default; give the whole volume, or name a model (as with --model) to "
                "register the picture all the same."
            )


def notes_on(fixed: Image, moving: Image) -> tuple[str, ...]:
    """Sentences to read beside a result: what each file says, and where the two contradict."""
    notes = []
    for role, image in (("fixed", fixed), ("moving", moving)):
        what = _NO_PHOTOGRAPHS.get(image.about.content)
        if image.is_picture and what:
            notes.append(f"The {role} image is {what}, and was registered as a picture.")
        notes += [f"Of the {role} image, {note}" for note in image.about.notes]
    return (*notes, *_contradictions(fixed.about, moving.about))


def notes_on_sameness(fixed: Image, moving: Image) -> tuple[str, ...]:
    """A sentence when both images hold the same values, as when one file is given twice."""
    if np.array_equal(fixed.array, moving.array):
        return ("The two images are the same, value by value.",)
    return ()


def _contradictions(fixed: About, moving: About) -> list[str]:
    sides = {"R": "right", "L": "left"}
    notes = []
    pairs = [*zip(fixed.patient, moving.patient, strict=True)]
    pairs += zip(fixed.tokens, moving.tokens, strict=False)
    if any(a and b and a != b for a, b in pairs):
        notes.append("The two images say that they are of different patients.")
    a, b = sides.get(fixed.laterality), sides.get(moving.laterality)
    if a and b and a != b:
        notes.append(f"The fixed image says that it is of the {a} side, the moving one of the {b}.")
    if fixed.region and moving.region and fixed.region != moving.region:
        notes.append("The two images say that they show different regions of the eye.")
    if fixed.body_part and moving.body_part and fixed.body_part != moving.body_part:
        notes.append("The two images say that they are of different parts of the body.")
    return notes
