#!/usr/bin/env bash
# nitransforms reads ITK's composite transforms (.h5), as ANTs and SimpleITK write them.
# Expected: the steps are applied in the order of the file, however many there are.
# What happens: from ten steps on they are applied in another order: the numbered groups of the file
# are taken by name, so step 10 comes before step 2. Nine steps agree with ITK, ten do not; no
# message is given.
# Versions: nitransforms 25.1.0, SimpleITK 2.5.7, numpy 2.2.6.
# Why it matters: chains grow long where the result of each stage or each round of a groupwise
# registration is put on top of the last. The wrong map is as smooth as the right one.
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

warnings.simplefilter("ignore", UserWarning)  # no reference image is set: only points are mapped
print("nitransforms", version("nitransforms"), "SimpleITK", sitk.Version_VersionString())
lps = np.array([-1, -1, 1])


def step(k):
    shear = (1, 0.1, 0, 0, 1, 0, 0, 0, 1) if k % 2 else (1, 0, 0, 0.1, 1, 0, 0, 0, 1)
    return sitk.AffineTransform(shear, (k, 0, 0), (0, 0, 0))


for count in (2, 9, 10, 12):
    chain = sitk.CompositeTransform([step(k) for k in range(count)])
    sitk.WriteTransform(chain, "chain.h5")
    by_itk = np.array(chain.TransformPoint((7, 8, 9)))
    read = nitransforms.manip.load("chain.h5", fmt="itk")
    by_nitransforms = read.map(np.array([[7, 8, 9]]) * lps)[0] * lps
    difference = np.abs(by_itk - by_nitransforms).max()
    print(f"{count} steps: ITK {by_itk.round(3)}, nitransforms {by_nitransforms.round(3)}")
    assert difference < 1e-3 if count < 10 else difference > 1
print("As stated")
PYTHON
