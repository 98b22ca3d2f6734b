#!/usr/bin/env bash
# Expected: "bicubic" names one interpolation, exact on a straight ramp of grey.
# What happens: three kernels go by that name. Sampling a ramp 0.3 px to the right, OpenCV's gives
# 0.342, Pillow's transform gives 0.384, Pillow's resize is exact. Pillow has two
# of them under one constant. The kernels' free parameter is -0.75, -1 and -0.5; only the last
# keeps ramps straight.
# Versions: opencv-python-headless 5.0.0.93, pillow 12.0.0, numpy 2.2.6.
# Why it matters: a warp by bicubic moves smooth structure by up to 0.05 or 0.1 px, with a sign that
# changes within the pixel. Sub-pixel registration measured through such a warp has that floor,
# and bilinear, exact on ramps, looks better than it for no visible reason.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check opencv-python-headless==5.0.0.93 pillow==12.0.0 numpy==2.2.6
venv/bin/python - <<'PYTHON'
import cv2
import numpy as np
import PIL
from PIL import Image

print("OpenCV", cv2.__version__, "Pillow", PIL.__version__)
ramp = np.tile(np.arange(64, dtype=np.float32), (64, 1))  # the grey value is x
size, middle = (64, 64), 32


def opencv(shift, kernel):
    matrix = np.float32([[1, 0, shift], [0, 1, 0]])
    return cv2.warpAffine(ramp, matrix, size, flags=kernel | cv2.WARP_INVERSE_MAP)[middle, middle]


def pillow(shift, kernel):
    warped = Image.fromarray(ramp).transform(size, Image.Transform.AFFINE, (1, 0, shift, 0, 1, 0), kernel)
    return np.asarray(warped)[middle, middle]


def pillow_resize(shift, kernel):
    box = (16 + shift, 0, 48 + shift, 64)  # 32 px wide: no change of scale
    return np.asarray(Image.fromarray(ramp).resize((32, 64), kernel, box))[middle, 16]


bicubic, bilinear = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
for name, sample, kernel, stated in (
    ("OpenCV bilinear", opencv, cv2.INTER_LINEAR, 0.3), ("OpenCV bicubic", opencv, cv2.INTER_CUBIC, 0.342),
    ("Pillow transform bilinear", pillow, bilinear, 0.3), ("Pillow transform bicubic", pillow, bicubic, 0.384),
    ("Pillow resize bicubic", pillow_resize, bicubic, 0.3)):
    seen = sample(0.3, kernel) - middle
    print(f"{name}: 0.3 px to the right reads {seen:.3f}")
    assert abs(seen - stated) < 0.002
print("As stated")
PYTHON
