"""Made-up DICOM files."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

SERIES = generate_uid()


def a_dicom(path, pixels, syntax=ExplicitVRLittleEndian, **attributes):
    """Write pixels (frames, rows, columns) or (rows, columns[, 3]) and any other attributes."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SeriesInstanceUID = SERIES
    data.PatientName = "Secret^Patient"
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    data.Rows, data.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(data, name, value)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


@pytest.fixture(scope="session")
def write_dicom():
    """The function above."""
    return a_dicom


@pytest.fixture
def oblique():
    """Row and column directions of an oblique plane, and its normal."""
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    normal = np.cross(turn[:, 0], turn[:, 1])
    return turn[:, 0], turn[:, 1], normal


@pytest.fixture
def a_series(tmp_path, oblique):
    """A function that writes a folder of slices in a scrambled order."""
    row, column, normal = oblique
    cosines = [round(float(c), 12) for c in (*row, *column)]

    def write(name="series", count=6, heights=None, pixels=None, shift=0, **attributes):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True, parents=True)
        heights = np.arange(count) * 2.5 if heights is None else heights
        rng = np.random.default_rng(0)
        if pixels is None:
            pixels = rng.integers(-500, 2000, (len(heights), 5, 7), dtype=np.int16)
        for n in rng.permutation(len(heights)):
            position = np.array([10, -20, 30]) + heights[n] * (normal + shift * row)
            a_dicom(
                folder / f"{(n * 7919) % 1000:04d}_{attributes.get('EchoNumbers', 0)}",
                pixels[n],
                ImagePositionPatient=[round(float(p), 10) for p in position],
                **{"PixelSpacing": [0.5, 0.75], "SliceThickness": 2.5,
                   "ImageOrientationPatient": cosines, **attributes},
            )  # fmt: skip
        return folder, pixels

    return write


@pytest.fixture
def enhanced(oblique):
    """A function that makes functional groups of frames at given heights along the normal."""
    row, column, normal = oblique

    def groups(heights, slopes=None):
        def group(**items):
            outer = Dataset()
            for name, attributes in items.items():
                inner = Dataset()
                for key, value in attributes.items():
                    setattr(inner, key, value)
                setattr(outer, name, Sequence([inner]))
            return outer

        shared = group(
            PixelMeasuresSequence={"PixelSpacing": [0.5, 0.75], "SliceThickness": 9},
            PlaneOrientationSequence={"ImageOrientationPatient": [round(float(c), 12) for c in
                                                                  (*row, *column)]},
        )  # fmt: skip
        frames = []
        for n, height in enumerate(heights):
            position = [round(float(p), 10) for p in [1, 2, 3] + height * normal]
            place = {"PlanePositionSequence": {"ImagePositionPatient": position}}
            value = {"RescaleSlope": slopes[n] if slopes else 1, "RescaleIntercept": 0}
            frames.append(group(**place, PixelValueTransformationSequence=value))
        return {
            "SharedFunctionalGroupsSequence": Sequence([shared]),
            "PerFrameFunctionalGroupsSequence": Sequence(frames),
        }

    return groups
