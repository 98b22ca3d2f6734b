"""elastix's affine registration as a baseline, in a process of its own because it may crash."""

from __future__ import annotations

import multiprocessing
import os
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np

from retreg.errors import RegistrationError
from retreg.image import Image
from retreg.transforms import Affine
from retreg_server.evaluation.cost import Cost, measured

TIME_LIMIT_S = 600.0
RESOLUTIONS = 4


def elastix_is_installed() -> bool:
    """Whether itk-elastix can be imported."""
    return find_spec("itk") is not None and find_spec("itk.elxParameterObjectPython") is not None


class ElastixAffine:
    """Mattes mutual information, affine, four resolutions, no masks: elastix's own defaults.

    Only the start differs: the centres of gravity are aligned, which favours it on shifted heads.
    The worker starts with the first call and is started again after a crash.
    """

    def __init__(self) -> None:
        self._worker: BaseProcess | None = None
        self._pipe: Connection | None = None

    def __call__(self, fixed: Image, moving: Image) -> tuple[Affine, Cost]:
        """The affine and what it cost inside the worker. Raises RegistrationError."""
        pipe = self._connected()
        try:
            pipe.send((fixed, moving))
            if not pipe.poll(TIME_LIMIT_S):
                raise EOFError
            answer, cost = pipe.recv()
        except (EOFError, OSError) as error:
            self._stop()
            raise RegistrationError("elastix crashed or did not end in time.") from error
        if isinstance(answer, str):
            raise RegistrationError(answer)
        return Affine(answer), cost

    def _connected(self) -> Connection:
        if self._worker is not None and self._worker.is_alive() and self._pipe is not None:
            return self._pipe
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._worker = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._worker.start()
        theirs.close()
        return self._pipe

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.join()
            self._worker = None


def _serve(pipe: Connection) -> None:
    """Answer pairs of images with a (4, 4) matrix or a sentence, until the other side closes."""
    while True:
        try:
            fixed, moving = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        result, cost = measured(lambda: _register(fixed, moving))  # noqa: B023
        failed = f"elastix found no transform ({type(result).__name__})."
        pipe.send((failed if isinstance(result, Exception) else result, cost))


def _register(fixed: Image, moving: Image) -> np.ndarray:
    """(4, 4) moving_from_fixed in LPS mm."""
    import itk

    parameters = itk.ParameterObject.New()
    settings = parameters.GetDefaultParameterMap("affine", RESOLUTIONS)
    settings["AutomaticTransformInitialization"] = ["true"]
    settings["AutomaticTransformInitializationMethod"] = ["CenterOfGravity"]
    parameters.AddParameterMap(settings)
    _, found = itk.elastix_registration_method(
        _itk_image(fixed),
        _itk_image(moving),
        parameter_object=parameters,
        log_to_console=False,
        number_of_threads=os.cpu_count() or 1,
    )
    answer = found.GetParameterMap(0)
    numbers = np.array([float(text) for text in answer["TransformParameters"]])
    centre = np.array([float(text) for text in answer["CenterOfRotationPoint"]])
    return _matrix(numbers, centre)


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
