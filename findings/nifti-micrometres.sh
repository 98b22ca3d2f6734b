#!/usr/bin/env bash
# A NIfTI header names its unit of length: metres, millimetres or micrometres.
# Expected: two readers agree on where a voxel lies; and one reader treats the unit alike in every
# format that names one.
# What happens: SimpleITK turns NIfTI's micrometres and metres into millimetres (spacing and
# origin), nibabel's affine keeps the header's numbers: the two differ by a factor of 1000. The
# same SimpleITK reads an NRRD file whose "space units" are "um" as if they were millimetres.
# Versions: SimpleITK 2.5.7, nibabel 5.4.2, numpy 2.2.6.
# Why it matters: pictures of the retina and of small animals come in micrometres. Registering one
# that was converted from NRRD to its NIfTI twin starts from a scale of 1000.
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
voxels = np.zeros((2, 2, 2), np.float32)
affine = np.diag([-20.0, -20, 20, 1])
affine[:3, 3] = -500, -500, 500
for unit, millimetres in (("micron", 0.001), ("mm", 1), ("meter", 1000)):
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, "unit.nii")
    read = sitk.ReadImage("unit.nii")
    print(unit, "nibabel", nibabel.load("unit.nii").affine[2, 2:], "SimpleITK",
          read.GetSpacing()[2], read.GetOrigin()[2])
    assert nibabel.load("unit.nii").affine[2, 2] == 20
    assert np.allclose(read.GetSpacing(), 20 * millimetres)
    assert np.allclose(read.GetOrigin(), 500 * millimetres)

header = '''NRRD0005
type: float
dimension: 3
space: left-posterior-superior
sizes: 2 2 2
space directions: (20,0,0) (0,20,0) (0,0,20)
space origin: (500,500,500)
space units: "um" "um" "um"
endian: little
encoding: raw

'''
with open("unit.nrrd", "wb") as file:
    file.write(header.encode() + voxels.tobytes())
read = sitk.ReadImage("unit.nrrd")
print("NRRD in um: SimpleITK", read.GetSpacing()[2], read.GetOrigin()[2])
assert read.GetSpacing() == (20, 20, 20) and read.GetOrigin() == (500, 500, 500)
print("As stated")
PYTHON
