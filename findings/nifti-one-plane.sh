#!/usr/bin/env bash
# A NIfTI file may have two dimensions only; its sform still places the plane in the head.
# Expected: a sagittal plane is read like an axial one, and the height of the plane is kept.
# What happens in SimpleITK: the placement is cut down to its upper left 2 x 2 corner. An axial
# plane loses its height, so planes at 10 and 60 mm are the same image; a sagittal plane is refused
# with "Bad direction, determinant is 0". With a third dimension of 1 both are read in full.
# Versions: SimpleITK 2.5.7, nibabel 5.4.2, numpy 2.2.6.
# Why it matters: slices to be registered into a volume are kept like this. One orientation loses
# its place without a word, another cannot be read, and the message speaks of neither.
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

print("SimpleITK", sitk.Version_VersionString(), "nibabel", nibabel.__version__)
axial = {height: np.eye(4) for height in (10, 60)}
for height, affine in axial.items():
    affine[2, 3] = height
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5), np.float32), affine), f"{height}.nii")
sagittal = np.array([[0.0, 0, 1, 7], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5), np.float32), sagittal), "plane.nii")
nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 1), np.float32), sagittal), "slab.nii")

low, high = sitk.ReadImage("10.nii"), sitk.ReadImage("60.nii")
print("axial at 10 and 60 mm:", low.GetDimension(), low.GetOrigin(), high.GetOrigin())
assert low.GetDimension() == 2 and low.GetOrigin() == high.GetOrigin()
assert [nibabel.load(f"{height}.nii").affine[2, 3] for height in axial] == [10, 60]
try:
    sitk.ReadImage("plane.nii")
    raise SystemExit("the sagittal plane was read")
except RuntimeError as refusal:
    print("sagittal, two dimensions:", *str(refusal).splitlines()[1:2])
    assert "determinant is 0" in str(refusal)
slab = sitk.ReadImage("slab.nii")
print("sagittal, third dimension of 1:", slab.GetSize(), slab.GetOrigin(), slab.GetDirection())
assert slab.GetOrigin() == (-7, 0, 0)
print("As stated")
PYTHON
