#!/usr/bin/env bash
# An sform is any affine map: its columns may have other lengths than pixdim says, and need not be
# at right angles (a gantry tilt, an affine registration written into the header).
# Expected: a reader that uses the sform uses all of it, or refuses it.
# What happens in SimpleITK: the lengths come from pixdim even where the direction and the origin
# come from the sform (a warning is printed); a sheared sform of code 1 is refused if the file has no qform, but is
# read if it has one: then the qform, which cannot hold a shear, is taken without a word.
# Versions: SimpleITK 2.5.7, nibabel 5.4.2, numpy 2.2.6.
# Why it matters: the same file has another size, or another shape, in nibabel. An affine
# registration between the two readings of one file is not the identity.
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
voxels = np.zeros((4, 4, 4), np.float32)
image = nibabel.Nifti1Image(voxels, None)
image.header.set_sform(np.diag([2.0, 2, 2, 1]), 1)  # pixdim stays 1, 1, 1
nibabel.save(image, "scaled.nii")
lengths = np.linalg.norm(nibabel.load("scaled.nii").affine[:3, :3], axis=0)
spacing = sitk.ReadImage("scaled.nii").GetSpacing()
print("sform of 2 mm, pixdim of 1: nibabel", lengths, "SimpleITK", spacing)
assert tuple(lengths) == (2, 2, 2) and spacing == (1, 1, 1)

sheared = np.diag([2.0, 2, 2, 1])
sheared[0, 1] = 0.6
for qform_code in (0, 1):
    image = nibabel.Nifti1Image(voxels, sheared)
    image.set_sform(sheared, 1)
    image.set_qform(sheared, qform_code)  # nibabel keeps the nearest rotation
    nibabel.save(image, "sheared.nii")
    assert np.allclose(nibabel.load("sheared.nii").affine, sheared)
    try:
        direction = np.array(sitk.ReadImage("sheared.nii").GetDirection()).reshape(3, 3)
        print("sheared sform with a qform: read, columns at right angles:\n", direction.round(3))
        assert qform_code == 1 and np.allclose(direction.T @ direction, np.eye(3), atol=1e-5)
    except RuntimeError as refusal:
        print("sheared sform without a qform: refused:", str(refusal).splitlines()[-1])
        assert qform_code == 0 and "orthonormal" in str(refusal)
print("As stated")
PYTHON
