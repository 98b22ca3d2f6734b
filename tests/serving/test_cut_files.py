"""Files cut at every 1 % of their length: a sentence for each, and the server lives on."""

from __future__ import annotations

import re

import numpy as np
import pydicom
import pytest
import requests
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, MRImageStorage

from retreg.files import write_image
from retreg.geometry import Grid
from retreg.image import Image

ENDINGS = (".nrrd", ".raw.nrrd", ".nii", ".nii.gz", ".mha", ".png", ".tif", ".jpg", ".dcm")
LAST_PIXEL = {".png": 95, ".jpg": 95, ".tif": 85}  # percent; a checksum or remarks come after it


def write_dicom(path, pixels, syntax=ExplicitVRLittleEndian):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.SeriesInstanceUID, data.PatientName = "1.2.4", "Secret^Patient"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    data.PixelSpacing, data.PixelData = [1, 1], pixels.tobytes()
    pydicom.dcmwrite(path, data, enforce_file_format=True)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory) -> dict[str, bytes]:
    """A small file of each format, by its ending."""
    folder, rng = tmp_path_factory.mktemp("whole"), np.random.default_rng(0)
    for ending in ENDINGS:
        path = folder / f"whole{ending}"
        if ending == ".dcm":
            write_dicom(path, rng.integers(0, 999, (24, 20), np.uint16))
        elif ending == ".raw.nrrd":
            volume = SimpleITK.GetImageFromArray(rng.integers(0, 255, (8, 10, 12), np.uint8))
            SimpleITK.WriteImage(volume, str(path), useCompression=False)
        else:
            size = (40, 30, 1) if ending in (".png", ".tif", ".jpg") else (12, 10, 8)
            array = rng.integers(0, 255, (1, *size[::-1])).astype(np.uint8)
            if ending in (".tif", ".jpg"):
                SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array[0, 0]), str(path))
            else:
                write_image(path, Image(array, Grid(size, np.eye(4))))
    return {ending: (folder / f"whole{ending}").read_bytes() for ending in ENDINGS}


def answer_to(server, session: requests.Session, content: bytes, name: str) -> requests.Response:
    """To a session of MONAI Label's with one file, which the server reads at once."""
    return session.put(f"{server.url}/session/", files={"files": (name, content)}, timeout=30)


def assert_refused(answer: requests.Response) -> None:
    assert answer.status_code == 422, answer.text
    message = answer.json()["message"]
    assert re.fullmatch(r"\w.{10,}\.", message), message
    assert "Traceback" not in message


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_cut_at_every_percent_is_refused(a_server, wholes, ending):
    whole, name = wholes[ending], f"ünïcödé 患者{ending}"
    with requests.Session() as session:
        assert answer_to(a_server, session, whole, name).status_code == 200
        for percent in range(100):
            answer = answer_to(a_server, session, whole[: len(whole) * percent // 100], name)
            if percent < LAST_PIXEL.get(ending, 100):
                assert_refused(answer)
            assert answer.status_code in (200, 422)
            assert "患者" not in answer.text
    assert a_server.get("/healthz").ok


def test_a_deflated_dicom_bomb_is_refused_before_it_is_inflated(a_server, tmp_path):
    path = tmp_path / "bomb.dcm"
    write_dicom(path, np.zeros((6000, 6000), np.uint16), DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 200_000  # for 72 MB
    with requests.Session() as session:
        answer = answer_to(a_server, session, path.read_bytes(), "bomb.dcm")
    assert_refused(answer)
    assert "deflated" in answer.json()["message"]
