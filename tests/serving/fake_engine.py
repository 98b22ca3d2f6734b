"""A stand-in for the models; it runs in the worker process and leaves its requests in a folder."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from retreg import wire
from retreg.errors import RegistrationError
from retreg.messages import Keypoints, ModelInfo, Option, RegistrationRequest, RegistrationResult
from retreg.progress import Progress
from retreg.quality import Quality
from retreg.transforms import Affine, ThinPlateSpline
from retreg_server.serving.workers.model_worker import ModelWorker

KINDS = ("affine", "tps", "nothing", "crash", "die", "hang", "oom", "small-oom", "greedy",
         "wrong")  # fmt: skip
OPTIONS = (
    Option("shift", "Shift along x in mm", 0.0),
    Option("steps", "Steps of 20 ms", 0, minimum=0, maximum=1000),
    Option("kind", "What to do", "affine", choices=KINDS),
    Option("mirror", "A switch", False),
    Option("axis", "Of what is rigid", "none", choices=("none", "AP"), families=("rigid",)),
    Option("smoothing", "Smoothing", 0.0, minimum=0.0),
    Option("transform", "Family", "affine", choices=("rigid", "affine")),
)


def fake_models() -> tuple[ModelInfo, ...]:
    """Stand-ins under the names of the default models."""
    return (
        ModelInfo("auto-fundus", "Pictures", ("picture",), ("affine",), OPTIONS, "Nobody 2026"),
        ModelInfo("auto-brain", "Volumes", ("volume",), ("affine", "tps"), OPTIONS),
        ModelInfo("auto-volume", "Volumes of anything", ("volume",), ("affine", "tps"), OPTIONS),
    )


def fake_worker(folder: str, devices: str = "0") -> ModelWorker:
    """What the worker process of the tests runs."""
    return ModelWorker(FakeEngine(Path(folder), int(devices)))


class FakeEngine:
    """Shifts along x, fails, dies or takes its time, as the options say."""

    def __init__(self, folder: Path, devices: int = 0) -> None:
        self.folder = folder
        self.devices = devices

    def models(self) -> tuple[tuple[ModelInfo, ...], Mapping[str, str]]:
        return fake_models(), {}

    def free(self) -> None:
        """Nothing to free."""

    def device_memory(self) -> int:
        return 0

    def device_count(self) -> int:
        return self.devices

    def register(self, request: RegistrationRequest, progress: Progress) -> RegistrationResult:
        remember(self.folder, request)
        options = request.options
        steps = int(options.get("steps", 0))
        for step in range(steps):
            progress("working", step / steps)
            time.sleep(0.02)
        match options.get("kind"):
            case "nothing":
                raise RegistrationError("Nothing in the two images looks alike.")
            case "crash":
                raise KeyError("secret name of a patient")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(60)
            case "oom":
                raise MemoryError
            case "greedy":
                np.ones(2**28)  # 2 GiB
            case "small-oom" if max(request.fixed.grid.size) >= 8:
                raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return fake_result(request)


def fake_result(request: RegistrationRequest) -> RegistrationResult:
    """The answer when nothing goes wrong."""
    matrix = np.eye(4)
    matrix[0, 3] = float(request.options.get("shift", 0.0))
    points = np.random.default_rng(1).uniform(-80, 80, (64, 3))
    moving = points + matrix[:3, 3] + np.sin(points / 20)
    keypoints = [Keypoints(each, np.ones(64), np.ones(64, bool)) for each in (points, moving)]
    smoothing = float(request.options.get("smoothing", 0.0))
    is_spline = request.options.get("kind") == "tps"
    transform = ThinPlateSpline(points, moving, smoothing) if is_spline else Affine(matrix)
    verdict = "fail" if request.options.get("kind") == "wrong" else "accept"
    quality = Quality({"nmi_after": 1.25, "worst": float("inf")}, verdict, "It looks right.")
    provenance = {
        "model": request.model,
        "options": dict(request.options),
        "seconds": {"working": 0.01},
        "niceness": os.nice(0),
        "offered": offered_to_the_kernel(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    backward = None if is_spline else Affine.identity()  # off by the shift
    return RegistrationResult(transform, *keypoints, quality, provenance, backward)


def offered_to_the_kernel() -> str:
    """How gladly Linux ends this process where memory runs out."""
    path = Path("/proc/self/oom_score_adj")
    return path.read_text().strip() if path.exists() else ""


def remember(folder: Path, request: RegistrationRequest) -> None:
    """Write a request into the folder, complete or not at all."""
    number = len(list(folder.glob("*.json")))
    parts = []
    for role in ("fixed", "moving"):
        header, body = wire.encode_image(getattr(request, role))
        (folder / f"{number}.{role}").write_bytes(body)
        parts.append(header)
    initial = None if request.initial is None else wire.encode_transform(request.initial)
    message = {"model": request.model, "options": dict(request.options), "headers": parts}
    message["initial"] = initial
    temporary = folder / f"{number}.{os.getpid()}.tmp"
    temporary.write_bytes(wire.dumps(message))
    temporary.rename(folder / f"{number}.json")


def remembered(folder: Path) -> list[RegistrationRequest]:
    """The requests in a folder, in their order."""
    count = len(list(folder.glob("*.json")))
    return [_remembered(folder, number) for number in range(count)]


def _remembered(folder: Path, number: int) -> RegistrationRequest:
    message = wire.loads((folder / f"{number}.json").read_bytes())
    images = []
    for role, text in zip(("fixed", "moving"), message["headers"], strict=True):
        header = wire.decode_header(text, 2**30)
        images.append(wire.decode_image(header, (folder / f"{number}.{role}").read_bytes()))
    given = message["initial"]
    initial = wire.decode_transform(given) if given else None
    return RegistrationRequest(*images, message["model"], message["options"], initial)
