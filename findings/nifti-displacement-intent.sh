#!/usr/bin/env bash
# A displacement field in NIfTI carries an intent code: 1006 (displacement vector) or 1007 (vector).
# Expected: both are lists of vectors, read alike; what was read can be written again.
# What happens in SimpleITK: the components of a field with 1006 have x and y negated (RAS to LPS),
# those of a field with 1007 are left alone. A field read with 1006 cannot be written to NIfTI again
# (an error is raised), until the intent is lost from the image; then it is written as 1007 with
# the negated values, which a reader that goes by RAS takes for another field.
# Versions: SimpleITK 2.5.7, nibabel 5.4.2, numpy 2.2.6.
# Why it matters: the code that changes the sign of x and y is one number in the header. Set it to
# the name that fits better, and the registration moves the other way.
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
field = np.zeros((3, 3, 3, 1, 3), np.float32)
field[...] = 1, 2, 3
read = {}
for intent in (1006, 1007):
    image = nibabel.Nifti1Image(field, np.eye(4))
    image.header.set_intent(intent)
    nibabel.save(image, f"{intent}.nii")
    read[intent] = sitk.ReadImage(f"{intent}.nii")
    print(f"(1, 2, 3) in the file, intent {intent}: SimpleITK reads", read[intent][0, 0, 0])
assert read[1006][0, 0, 0] == (-1, -2, 3) and read[1007][0, 0, 0] == (1, 2, 3)

sitk.WriteImage(read[1007], "again.nii")
try:
    sitk.WriteImage(read[1006], "again.nii")
    raise SystemExit("the field with intent 1006 was written")
except RuntimeError as refusal:
    print("writing the 1006 field:", str(refusal).splitlines()[-1][-120:])
    assert "RAS conversion requires" in str(refusal)
read[1006].EraseMetaData("intent_code")
sitk.WriteImage(read[1006], "again.nii")
written = nibabel.load("again.nii")
print("without its intent:", written.header["intent_code"], written.get_fdata()[0, 0, 0, 0])
assert written.header["intent_code"] == 1007
assert tuple(written.get_fdata()[0, 0, 0, 0]) == (-1, -2, 3)
print("As stated")
PYTHON
