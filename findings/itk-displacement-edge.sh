#!/usr/bin/env bash
# A displacement field or a B-spline is known on a grid only.
# Expected: beyond the grid the last displacement is kept, or it fades out; no point jumps.
# What happens in ITK (SimpleITK): beyond the grid a transform is the identity. A displacement field
# of 5 mm everywhere moves a point 0.49 voxel outside by 5 mm and one 0.51 voxel outside not at all.
# A B-spline made for an image ends just beyond its border likewise, at a place that neither the image
# nor the mesh names: its domain is a little larger than the image's.
# Versions: SimpleITK 2.5.7, numpy 2.2.6.
# Why it matters: where a field is cut to the brain or to the overlap, landmarks just outside keep
# their old place while their neighbours move: the map tears, and folds if the field points outward.
# The determinant of the Jacobian, computed on the grid, cannot show it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check SimpleITK==2.5.7 numpy==2.2.6
venv/bin/python - <<'PYTHON'
import numpy as np
import SimpleITK as sitk

print("SimpleITK", sitk.Version_VersionString())
field = sitk.GetImageFromArray(np.full((4, 4, 4, 3), 5.0), isVector=True)  # 1 mm voxels
transform = sitk.DisplacementFieldTransform(field)
for x in (3.0, 3.49, 3.51, 9.0):
    moved = transform.TransformPoint((x, 1, 1))[0] - x
    print(f"field, last voxel at 3: x {x} moves by {moved:g}")
    assert np.isclose(moved, 5 if x < 3.5 else 0)

image = sitk.Image([5, 5, 5], sitk.sitkFloat32)  # from -0.5 to 4.5 mm
spline = sitk.BSplineTransformInitializer(image, [2, 2, 2])
spline.SetParameters([5.0] * len(spline.GetParameters()))
start, size = spline.GetTransformDomainOrigin(), spline.GetTransformDomainPhysicalDimensions()
print("B-spline on an image from -0.5 to 4.5: domain from", start[0], "to", start[0] + size[0])
assert start[0] < -0.5 and start[0] + size[0] > 4.5
for x in (4.5, start[0] + size[0] - 0.01, start[0] + size[0] + 0.01):
    moved = spline.TransformPoint((x, 2, 2))[0] - x
    print(f"B-spline: x {x:g} moves by {moved:g}")
    assert np.isclose(moved, 5 if x < start[0] + size[0] else 0)
print("As stated")
PYTHON
