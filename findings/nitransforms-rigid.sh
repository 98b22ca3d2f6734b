#!/usr/bin/env bash
# nitransforms reads ITK's linear transforms (.tfm, .txt, .h5).
# Expected: whatever ITK writes for a linear map is read, above all a rigid one.
# What happens: only the affine class is read. The rigid, similarity and translation classes raise an
# error about the shape of an array; and an affine transform that is alone in an .h5 file is passed
# over, since the first entry of the file is always taken to be the composite's own.
# Versions: nitransforms 25.1.0, SimpleITK 2.5.7, numpy 2.2.6.
# Why it matters: the result of a rigid registration has to be turned into an affine one, and put
# into a composite for .h5, before the other library can use it. The message says neither.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check nitransforms==25.1.0 SimpleITK==2.5.7 numpy==2.2.6
venv/bin/python - <<'PYTHON'
import warnings
from importlib.metadata import version

import nitransforms
import numpy as np
import SimpleITK as sitk
from nitransforms.io.itk import ITKCompositeH5

warnings.simplefilter("ignore")
print("nitransforms", version("nitransforms"), "SimpleITK", sitk.Version_VersionString())
rigid = sitk.Euler3DTransform((1, 2, 3), 0.1, 0.2, 0.3, (4, 5, 6))
affine = sitk.AffineTransform(rigid.GetMatrix(), rigid.GetTranslation(), rigid.GetCenter())
others = (rigid, sitk.VersorRigid3DTransform((0, 0, 1), 0.3, (4, 5, 6)),
          sitk.Similarity3DTransform(1.1, (0, 0, 1), 0.3), sitk.TranslationTransform(3, (1, 2, 3)))
for transform in others:
    sitk.WriteTransform(transform, "linear.tfm")
    try:
        nitransforms.linear.load("linear.tfm", fmt="itk")
        raise SystemExit(f"{transform.GetName()} was read")
    except ValueError as refusal:
        print(f"{transform.GetName()}: {refusal}")

sitk.WriteTransform(affine, "linear.tfm")
mapped = nitransforms.linear.load("linear.tfm", fmt="itk").map(np.array([[-7, -8, 9]]))[0]
print("the same rigid map as AffineTransform: read,", mapped)
assert np.allclose(mapped * (-1, -1, 1), rigid.TransformPoint((7, 8, 9)), atol=1e-5)
for name, transform in (("alone", affine), ("in a composite", sitk.CompositeTransform([affine]))):
    sitk.WriteTransform(transform, "linear.h5")
    found = len(ITKCompositeH5.from_filename("linear.h5"))
    print(f".h5, {name}: {found} transforms found")
    assert found == (0 if name == "alone" else 1)
print("As stated")
PYTHON
