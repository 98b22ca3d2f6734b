"""What the process of a device does: it holds the models warm and runs one registration at a time.

When the memory does not suffice, it is freed and the registration is tried once more on images
of half the resolution. The transform lies in the world, so it holds for the full images too.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from retreg import wire
from retreg.errors import RegistrationError
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import ModelInfo, RegistrationRequest, RegistrationResult
from retreg.progress import Progress
from retreg.transforms import Affine
from retreg_server.serving.workers.messages import Head, Message, SharedBuffer, SharedImage

LONG_AXIS = 64  # voxels; a quarter of that can still be registered
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class Engine(Protocol):
    """What answers registrations."""

    def models(self) -> tuple[tuple[ModelInfo, ...], Mapping[str, str]]:
        """The models that load, and the reason by name for those that do not."""
        ...

    def register(self, request: RegistrationRequest, progress: Progress) -> RegistrationResult:
        """Answer a request; calls report often."""
        ...

    def free(self) -> None:
        """Give memory back that is not in use."""
        ...

    def device_memory(self) -> int:
        """Bytes of device memory in use; 0 on the CPU."""
        ...

    def device_count(self) -> int:
        """How many CUDA devices this process could use; 0 on the CPU."""
        ...


class LocalEngine:
    """The registration engine of this installation."""

    def models(self) -> tuple[tuple[ModelInfo, ...], Mapping[str, str]]:
        """Load every model and let its network make a first pass."""
        from retreg_server.registration.registry import load_catalogue

        catalogue = load_catalogue(is_warm=True)
        self.free()
        return catalogue.models, catalogue.failures

    def register(self, request: RegistrationRequest, progress: Progress) -> RegistrationResult:
        """Run the model; a cancellation is noticed before each layer of a network, too."""
        from retreg_server.registration import engine
        from retreg_server.registration.networks.devices import interruptible

        last = ("starting", 0.0)

        def noting(stage: str, fraction: float) -> None:
            nonlocal last
            last = stage, fraction
            progress(stage, fraction)

        with interruptible(lambda: progress(*last)):
            return engine.register(request, noting)

    def free(self) -> None:
        """Empty the caches of the device and the heap."""
        from retreg_server.registration.networks.devices import free_memory

        free_memory()

    def device_memory(self) -> int:
        """Bytes in use on the CUDA device."""
        from retreg_server.registration.networks.devices import memory_in_use

        return memory_in_use()

    def device_count(self) -> int:
        """As torch counts them, which respects CUDA_VISIBLE_DEVICES."""
        from retreg_server.registration.networks.devices import cuda_devices

        return len(cuda_devices())


class ModelWorker:
    """The handler of a device's process: see process_main.Handler."""

    def __init__(self, engine: Engine | None = None) -> None:
        self._engine = engine or LocalEngine()

    def hello(self) -> Head:
        """Load the models, and name them."""
        models, failures = self._engine.models()
        return {
            "models": wire.encode_models(models),
            "failures": dict(failures),
            "devices": self._engine.device_count(),
        }

    def answer(self, request: Message, progress: Progress) -> Message:
        """Register: the JSON text of the result, and its keypoints' provenance for the metrics."""
        head = request.head
        images = [
            SharedImage.received(header, voxels).image
            for header, voxels in zip(head["headers"], request.buffers, strict=True)
        ]
        initial = wire.decode_transform(head["initial"]) if "initial" in head else None
        assert initial is None or isinstance(initial, Affine)
        fixed, moving = images
        wanted = RegistrationRequest(fixed, moving, head["model"], head["options"], initial)
        result = self._register(wanted, progress)
        seconds: dict[str, Any] = result.provenance.get("seconds", {})
        text = wire.dumps(wire.encode_result(result))
        facts = {"seconds": dict(seconds), "device_memory": self._engine.device_memory()}
        return Message(facts, (SharedBuffer.of(text),))

    def _register(self, request: RegistrationRequest, progress: Progress) -> RegistrationResult:
        try:
            return self._engine.register(request, progress)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        self._free()
        smaller = replace(request, fixed=halved(request.fixed), moving=halved(request.moving))
        try:
            result = self._engine.register(smaller, progress)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            self._free()
            raise RegistrationError(_too_large(request)) from None
        return replace(result, provenance={**result.provenance, "resolution": "half"})

    def _free(self) -> None:
        gc.collect()
        self._engine.free()


def _too_large(request: RegistrationRequest) -> str:
    """What to do when a registration does not fit into memory; never what cannot be done."""
    sizes = [image.grid.size for image in (request.fixed, request.moving)]
    smaller = [tuple(n // 4 if n >= LONG_AXIS else n for n in size) for size in sizes]
    if smaller == sizes:
        return (
            "The registration does not fit into the memory of the server, although the images are "
            "small; check their voxel sizes, or choose another model."
        )
    told = [" x ".join(map(str, size)) for size in smaller]
    return (
        "The images do not fit into the memory of the server's device, not even at half their "
        f"resolution; crop or resample them to {told[0]} voxels (fixed) and {told[1]} (moving)."
    )


def halved(image: Image) -> Image:
    """Every second voxel along each axis, on the grid of those voxels."""
    i, j, k = image.grid.size
    step = np.diag([2.0 if n > 1 else 1.0 for n in (i, j, k)] + [1.0])
    strides = tuple(slice(None, None, 2) for _ in range(3))
    array = np.ascontiguousarray(image.array[:, *strides])
    counted = None if image.counted is None else image.counted[strides]
    size = (array.shape[3], array.shape[2], array.shape[1])
    return Image(array, Grid(size, image.grid.world_from_index @ step), image.about, counted)


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether it is that, for NumPy, or for torch on the CPU or on a device."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY)
