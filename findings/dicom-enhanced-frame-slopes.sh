#!/usr/bin/env bash
# Expected: each frame of an enhanced DICOM image is scaled by the rescale slope of that frame.
# What happens in SimpleITK (GDCM): the slope of the first frame scales all of them, with no message.
# The same frames as single files of a series are scaled each by its own.
# Versions: SimpleITK 2.5.7, pydicom 3.0.2, numpy 2.2.6.
# Why it matters: slices get wrong brightness steps between them, which a similarity by squared
# differences or correlation follows instead of the anatomy.
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
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

print("SimpleITK", sitk.Version_VersionString(), "pydicom", __version__)


def enhanced(heights, slopes):
    """What geometry needs of an enhanced MR image of 1.5 mm pixels; frame k holds 100 + k."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.FrameOfReferenceUID, image.Modality = generate_uid(), "MR"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns, image.NumberOfFrames = 4, 5, len(heights)
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    plane, measures, shared = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [1.5, 1.5], 2
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [shared], []
    for height, slope in zip(heights, slopes, strict=True):
        position, value, frame = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [10, 20, height]
        value.RescaleIntercept, value.RescaleSlope, value.RescaleType = 0, slope, "US"
        frame.PlanePositionSequence = [position]
        frame.PixelValueTransformationSequence = [value]
        image.PerFrameFunctionalGroupsSequence.append(frame)
    image.PixelData = b"".join(np.full(20, 100 + k, np.uint16).tobytes() for k in range(len(heights)))
    image.save_as("enhanced.dcm", enforce_file_format=True)
    return sitk.ReadImage("enhanced.dcm")


slopes = [2, 3, 4, 5]
seen = sitk.GetArrayFromImage(enhanced([0, 2, 4, 6], slopes))[:, 0, 0]
own = [slope * (100 + k) for k, slope in enumerate(slopes)]
print("each by its own slope:", own, "read:", seen)
assert list(seen) == [2 * (100 + k) for k in range(4)]
print("As stated")
PYTHON
