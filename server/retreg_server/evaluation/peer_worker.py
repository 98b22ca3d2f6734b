"""Runs other people's registration in a process of its own, because it may crash."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from tempfile import TemporaryDirectory

import numpy as np

from retreg.errors import RegistrationError
from retreg.image import Image
from retreg_server.evaluation.cost import Cost, measured

TIME_LIMIT_S = 1800.0

Register = Callable[[Image, Image], np.ndarray]
"""Registers a fixed and a moving image; must be a function of a module."""


class PeerWorker:
    """Calls register in a process that starts with the first call, and again after a crash."""

    def __init__(self, name: str, register: Register) -> None:
        self._name = name
        self._register = register
        self._folder = TemporaryDirectory()
        self._worker: BaseProcess | None = None
        self._pipe: Connection | None = None

    def __call__(self, fixed: Image, moving: Image) -> tuple[np.ndarray, Cost]:
        """What register returned, and its cost inside the process. Raises RegistrationError."""
        pipe = self._connected()
        try:
            pipe.send((fixed, moving))
            if not pipe.poll(TIME_LIMIT_S):
                raise EOFError
            answer, cost = pipe.recv()
        except (EOFError, OSError) as error:
            self._stop()
            raise RegistrationError(f"{self._name} crashed or did not end in time.") from error
        if isinstance(answer, str):
            raise RegistrationError(f"{self._name} found no transform ({answer}).")
        return answer, cost

    def _connected(self) -> Connection:
        if self._worker is not None and self._worker.is_alive() and self._pipe is not None:
            return self._pipe
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, self._register, self._folder.name)
        self._worker = context.Process(target=_serve, args=arguments, daemon=True)
        self._worker.start()
        theirs.close()
        return self._pipe

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.join()
            self._worker = None


def _serve(pipe: Connection, register: Register, folder: str) -> None:
    """Answer pairs of images with an array or the name of an error, until the pipe closes.

    Some programs leave files with the images where they run: that is in folder.
    """
    os.chdir(folder)
    while True:
        try:
            fixed, moving = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        result, cost = measured(lambda: register(fixed, moving))  # noqa: B023
        pipe.send((type(result).__name__ if isinstance(result, Exception) else result, cost))
