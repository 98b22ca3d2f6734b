"""The moving image on the grid of the fixed one, as a series in the study of the fixed image.

It lies in the frame of reference of the fixed image, so every viewer can show both together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from retreg.dicom.copied import BY_MODALITY, LOOK, SPACE, copy
from retreg.dicom.new_object import code, decimal, new_object
from retreg.dicom.registration import Pair
from retreg.dicom.source import Source
from retreg.dicom.stored_values import Storage, storage_of
from retreg.errors import FileError
from retreg.geometry import Grid
from retreg.image import Image

_SERIES = 1
_CLASSES = {"MR": "1.2.840.10008.5.1.4.1.1.4", "CT": "1.2.840.10008.5.1.4.1.1.2"}
_KINDS = {"MR": "OTHER", "CT": "AXIAL"}  # value 3 of the image type
_REQUIRED: dict[str, dict[str, Any]] = {  # what must stand there even when nobody knows
    "MR": {
        "ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": None,
        "MRAcquisitionType": None, "EchoTime": None, "EchoTrainLength": None,
        "RepetitionTime": None,
    },
    "CT": {"KVP": None, "AcquisitionNumber": None, "RescaleType": "HU"},
}  # fmt: skip


@dataclass(frozen=True)
class Words:
    """What the series says of itself. how: such as "affine, accepted"."""

    how: str

    @property
    def title(self) -> str:
        """The description of the series."""
        return f"RetReg registered ({self.how})"  # at most 64 letters

    @property
    def derivation(self) -> str:
        """How it was made, in a sentence."""
        return (
            f"Another series resampled on the grid of a fixed one by registration ({self.how}); "
            "linear interpolation."
        )


def derived_series(pair: Pair, warped: Image, words: Words) -> Iterator[Any]:
    """One pydicom data set for each slice of the moving image on the grid of the fixed one.

    warped: (1, k, j, i) on pair.grid.
    """
    modality = str(pair.moving.header.Modality)
    storage = storage_of(pair.moving, warped.array)
    first = _common(pair, modality, storage, words)
    _say_where(first, warped.grid)
    for name in ("SOPInstanceUID", "InstanceNumber"):
        del first[name]  # each slice has its own
    for number in range(warped.grid.size[2]):
        yield _slice(first, warped, storage, number)


def refuse_other_scans(moving: Source, image: Image) -> None:
    """Raise FileError for what is neither MR nor CT, or has colours."""
    modality = str(moving.header.get("Modality") or "")
    if modality not in _CLASSES or len(image.array) != 1:
        raise FileError(
            f"A registered series can be written of MR and CT, not of {modality or 'others'}."
        )


def _common(pair: Pair, modality: str, storage: Storage, words: Words) -> Any:
    """What all slices share."""
    data = new_object(
        pair.fixed, _CLASSES[modality], modality, words.title, _SERIES, pair.version
    )
    for name, value in _REQUIRED[modality].items():
        setattr(data, name, value)
    data.PositionReferenceIndicator = data.PatientPosition = ""
    copy(data, pair.fixed.header, SPACE)
    copy(data, pair.moving.header, (*LOOK, *BY_MODALITY[modality]))
    data.ImageType = ["DERIVED", "SECONDARY", _KINDS[modality]]
    _say_whence(data, pair, words)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    if pair.moving.header.PhotometricInterpretation == "MONOCHROME1":
        data.PhotometricInterpretation = "MONOCHROME1"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, storage.bits, storage.bits - 1
    data.PixelRepresentation = int(storage.is_signed)
    if storage.is_rescaled or modality == "CT":
        data.RescaleSlope = decimal(storage.slope)
        data.RescaleIntercept = decimal(storage.intercept)
        data.RescaleType = data.get("RescaleType") or "US"
    return data


def _say_whence(data: Any, pair: Pair, words: Words) -> None:
    """Name the two series: one reference each, as the slices of a volume would be too many."""
    from pydicom.dataset import Dataset

    data.DerivationDescription = words.derivation
    data.DerivationCodeSequence = [code("113085", "DCM", "Spatial resampling")]
    related = []
    for source, purpose in (
        (pair.moving, code("121322", "DCM", "Source image for image processing operation")),
        (pair.fixed, code("121330", "DCM", "Alignment")),
    ):
        item = Dataset()
        item.StudyInstanceUID = source.header.StudyInstanceUID
        item.SeriesInstanceUID = source.header.SeriesInstanceUID
        item.PurposeOfReferenceCodeSequence = [purpose]
        related.append(item)
    data.RelatedSeriesSequence = related


def _say_where(data: Any, grid: Grid) -> None:
    """What the places of all slices have in common."""
    across = np.cross(grid.direction[:, 0], grid.direction[:, 1])
    thickness = abs(float(grid.world_from_index[:3, 2] @ across))
    data.SliceThickness = data.SpacingBetweenSlices = decimal(thickness)
    data.PixelSpacing = [decimal(grid.spacing[1]), decimal(grid.spacing[0])]
    data.ImageOrientationPatient = [decimal(v) for v in grid.direction[:, :2].T.ravel()]
    data.Rows, data.Columns = grid.size[1], grid.size[0]


def _slice(first: Any, warped: Image, storage: Storage, number: int) -> Any:
    """One slice, numbered from 1 in the order of the grid; it shares the elements of first."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import generate_uid

    data = Dataset(dict(first.items()))
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = first.file_meta.TransferSyntaxUID
    data.SOPInstanceUID, data.InstanceNumber = generate_uid(prefix=None), number + 1
    data.ImagePositionPatient = [
        decimal(v) for v in warped.grid.world(np.array([[0.0, 0.0, number]]))[0]
    ]
    data.PixelData = storage.stored(warped.array[0, number]).tobytes()
    return data
