#!/usr/bin/env bash
# Analyze 7.5 (.hdr and .img) is the format before NIfTI; old brain archives and atlases are in it.
# Expected: two readers may differ in where the origin is, but not in the handedness of the axes.
# What happens: nibabel places it left-handed (x to the left, y to the front, z up; the origin at
# the centre voxel), SimpleITK right-handed (x to the left, y to the BACK, z up; the origin at the
# first voxel). So front and back are swapped between them. Also the origin that SPM's kind of
# Analyze keeps in the header is read by nibabel and passed over by SimpleITK.
# Versions: SimpleITK 2.5.7, nibabel 5.4.2, numpy 2.2.6.
# Why it matters: a mirror cannot be undone by a rotation, so rigid registration of the two
# readings of one file must fail, and an affine one that succeeds has a negative determinant.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check SimpleITK==2.5.7 nibabel==5.4.2 numpy==2.2.6
venv/bin/python - <<'PYTHON'
import nibabel
import numpy as np
import SimpleITK as sitk

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # that Analyze is deprecated
print("SimpleITK", sitk.Version_VersionString(), "nibabel", nibabel.__version__)
lps_from_ras = np.diag([-1.0, -1, 1, 1])


def by_simpleitk(name):
    image = sitk.ReadImage(name)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return affine


plain = nibabel.AnalyzeImage(np.zeros((5, 5, 5), np.float32), None)
plain.header.set_zooms((2, 2, 2))
nibabel.save(plain, "plain.img")
first, second = lps_from_ras @ nibabel.load("plain.img").affine, by_simpleitk("plain.hdr")
print("LPS mm from index, nibabel:\n", first, "\nSimpleITK:\n", second)
assert np.array_equal(np.diag(first), (2, -2, 2, 1)) and np.array_equal(np.diag(second), (2, 2, 2, 1))
assert np.linalg.det(first) < 0 < np.linalg.det(second)
assert np.array_equal(first @ (2, 2, 2, 1), (0, 0, 0, 1)) and not second[:3, 3].any()

header = nibabel.Spm99AnalyzeImage.header_class()
header.set_data_shape((5, 5, 5))
header.set_zooms((2, 2, 2))
header["origin"][:3] = 2, 2, 4  # counted from 1
nibabel.Spm99AnalyzeImage(np.zeros((5, 5, 5), np.float32), None, header).to_filename("spm.img")
print("SPM's origin: nibabel", nibabel.load("spm.img").affine[:3, 3], "SimpleITK", by_simpleitk("spm.hdr")[:3, 3])
assert np.array_equal(nibabel.load("spm.img").affine @ (1, 1, 3, 1), (0, 0, 0, 1))
assert not by_simpleitk("spm.hdr")[:3, 3].any()
print("As stated")
PYTHON
