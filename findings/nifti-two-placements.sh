#!/usr/bin/env bash
# A NIfTI file may hold two placements, the sform and the qform. The usual file of a head brought
# to a template has sform code 4 (template) or 2 (aligned) and qform code 1 (scanner).
# Expected: every reader takes the sform wherever its code is not 0.
# What happens: nibabel takes the sform. SimpleITK takes it only where its code is 1 or the qform
# has none; with code 2 or 4 beside a qform it takes the qform, without a word.
# Versions: SimpleITK 2.5.7, nibabel 5.4.2, numpy 2.2.6.
# Why it matters: a matrix found with one library and applied with the other is off by the whole
# registration that the sform stood for. Nothing but the header tells which one was meant.
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
qform, sform = np.eye(4), np.eye(4)
qform[0, 3], sform[0, 3] = 10, -90  # mm, RAS: the two placements lie 100 mm apart
seen = {}
for sform_code, qform_code in ((1, 1), (1, 2), (2, 0), (2, 1), (3, 3), (4, 1), (4, 2)):
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), None)
    image.set_sform(sform, sform_code)
    image.set_qform(qform, qform_code)
    nibabel.save(image, "two.nii")
    by_nibabel = nibabel.load("two.nii").affine[0, 3]
    by_simpleitk = -sitk.ReadImage("two.nii").GetOrigin()[0]  # LPS to RAS
    taken = "sform" if by_simpleitk == -90 else "qform"
    print(f"sform {sform_code} qform {qform_code}: nibabel x {by_nibabel:g}, SimpleITK x {by_simpleitk:g}")
    assert by_nibabel == -90, "nibabel did not take the sform"
    assert by_simpleitk in (-90, 10)
    seen[sform_code, qform_code] = taken
assert [codes for codes in seen if seen[codes] == "sform"] == [(1, 1), (1, 2), (2, 0)], seen
print("As stated: SimpleITK takes the sform with code 1 or without a qform only")
PYTHON
