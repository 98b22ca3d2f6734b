"""The state of one server: settings, images, jobs and the models it offers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from fastapi import Request

from retreg.errors import OptionError
from retreg.image import Image
from retreg.messages import ModelInfo, RegistrationRequest, Scalar
from retreg_server.registration.engine import complete_options
from retreg_server.registration.registry import default_model
from retreg_server.serving.errors import ApiError
from retreg_server.serving.jobs import Job, Jobs, Run
from retreg_server.serving.settings import Settings
from retreg_server.serving.shelf import Shelf

LoadModels = Callable[[], tuple[ModelInfo, ...]]


class Service:
    """What the routes work with; belongs to the event loop."""

    def __init__(self, settings: Settings, run: Run, load_models: LoadModels) -> None:
        self.settings = settings
        self.images: Shelf[Image] = Shelf(settings.image_store_bytes, settings.keep_s)
        ended: Shelf[Job] = Shelf(settings.result_store_bytes, settings.keep_s)
        self.jobs = Jobs(run, settings.queue_size, ended)
        self._load_models = load_models
        self._loading: asyncio.Future[tuple[ModelInfo, ...]] | None = None

    async def warm_up(self) -> None:
        """Load the models on the thread that will use them."""
        loop = asyncio.get_running_loop()
        self._loading = loop.run_in_executor(self.jobs.worker, self._load_models)
        await asyncio.wait([self._loading])

    @property
    def is_ready(self) -> bool:
        """Whether the models are loaded."""
        loading = self._loading
        return loading is not None and loading.done() and loading.exception() is None

    async def models(self) -> tuple[ModelInfo, ...]:
        """The models on offer, as soon as they are loaded. Raises ApiError 503 before start."""
        if self._loading is None:
            raise ApiError(503, "not-ready", "The server is starting; try again in a moment.")
        return await asyncio.shield(self._loading)

    async def model(self, name: str | None, fixed: Image) -> ModelInfo:
        """The model of that name, or the default one for the image. Raises OptionError."""
        wanted = name or default_model(fixed)
        models = await self.models()
        for info in models:
            if info.name == wanted:
                return info
        raise OptionError(
            f"The model {wanted!r} is not offered here; use one of "
            f"{', '.join(info.name for info in models)}."
        )

    def submit(
        self, fixed: Image, moving: Image, model: ModelInfo, options: Mapping[str, Scalar]
    ) -> Job:
        """Queue a registration. Raises OptionError or ApiError 429."""
        complete_options(model, options)
        return self.jobs.submit(RegistrationRequest(fixed, moving, model.name, options))

    def expire(self) -> None:
        """Forget images and results that nobody has used for a while."""
        self.images.expire()
        self.jobs.ended.expire()

    def close(self) -> None:
        """Stop working and forget all images and results."""
        self.jobs.close()
        self.images.clear()


def service_of(request: Request) -> Service:
    """The service behind a request, for use with Depends."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
