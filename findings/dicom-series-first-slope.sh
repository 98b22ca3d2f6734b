#!/usr/bin/env bash
# Each slice of a DICOM series has a rescale slope of its own, as is usual in PET and in some MR.
# Expected: the volume has a type that holds all slices' values.
# What happens in SimpleITK: the type of the volume is the one that the FIRST slice needs. If its slope
# happens to be a whole number the volume is of whole numbers, and the fractions of every other slice
# are cut off with no message. The same slices in the opposite order along the axis keep them.
# Versions: SimpleITK 2.5.7, pydicom 3.0.2, numpy 2.2.6.
# Why it matters: with slopes below 1 (activity, quantitative maps) slices become all zero, so part
# of the volume is empty for the similarity measure.
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
from pydicom.uid import MRImageStorage, ExplicitVRLittleEndian, generate_uid

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


def read(slopes):
    series, frame = generate_uid(), generate_uid()
    for k, slope in enumerate(slopes):
        image = image_of(MRImageStorage, 4, 5, 16)
        image.SeriesInstanceUID, image.FrameOfReferenceUID, image.Modality = series, frame, "MR"
        image.PixelSpacing, image.SliceThickness = [1, 1], 1
        image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, k], [1, 0, 0, 0, 1, 0]
        image.RescaleSlope, image.RescaleIntercept, image.InstanceNumber = slope, 0, k + 1
        image.PixelData = np.full((4, 5), 11, np.uint16).tobytes()
        image.save_as(f"{k}.dcm", enforce_file_format=True)
    volume = sitk.ReadImage([f"{k}.dcm" for k in range(len(slopes))])
    values = sitk.GetArrayFromImage(volume)[:, 0, 0]
    print(f"11 in each, slopes {slopes}: {volume.GetPixelIDTypeAsString()}, {values}")
    return values


assert np.allclose(read([0.05, 0.5, 1]), [0.55, 5.5, 11])
assert np.array_equal(read([1, 0.5, 0.05]), [11, 5, 0])
print("As stated")
PYTHON
