#!/usr/bin/env bash
# A DICOM ophthalmic photograph states its Pixel Spacing (for a fundus camera it must, PS3.3
# C.8.17.2); a secondary capture may.
# Expected: the reader that takes it from a secondary capture takes it from the photograph.
# What happens in SimpleITK (GDCM): the class of the object decides. The very same attributes give
# 0.01 mm for a single-frame secondary capture, and 1 mm for the ophthalmic photograph and for the
# multi-frame secondary capture, with no message.
# Versions: SimpleITK 2.5.7, pydicom 3.0.2, numpy 2.2.6.
# Why it matters: one retina photographed twice and stored as two classes differs in scale by 100,
# and errors reported in mm for the photograph are pixels.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check SimpleITK==2.5.7 pydicom==3.0.2 numpy==2.2.6
venv/bin/python - <<'PYTHON'
import numpy as np
import SimpleITK as sitk
from pydicom import Dataset, FileMetaDataset, __version__
from pydicom.uid import (
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    OphthalmicPhotography8BitImageStorage,
    SecondaryCaptureImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

print("SimpleITK", sitk.Version_VersionString(), "pydicom", __version__)


def image_of(sop_class, rows, columns, bits):
    """A DICOM image without its pixels."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = sop_class
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns, image.PixelRepresentation = rows, columns, 0
    image.BitsAllocated, image.BitsStored, image.HighBit = bits, bits, bits - 1
    return image


spacings = {}
for sop_class in (SecondaryCaptureImageStorage, OphthalmicPhotography8BitImageStorage,
                  MultiFrameGrayscaleByteSecondaryCaptureImageStorage):
    image = image_of(sop_class, 4, 4, 8)
    image.Modality, image.PixelSpacing = "OP", [0.01, 0.01]
    if sop_class != SecondaryCaptureImageStorage:
        image.NumberOfFrames = 1
    image.PixelData = bytes(16)
    image.save_as("image.dcm", enforce_file_format=True)
    spacings[sop_class] = sitk.ReadImage("image.dcm").GetSpacing()[:2]
    print(sop_class.name, "with Pixel Spacing 0.01:", spacings[sop_class])
assert list(spacings.values()) == [(0.01, 0.01), (1, 1), (1, 1)]
print("As stated")
PYTHON
