#!/usr/bin/env bash
# ITK's rigid and similarity transforms in 3-D keep a rotation as a versor, of which three numbers
# are the parameters; the fourth is taken to be positive.
# Expected: a rotation of 200 degrees is the same as one of -160; put into a composite, or stored and
# read again, the transform is what it was.
# What happens: SetRotation with an angle of more than 180 degrees keeps a negative fourth number, so
# the transform works; a composite that holds it and a file written from it turn the other
# way about the axis. 200 degrees come back as 160, with no message.
# Versions: SimpleITK 2.5.7.
# Why it matters: the transform that was checked before saving is not the one that is read. At 170
# degrees all is well, so only a search over all rotations, or an upturned head, shows it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check SimpleITK==2.5.7
venv/bin/python - <<'PYTHON'
from math import cos, isclose, radians, sin

import SimpleITK as sitk

print("SimpleITK", sitk.Version_VersionString())
kinds = (sitk.VersorTransform, sitk.VersorRigid3DTransform, sitk.Similarity3DTransform,
         sitk.ScaleVersor3DTransform)
for kind in kinds:
    for degrees in (170, 200):
        transform = kind()
        transform.SetRotation((0, 0, 1), radians(degrees))
        turned = transform.TransformPoint((1, 0, 0))
        assert isclose(turned[0], cos(radians(degrees))) and isclose(turned[1], sin(radians(degrees)))
        sign = 1 if degrees < 180 else -1
        for suffix in (".tfm", ".h5"):
            sitk.WriteTransform(transform, "turn" + suffix)
        others = {"composite": sitk.CompositeTransform([transform]),
                  ".tfm": sitk.ReadTransform("turn.tfm"), ".h5": sitk.ReadTransform("turn.h5")}
        for name, other in others.items():
            x, y, _ = other.TransformPoint((1, 0, 0))
            print(f"{transform.GetName()} {degrees} degrees: y {turned[1]:.3f}, {name}: y {y:.3f}")
            assert isclose(x, turned[0]) and isclose(y, sign * turned[1])
print("As stated: past 180 degrees the rotation that is passed on turns the other way")
PYTHON
