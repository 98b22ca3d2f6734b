"""Made-up DICOM series."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence


@pytest.fixture
def oblique():
    """Row and column directions of an oblique plane, and its normal."""
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    normal = np.cross(turn[:, 0], turn[:, 1])
    return turn[:, 0], turn[:, 1], normal


@pytest.fixture
def a_series(tmp_path, oblique, write_dicom):
    """A function that writes a folder of slices in a scrambled order."""
    row, column, normal = oblique
    cosines = [round(float(c), 12) for c in (*row, *column)]

    def write(name="series", count=6, heights=None, pixels=None, shift=0, **attributes):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True, parents=True)
        heights = np.arange(count) * 2.5 if heights is None else heights
        rng = np.random.default_rng(0)
        if pixels is None:
            pixels = rng.integers(-500, 2000, (len(heights), 5, 7), dtype=np.int16)
        for n in rng.permutation(len(heights)):
            position = np.array([10, -20, 30]) + heights[n] * (normal + shift * row)
            write_dicom(
                folder / f"{(n * 7919) % 1000:04d}_{attributes.get('EchoNumbers', 0)}",
                pixels[n],
                ImagePositionPatient=[round(float(p), 10) for p in position],
                **{"PixelSpacing": [0.5, 0.75], "SliceThickness": 2.5,
                   "ImageOrientationPatient": cosines, **attributes},
            )  # fmt: skip
        return folder, pixels

    return write


@pytest.fixture
def enhanced(oblique):
    """A function that makes functional groups of frames at given heights along the normal."""
    row, column, normal = oblique

    def groups(heights, slopes=None):
        def group(**items):
            outer = Dataset()
            for name, attributes in items.items():
                inner = Dataset()
                for key, value in attributes.items():
                    setattr(inner, key, value)
                setattr(outer, name, Sequence([inner]))
            return outer

        shared = group(
            PixelMeasuresSequence={"PixelSpacing": [0.5, 0.75], "SliceThickness": 9},
            PlaneOrientationSequence={"ImageOrientationPatient": [round(float(c), 12) for c in
                                                                  (*row, *column)]},
        )  # fmt: skip
        frames = []
        for n, height in enumerate(heights):
            position = [round(float(p), 10) for p in [1, 2, 3] + height * normal]
            place = {"PlanePositionSequence": {"ImagePositionPatient": position}}
            value = {"RescaleSlope": slopes[n] if slopes else 1, "RescaleIntercept": 0}
            frames.append(group(**place, PixelValueTransformationSequence=value))
        return {
            "SharedFunctionalGroupsSequence": Sequence([shared]),
            "PerFrameFunctionalGroupsSequence": Sequence(frames),
        }

    return groups
