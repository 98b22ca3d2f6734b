"""A model that does nothing, or is busy for a while; what remains is the server."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from retreg.messages import Keypoints, ModelInfo, Option, RegistrationRequest, RegistrationResult
from retreg.progress import Progress
from retreg.quality import Quality
from retreg.transforms import Affine
from retreg_server.serving.workers.model_worker import ModelWorker

SECONDS = Option("seconds", "How long to be busy", 0.0, minimum=0.0)
NONCE = Option("nonce", "Makes a request differ from the others", 0)


class NullEngine:
    """Answers with the identity and 512 keypoints."""

    def models(self) -> tuple[tuple[ModelInfo, ...], Mapping[str, str]]:
        """One model for every image."""
        info = ModelInfo("null", "Nothing", ("picture", "volume"), ("affine",), (SECONDS, NONCE))
        return (info,), {}

    def register(self, request: RegistrationRequest, progress: Progress) -> RegistrationResult:
        """Be busy as long as the options say."""
        until = time.monotonic() + float(request.options["seconds"])
        while time.monotonic() < until:
            np.sort(np.random.default_rng(0).random(200_000))
            progress("busy", 0.5)
        points = np.random.default_rng(0).uniform(-90, 90, (512, 3))
        each = Keypoints(points, np.ones(512), np.ones(512, bool))
        return RegistrationResult(Affine.identity(), each, each, Quality({}, "accept", "Yes."), {})

    def free(self) -> None:
        """Nothing to free."""

    def device_memory(self) -> int:
        """None."""
        return 0

    def device_count(self) -> int:
        """None."""
        return 0


def worker() -> ModelWorker:
    """What the worker process of the benchmark runs."""
    return ModelWorker(NullEngine())
