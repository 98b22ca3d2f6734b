"""Registrations on the nodes of a Ray cluster, through Ray Serve: `pip install .[ray]`.

One replica of the deployment has one device and runs one registration at a time; Ray Serve starts
more of them while registrations wait, and fewer later. Images lie in Ray's object store and travel
by reference. When a replica or its node dies, its registration is begun again on another one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import ray
from ray import serve
from ray.exceptions import ObjectStoreFullError, RayActorError, RayError
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import RayServeException

from retreg import wire
from retreg.errors import RegistrationError
from retreg.messages import ModelInfo
from retreg.progress import Progress
from retreg_server.serving.workers.executor import MODEL_WORKER, Outcome, Task
from retreg_server.serving.workers.messages import Head, SharedImage
from retreg_server.serving.workers.process_handle import CANCEL_GRACE_S, ProcessDied, ProcessFailed
from retreg_server.serving.workers.ray_replica import Replica

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported

logger = logging.getLogger(__name__)

APPLICATION = "retreg"
ATTEMPTS = 3  # an image that kills whatever works on it must not kill the whole cluster
LOOK_EVERY_S = 1.0
PAUSE_S = 5.0
NO_DISK = {"automatic_object_spilling_enabled": False}


@dataclass(frozen=True)
class Cluster:
    """Which cluster, and how much of it.

    address: of its head; None starts one on this machine, which ends with the server. replicas:
    the smallest and the largest number. resources: what a replica takes, such as {"GPU": 1}; None
    is a GPU where the cluster has one, else a core. idle_s: until replicas without work are ended.
    """

    address: str | None = None
    replicas: tuple[int, int] = (1, 4)
    resources: Mapping[str, float] | None = None
    idle_s: float = 60.0


class RayExecutor:
    """Runs registrations on a cluster: see Executor.

    on_restart: called when a replica died under a registration. worker: what the replicas run, as
    module:callable, and its arguments; it must be installed on every node.
    """

    def __init__(
        self,
        cluster: Cluster,
        on_restart: Callable[[], None],
        worker: str = MODEL_WORKER,
        arguments: Mapping[str, str] | None = None,
    ) -> None:
        self._cluster = cluster
        self._on_restart = on_restart
        self._worker, self._arguments = worker, dict(arguments or {})
        self._references: WeakKeyDictionary[SharedImage, Any] = WeakKeyDictionary()
        self._replicas: Any = None
        self._running = 0
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> tuple[ModelInfo, ...]:
        """Deploy the replicas, and wait until one of them is warm."""
        while True:
            try:
                await asyncio.to_thread(self._deploy)
                _take_back_signals()
                hello = await self._replicas.hello.remote()
                break
            except (RuntimeError, ConnectionError, RayError, RayServeException) as error:
                logger.error("The Ray cluster cannot be used: %s.", type(error).__name__)
                await asyncio.sleep(PAUSE_S)
        self._looking = asyncio.create_task(self._look())
        for name, reason in hello["failures"].items():
            logger.error("The model %s cannot be used: %s.", name, reason)
        self._running = max(1, self._running)
        return wire.decode_models(hello["models"])

    async def run(self, task: Task, progress: Progress, deadline_s: float) -> Outcome:
        """Hand the task to the next idle replica, and to another one when that dies."""
        try:
            references = [
                await asyncio.to_thread(self._reference, each) for each in (task.fixed, task.moving)
            ]
        except ObjectStoreFullError:
            raise RegistrationError(
                "The images do not fit into the memory of the cluster now; try again later."
            ) from None
        for _ in range(ATTEMPTS):
            try:
                return await self._attempt(task.head, references, progress, deadline_s)
            except RayActorError:
                logger.error("A replica or its node died; its registration is begun again.")
                self._on_restart()
            except (RayError, RayServeException) as error:
                raise ProcessFailed(type(error).__name__) from None
        raise ProcessDied

    @property
    def ready(self) -> int:
        """How many replicas were running a moment ago."""
        return self._running

    @property
    def places(self) -> int:
        """All that could ever run: what waits on the cluster makes it start replicas."""
        return self._cluster.replicas[1]

    def close(self) -> None:
        """End the replicas, and the cluster when it was started here."""
        if self._looking is not None:
            self._looking.cancel()
        if ray.is_initialized():
            if self._cluster.address is None:
                serve.shutdown()
            else:
                serve.delete(APPLICATION, _blocking=False)
            ray.shutdown()

    async def _attempt(
        self, head: Head, references: Sequence[Any], progress: Progress, deadline_s: float
    ) -> Outcome:
        messages = self._replicas.options(stream=True).register.remote(head, *references)
        try:
            await anext(messages)  # it waits for its turn here
            progress("starting", 0.0)
            async with asyncio.timeout(deadline_s):
                async for message in messages:
                    if message["kind"] != "progress":
                        return _outcome(message)
                    progress(message["stage"], message["fraction"])
            raise ProcessDied
        except BaseException:
            messages.cancel()  # to be cancelled oneself is not enough
            raise

    def _reference(self, image: SharedImage) -> Any:
        """The image in the object store, where it stays for as long as the server keeps it."""
        known = self._references.get(image)
        if known is None:
            known = ray.put(np.frombuffer(image.voxels.view, np.uint8))
            self._references[image] = known
        return known

    def _deploy(self) -> None:
        cluster = self._cluster
        if not ray.is_initialized():
            own: dict[str, Any] = {"include_dashboard": False, "_system_config": NO_DISK}
            ray.init(
                address=cluster.address or "local",
                namespace=APPLICATION,
                log_to_driver=False,
                **({} if cluster.address else own),
            )
        serve.start(proxy_location="Disabled")
        least, most = cluster.replicas
        deployment = serve.deployment(Replica).options(
            max_ongoing_requests=1,
            ray_actor_options=_actor_options(cluster.resources),
            autoscaling_config=AutoscalingConfig(
                min_replicas=least,
                max_replicas=most,
                target_ongoing_requests=1,
                upscale_delay_s=1.0,
                downscale_delay_s=cluster.idle_s,
            ),
            health_check_period_s=2,
            health_check_timeout_s=10,
            graceful_shutdown_timeout_s=CANCEL_GRACE_S,
        )
        application = deployment.bind(self._worker, self._arguments)
        self._replicas = serve.run(application, name=APPLICATION, route_prefix=None)

    async def _look(self) -> None:
        """Follow how many replicas there are."""
        while True:
            with suppress(RayError, RayServeException, KeyError):
                self._running = await asyncio.to_thread(_running)
            await asyncio.sleep(LOOK_EVERY_S)


def _take_back_signals() -> None:
    """Ray's core makes SIGTERM abort the process, which would leave no time for running jobs."""
    with suppress(ValueError):  # this is not the main thread, so nobody handles signals here
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _running() -> int:
    states = serve.status().applications[APPLICATION].deployments[Replica.__name__].replica_states
    return int(states.get("RUNNING", 0))


def _actor_options(resources: Mapping[str, float] | None) -> dict[str, Any]:
    """What a replica takes from its node, in Ray's words."""
    if resources is None:
        resources = {"GPU": 1} if ray.cluster_resources().get("GPU") else {"CPU": 1}
    named = {"GPU": "num_gpus", "CPU": "num_cpus"}
    options: dict[str, Any] = {"num_cpus": 0.0}
    options |= {named[name]: value for name, value in resources.items() if name in named}
    options["resources"] = {name: v for name, v in resources.items() if name not in named}
    return options


def _outcome(answer: Head) -> Outcome:
    """Raises RetRegError or ProcessFailed, as Executor.run does."""
    match answer["kind"]:
        case "done":
            return Outcome(answer["result"], answer["seconds"], answer["device_memory"])
        case "error":
            raise wire.raised_error(500, answer)
        case _:
            raise ProcessFailed(answer["text"])
