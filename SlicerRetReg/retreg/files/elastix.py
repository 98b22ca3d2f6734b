"""elastix's TransformParameters files: lists of "(Key value …)", one transform each.

Source: the elastix manual, 5.x, chapter "Transform Parameters File", and elxTransformBase.hxx.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from retreg.bspline import BSpline
from retreg.errors import FileError
from retreg.files.doors import existing_file
from retreg.files.limits import MAX_TRANSFORM_BYTES
from retreg.geometry import Grid
from retreg.transforms import Affine, Chain, ThinPlateSpline, Transform

_LINE = re.compile(r"^\s*\((\w+)\s+(.*?)\)\s*(?://.*)?$", re.MULTILINE)
_WORD = re.compile(r'"([^"]*)"|([^\s"]+)')
_START = re.compile(rb"\A(?:\s|//[^\n]*\n)*\(\w+ ")
_MOST_FILES = 16
_LINEAR = {"TranslationTransform", "EulerTransform", "SimilarityTransform", "AffineTransform"}
_BSPLINES = {"BSplineTransform", "RecursiveBSplineTransform"}
_INITIAL = ("InitialTransformParametersFileName", "InitialTransformParameterFileName")

Parameters = dict[str, list[str]]


def is_elastix(start: bytes) -> bool:
    """Whether a file that starts so is one of elastix's."""
    return bool(_START.match(start))


def read_elastix(path: Path, depth: int = _MOST_FILES) -> Transform:
    """The transform, after the initial one that the file names, which must lie beside it.

    Raises FileError for transforms of another kind, and for those that are added and not composed.
    """
    given: Parameters = {
        key: [quoted or bare for quoted, bare in _WORD.findall(words)]
        for key, words in _LINE.findall(path.read_text(encoding="utf-8"))
    }
    own = _transform(given, path.name)
    initial = next((given[key][0] for key in _INITIAL if key in given), "NoInitialTransform")
    if initial == "NoInitialTransform":
        return own
    if given.get("HowToCombineTransforms", ["Compose"]) != ["Compose"]:
        raise FileError(f"{path.name} adds its initial transform; only Compose is supported.")
    if depth <= 1:
        raise FileError(f"{path.name} belongs to a chain of more than {_MOST_FILES} files.")
    beside = path.parent / re.split(r"[/\\]", initial)[-1]
    existing_file(beside, MAX_TRANSFORM_BYTES)
    return Chain((read_elastix(beside, depth - 1), own))


def _transform(given: Parameters, name: str) -> Transform:
    kind = given.get("Transform", ["no transform"])[0]
    if kind in _LINEAR:
        return _linear(kind, given)
    if kind in _BSPLINES and given.get("UseCyclicTransform", ["false"]) == ["false"]:
        return _bspline(given)
    if kind == "SplineKernelTransform" and given["SplineKernelType"] == ["ThinPlateSpline"]:
        return _thin_plate(given)
    raise FileError(
        f"{name} holds a {kind} of elastix that is not supported; write its displacement field "
        "with transformix -def all, and give that file."
    )


def _linear(kind: str, given: Parameters) -> Affine:
    """SimpleITK has the same classes, with the same order of parameters."""
    import SimpleITK as sitk

    from retreg.files.itk_transforms import from_linear

    dimension = int(given["FixedImageDimension"][0])
    classes: dict[str, Any] = {
        "TranslationTransform": lambda: sitk.TranslationTransform(dimension),
        "EulerTransform": sitk.Euler2DTransform if dimension == 2 else sitk.Euler3DTransform,
        "SimilarityTransform": (
            sitk.Similarity2DTransform if dimension == 2 else sitk.Similarity3DTransform
        ),
        "AffineTransform": lambda: sitk.AffineTransform(dimension),
    }
    transform = classes[kind]()
    if kind == "EulerTransform" and dimension == 3:
        transform.SetComputeZYX(given.get("ComputeZYX", ["false"]) == ["true"])
    if kind != "TranslationTransform":
        transform.SetCenter(_numbers(given, "CenterOfRotationPoint").tolist())
    transform.SetParameters(_numbers(given, "TransformParameters").tolist())
    return from_linear(transform)


def _bspline(given: Parameters) -> BSpline:
    dimension = int(given["FixedImageDimension"][0])
    size = [int(n) for n in given["GridSize"]] + [1] * (3 - dimension)
    direction = _numbers(given, "GridDirection").reshape(dimension, dimension).T  # by columns
    matrix = np.eye(4)
    matrix[:dimension, :dimension] = direction * _numbers(given, "GridSpacing")
    first = matrix[:dimension, :dimension] @ _numbers(given, "GridIndex")
    matrix[:dimension, 3] = _numbers(given, "GridOrigin") + first
    i, j, k = size
    coefficients = np.zeros((3, k, j, i))
    values = _numbers(given, "TransformParameters")
    coefficients[:dimension] = values.reshape(dimension, k, j, i)
    order = int(given.get("BSplineTransformSplineOrder", ["3"])[0])
    return BSpline(coefficients, Grid((i, j, k), matrix), order)


def _thin_plate(given: Parameters) -> ThinPlateSpline:
    dimension = int(given["FixedImageDimension"][0])
    sides = []
    for key in ("FixedImageLandmarks", "TransformParameters"):
        numbers = _numbers(given, key).reshape(-1, dimension)
        sides.append(np.pad(numbers, ((0, 0), (0, 3 - dimension))))
    relaxation = float(given.get("SplineRelaxationFactor", ["0"])[0])
    if relaxation:
        raise FileError("A spline with a relaxation factor other than 0 is not supported.")
    return ThinPlateSpline(sides[0], sides[1])


def _numbers(given: Parameters, key: str) -> np.ndarray:
    return np.array([float(word) for word in given[key]])
