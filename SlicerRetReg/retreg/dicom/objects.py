"""All objects of one registration that pydicom alone can make."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retreg.dicom.derived import Words, derived_series, refuse_other_scans
from retreg.dicom.derived_picture import brighter_is_more, photograph, refuse_other_pictures
from retreg.dicom.fiducials import fiducials_object
from retreg.dicom.registration import Pair, registration_object
from retreg.dicom.source import Source, refuse_unusable_pair
from retreg.errors import FileError
from retreg.image import Image
from retreg.messages import RegistrationResult
from retreg.resample import resample

KINDS = ("series", "registration", "fiducials", "report")
"""What can be made; series stands for all pictures, and a report needs more than this module."""


@dataclass(frozen=True, eq=False)
class Registered:
    """Two images, the objects that they come from, and the result that relates them."""

    fixed: Image
    moving: Image
    sources: tuple[Source, Source]
    result: RegistrationResult
    version: str

    def __post_init__(self) -> None:
        refuse_unusable(self.moving, *self.sources)
        if self.result.quality.verdict == "fail":
            raise FileError(
                "The registration failed, so no DICOM objects are made of it: an archive should "
                "keep only what may be right."
            )

    @property
    def pair(self) -> Pair:
        """What the objects need to know of the images."""
        return Pair(*self.sources, self.fixed.grid, self.version)

    @property
    def words(self) -> Words:
        """How a series says what it is."""
        made = self.result.provenance
        family = str(made.get("options", {}).get("transform", ""))
        family = "edited by hand" if "edited" in made else family
        judged = {"accept": "accepted", "check": "to be checked"}[self.result.quality.verdict]
        return Words(", ".join(part for part in (family, judged) if part))


def refuse_unusable(moving_image: Image, fixed: Source, moving: Source) -> None:
    """Raise FileError, with the reason, for images of which no DICOM objects can be made."""
    refuse_unusable_pair(fixed, moving)
    if moving.is_placed:
        refuse_other_scans(moving, moving_image)
    else:
        refuse_other_pictures(moving_image, fixed, moving)


def objects_of(
    registered: Registered, kinds: Collection[str] = KINDS
) -> Iterator[tuple[str, Any]]:
    """(name of the file below its folder, pydicom data set) of every object of some kinds.

    series/0001.dcm and so on for volumes, registered.dcm and blink.dcm for photographs;
    registration.dcm, and with keypoints fiducials.dcm. Raises FileError.
    """
    pair, result = registered.pair, registered.result
    if "registration" in kinds:
        yield "registration.dcm", registration_object(pair, result.transform)
    if "fiducials" in kinds and len(result.fixed_keypoints):
        points = (result.fixed_keypoints, result.moving_keypoints)
        yield "fiducials.dcm", fiducials_object(pair, registered.moving.grid, *points)
    if "series" in kinds:
        yield from _pictures(registered, pair)


def _pictures(registered: Registered, pair: Pair) -> Iterator[tuple[str, Any]]:
    warped = resample(registered.moving, registered.result.transform, pair.grid)
    if pair.fixed.is_placed:
        for number, data in enumerate(derived_series(pair, warped, registered.words), start=1):
            yield f"series/{number:04d}.dcm", data
        return
    fixed, moved = (
        brighter_is_more(image.array, source)
        for image, source in zip((registered.fixed, warped), registered.sources, strict=True)
    )
    data = photograph(pair, moved, registered.words)
    yield "registered.dcm", data
    if fixed.dtype == moved.dtype:
        yield "blink.dcm", _blink(registered, (fixed, moved), str(data.SeriesInstanceUID))


def _blink(registered: Registered, pictures: Sequence[np.ndarray], series: str) -> Any:
    """The fixed picture and the registered moving one, as two frames of one object."""
    colours = max(map(len, pictures))
    frames = [each.repeat(colours // len(each), axis=0) for each in pictures]
    words = Words(f"{registered.words.how}; blinks")
    data = photograph(registered.pair, np.concatenate(frames, axis=1), words, number=2)
    data.SeriesInstanceUID = series
    return data
