"""Made-up DICOM images as they come from archives, and the checker of Debian's dicom3tools."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

sys.path.append(str(Path(__file__).parent))  # for the module that the tests here share

from made_up_dicom import AXIAL, CT, ENHANCED_MR, MR, OP, OP_16, STUDY

from retreg.dicom.new_object import save
from retreg.dicom.registration import Pair
from retreg.dicom.source import source_of
from retreg.files import read_image


@pytest.fixture
def a_scan(tmp_path, write_dicom):
    """A function that writes a series of slices: smooth blobs along an axis of the body."""

    def write(name, axes=AXIAL, shape=(5, 8, 9), study="1.2.3", modality="MR", **attributes):
        folder = tmp_path / name
        folder.mkdir()
        k, j, i = np.indices(shape)
        pixels = (1000 + 40 * i - 30 * j + 55 * k + 3 * i * j).astype(np.int16)
        series, frame = generate_uid(), generate_uid()
        normal = np.cross(*axes)
        kind = {"MR": MR, "CT": CT}.get(modality, MR)
        for n in range(shape[0]):
            position = np.array([10.0, -20.0, 30.0]) + 2.5 * n * normal
            write_dicom(
                folder / f"{n}.dcm", pixels[n],
                **{**STUDY, "StudyInstanceUID": study, "SeriesInstanceUID": series,
                   "FrameOfReferenceUID": frame, "SOPClassUID": kind, "Modality": modality,
                   "SeriesNumber": 4, "InstanceNumber": n + 1, "BodyPartExamined": "BRAIN",
                   "PositionReferenceIndicator": "", "PatientPosition": "HFS",
                   "PixelSpacing": [0.75, 0.5], "SliceThickness": 2.5,
                   "ImageOrientationPatient": [float(f"{c:.12f}") for a in axes for c in a],
                   "ImagePositionPatient": [float(f"{c:.9f}") for c in position],
                   **attributes},
            )  # fmt: skip
        return folder

    return write


@pytest.fixture
def a_photograph(tmp_path, write_dicom):
    """A function that writes a picture of the eye, by default in colour."""

    def write(name, pixels=None, **attributes):
        if pixels is None:
            pixels = np.random.default_rng(len(name)).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        more = {
            **STUDY, "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": generate_uid(),
            "SOPClassUID": OP if pixels.dtype == np.uint8 else OP_16, "Modality": "OP",
            "ImageLaterality": "R",
        }  # fmt: skip
        return write_dicom(tmp_path / f"{name}.dcm", pixels, **{**more, **attributes})

    return write


@pytest.fixture
def enhanced_scan(tmp_path, write_dicom):
    """A multi-frame scan with other rescaling in each frame."""

    def group(**items):
        outer = Dataset()
        for name, attributes in items.items():
            inner = Dataset()
            for key, value in attributes.items():
                setattr(inner, key, value)
            setattr(outer, name, [inner])
        return outer

    shared = group(
        PixelMeasuresSequence={"PixelSpacing": [0.75, 0.5], "SliceThickness": 2.5},
        PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
    )
    frames = [
        group(
            PlanePositionSequence={"ImagePositionPatient": [10, -20, 30 + 2.5 * n]},
            PixelValueTransformationSequence={"RescaleSlope": 1 + n, "RescaleIntercept": n},
        )
        for n in range(5)
    ]
    pixels = np.random.default_rng(0).integers(0, 4000, (5, 8, 9), dtype=np.uint16)
    return write_dicom(
        tmp_path / "enhanced.dcm", pixels,
        **{**STUDY, "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": generate_uid(),
           "SOPClassUID": ENHANCED_MR, "Modality": "MR", "FrameOfReferenceUID": generate_uid(),
           "BodyPartExamined": "BRAIN",
           "SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": frames},
    )  # fmt: skip


@pytest.fixture
def pair_of():
    """A function that makes the pair of two files or folders."""

    def made(fixed, moving):
        return Pair(source_of(fixed), source_of(moving), read_image(fixed).grid, "0.1")

    return made


@pytest.fixture(scope="session")
def dciodvfy():
    """A function that gives the errors that dciodvfy finds in an object."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy of dicom3tools is not installed")

    def errors(data, folder):
        path = folder / "checked.dcm"
        save(data, path)
        said = subprocess.run([program, path], capture_output=True, text=True, check=False)
        lines = (said.stdout + said.stderr).splitlines()
        assert any(line.strip() for line in lines), "it names at least the kind of object"
        return [line for line in lines if line.startswith("Error")]

    return errors
