"""elastix's affine and B-spline registration, as baselines."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import numpy as np

from retreg.image import Image

RESOLUTIONS = 4


def elastix_is_installed() -> bool:
    """Whether itk-elastix can be imported."""
    return find_spec("itk") is not None and find_spec("itk.elxParameterObjectPython") is not None


def elastix_affine(fixed: Image, moving: Image) -> np.ndarray:
    """(4, 4) moving_from_fixed in LPS mm.

    Mattes mutual information, affine, four resolutions, no masks: elastix's own defaults. Only
    the start differs: the centres of gravity are aligned, which favours it on shifted heads.
    """
    import itk

    parameters = itk.ParameterObject.New()
    settings = parameters.GetDefaultParameterMap("affine", RESOLUTIONS)
    settings["AutomaticTransformInitialization"] = ["true"]
    settings["AutomaticTransformInitializationMethod"] = ["CenterOfGravity"]
    parameters.AddParameterMap(settings)
    answer = _registered(fixed, moving, parameters, os.cpu_count() or 1).GetParameterMap(0)
    numbers = np.array([float(text) for text in answer["TransformParameters"]])
    centre = np.array([float(text) for text in answer["CenterOfRotationPoint"]])
    return _matrix(numbers, centre)


def elastix_bspline(fixed: Image, moving: Image) -> np.ndarray:
    """Displacements (3, k, j, i) in LPS mm on the grid of fixed; the volumes lie roughly right.

    Mattes mutual information, cubic B-splines, four resolutions: elastix's own defaults. One
    thread only, because more of them crash this stage (itk-elastix 0.25).
    """
    import itk

    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap(parameters.GetDefaultParameterMap("bspline", RESOLUTIONS))
    found = _registered(fixed, moving, parameters, 1)
    field = itk.transformix_deformation_field(_itk_image(moving), found)
    return np.moveaxis(itk.array_from_image(field), -1, 0).astype(np.float64)


def _registered(fixed: Image, moving: Image, parameters: Any, threads: int) -> Any:
    import itk

    _, found = itk.elastix_registration_method(
        _itk_image(fixed),
        _itk_image(moving),
        parameter_object=parameters,
        log_to_console=False,
        number_of_threads=threads,
    )
    return found


def _matrix(numbers: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """x → A (x − centre) + centre + t as (4, 4); numbers holds A by rows, then t."""
    count = len(centre)
    linear, shift = numbers[: count * count].reshape(count, count), numbers[count * count :]
    matrix = np.eye(4)
    matrix[:count, :count] = linear
    matrix[:count, 3] = centre + shift - linear @ centre
    return matrix


def _itk_image(image: Image) -> object:
    import itk

    grey = image.grey()
    if image.is_picture:
        return itk.image_from_array(np.ascontiguousarray(grey[0]))
    grid = image.grid
    converted = itk.image_from_array(np.ascontiguousarray(grey))
    converted.SetSpacing([float(value) for value in grid.spacing])
    converted.SetOrigin([float(value) for value in grid.world_from_index[:3, 3]])
    converted.SetDirection(itk.matrix_from_array(np.ascontiguousarray(grid.direction)))
    return converted
