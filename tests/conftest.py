"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

sys.path.insert(0, str(Path(__file__).parent))  # documented.py is imported by name

SERIES = generate_uid()
ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
LONGEST = ("test_contract.py", "test_deformable_models.py", "test_auto.py", "test_demo.py")


def pytest_configure(config: pytest.Config) -> None:
    """Processes that share the processor get a thread each: those of xdist inherit this."""
    if config.getoption("numprocesses", None):
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors, as servers are waited for; each may take 2 GB."""
    return min((os.cpu_count() or 1) + 1, 5)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: one that comes last leaves the others idle."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


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
    """A function that writes a DICOM file: see a_dicom."""
    return a_dicom


@pytest.fixture(scope="session")
def retreg_data() -> Path:
    """The folder with the real test images; tests that ask for it are skipped without one."""
    folder = os.environ.get("RETREG_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RETREG_DATA does not name a folder with the test images")
    return Path(folder)
