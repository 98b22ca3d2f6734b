"""What every new object has: whose it is, what made it, and when."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from retreg.dicom.copied import PATIENT_AND_STUDY, copy
from retreg.dicom.source import Source

MAKER = "SlicerRetReg"
SERIES_NUMBERS = 9000  # what is added to the number of the fixed series: far from those of scanners
_DS_LETTERS = 16
EMPTY = (  # type 2: there, even when nobody knows
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


def new_object(
    fixed: Source, sop_class: str, modality: str, description: str, series: int, version: str
) -> Any:
    """A pydicom data set in the study of the fixed image, in a series of its own.

    description: of the series, without anything about the patient. series: what is added to the
    number of the fixed series. version: of this software.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    data, now = Dataset(), datetime.now().astimezone()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    give_to_study(data, fixed)
    data.SOPClassUID, data.SOPInstanceUID = sop_class, generate_uid(prefix=None)
    data.SeriesInstanceUID = generate_uid(prefix=None)
    data.Modality, data.SeriesDescription = modality, description
    data.SeriesNumber = SERIES_NUMBERS + series + int(fixed.header.get("SeriesNumber") or 0)
    data.InstanceNumber = 1
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    for name in ("InstanceCreation", "Series", "Content"):
        setattr(data, f"{name}Date", date)
        setattr(data, f"{name}Time", time)
    data.TimezoneOffsetFromUTC = now.strftime("%z")
    data.Manufacturer = data.ManufacturerModelName = MAKER
    data.DeviceSerialNumber = MAKER
    data.SoftwareVersions = version
    return data


def give_to_study(data: Any, fixed: Source) -> None:
    """Say whose the object is: patient and study of the fixed image, and the part of the body.

    A photograph is one of an eye, which has a side.
    """
    header = fixed.header
    for name in EMPTY:
        setattr(data, name, "")
    copy(data, header, PATIENT_AND_STUDY)
    if not fixed.is_placed:
        data.BodyPartExamined = data.get("BodyPartExamined") or "EYE"
        data.Laterality = side_of(fixed.header)
    elif not data.get("BodyPartExamined"):
        data.Laterality = data.get("Laterality") or ""


def side_of(header: Any) -> str:
    """R, L or B, which eyes a photograph with that header shows; empty where it does not say."""
    side = str(header.get("ImageLaterality") or header.get("Laterality") or "").upper()
    return side if side in ("R", "L", "B") else ""


def save(data: Any, path: Path) -> None:
    """Write an object as a file of DICOM's format."""
    import pydicom

    pydicom.dcmwrite(path, with_file_header(data), enforce_file_format=True)


def with_file_header(data: Any) -> Any:
    """The same object, with what stands at the beginning of its file (PS3.10, 7.1)."""
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.preamble = b"\0" * 128
    return data


def content(data: Any, label: str, description: str) -> None:
    """Name the content of a registration or of fiducials (PS3.3 table 10-12)."""
    data.ContentLabel, data.ContentDescription = label, description
    data.ContentCreatorName = f"RetReg^{MAKER}"


def decimal(value: float) -> str:
    """A number as a decimal string: as exact as its 16 letters allow."""
    value = float(value) + 0.0  # no minus zero
    for digits in range(16, 5, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= _DS_LETTERS:
            return text
    return f"{value:.5g}"


def code(value: str, scheme: str, meaning: str) -> Any:
    """A coded entry."""
    from pydicom.dataset import Dataset

    entry = Dataset()
    entry.CodeValue, entry.CodingSchemeDesignator, entry.CodeMeaning = value, scheme, meaning
    return entry
