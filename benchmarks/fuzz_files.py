"""Throw mutated files at one reader: python benchmarks/fuzz_files.py ENDING SECONDS

ENDING is one of nrrd, nii, nii.gz, mha, png, tif, jpg, dcm. Needs the package atheris. Whatever is
not a RetRegError or a MemoryError is a mistake, and ends the run, as a crash of a library does. The
memory is limited as in the server's process for files.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import atheris
import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

with atheris.instrument_imports(include=["retreg"]):
    from retreg.errors import RetRegError
    from retreg.files import read_image
from retreg_server.serving.workers.process_main import limit_memory

MEMORY_BYTES = 2 << 30
MOST_CHANGES = 6
NUMBERS = (b"0", b"-1", b"1", b"3", b"9", b"20000", b"65536", b"4294967295", b"nan", b"1e308")
BYTES = (0, 1, 2, 4, 8, 16, 32, 64, 127, 128, 255)


def seeds(ending: str, folder: Path) -> list[bytes]:
    """Small whole files of the format, with voxels that are not compressed where possible."""
    rng = np.random.default_rng(0)
    volume = SimpleITK.GetImageFromArray(rng.integers(0, 255, (4, 5, 6), np.uint8))
    picture = SimpleITK.GetImageFromArray(rng.integers(0, 255, (9, 8, 3), np.uint8), isVector=True)
    path = folder / f"seed.{ending.removesuffix('.gz')}"
    if ending == "dcm":
        write_dicom(path)
        return [path.read_bytes()]
    image = picture if ending in ("png", "tif", "jpg") else volume
    found = []
    for is_compressed in (False, True):
        SimpleITK.WriteImage(image, str(path), useCompression=is_compressed)
        found.append(path.read_bytes())
    return found[:1] if ending.startswith("nii") else found


def write_dicom(path: Path) -> None:
    """A slice with all that a reader looks at."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.SeriesInstanceUID, data.PatientName = "1.2.4", "Secret^Patient"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored = 6, 5, 16, 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    data.PixelSpacing, data.RescaleSlope, data.RescaleIntercept = [1, 1], 2, -5
    data.PixelData = bytes(60)
    pydicom.dcmwrite(path, data, enforce_file_format=True)


def mutated(seed: bytes, choose: Any) -> bytes:
    """A few bytes, numbers or stretches of the file changed."""
    content = bytearray(seed)
    for _ in range(choose.ConsumeIntInRange(0, MOST_CHANGES)):
        if not content:
            break
        at = choose.ConsumeIntInRange(0, len(content) - 1)
        match choose.ConsumeIntInRange(0, 5):
            case 0:
                content[at] = choose.ConsumeIntInRange(0, 255)
            case 1:
                content[at] = BYTES[choose.ConsumeIntInRange(0, len(BYTES) - 1)]
            case 2:
                number = NUMBERS[choose.ConsumeIntInRange(0, len(NUMBERS) - 1)]
                content[at : at + len(number)] = number
            case 3:
                del content[at:]
            case 4:
                del content[at : at + choose.ConsumeIntInRange(1, 16)]
            case _:
                content[at:at] = choose.ConsumeBytes(choose.ConsumeIntInRange(1, 16))
    return bytes(content)


def main() -> None:
    """Fuzz for a while."""
    ending, seconds = sys.argv[1:]
    with TemporaryDirectory() as folder:
        whole = seeds(ending, Path(folder))
        path = Path(folder) / f"file.{ending}"

        def one(data: bytes) -> None:
            choose = atheris.FuzzedDataProvider(data)
            content = mutated(whole[choose.ConsumeIntInRange(0, len(whole) - 1)], choose)
            path.write_bytes(gzip.compress(content, 1) if ending.endswith(".gz") else content)
            try:
                read_image(path)
            except (RetRegError, MemoryError):
                return

        path.write_bytes(gzip.compress(whole[0]) if ending.endswith(".gz") else whole[0])
        read_image(path)
        limit_memory(MEMORY_BYTES)
        limits = ("-rss_limit_mb=4000", "-len_control=0", "-max_len=200")
        flags = (f"-max_total_time={seconds}", *limits)
        atheris.Setup([sys.argv[0], *flags], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
