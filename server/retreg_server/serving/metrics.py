"""What Prometheus may ask for."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from retreg_server.serving.workers.executor import Outcome

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self._jobs = Counter(
            "retreg_jobs", "Registrations that have ended.", ("model", "state"), registry=own
        )
        self._job_seconds = Histogram(
            "retreg_job_seconds",
            "From the order of a registration to its end.",
            ("model",),
            buckets=SECONDS,
            registry=own,
        )
        self._stage_seconds = Histogram(
            "retreg_stage_seconds",
            "Time in each stage of a model.",
            ("model", "stage"),
            buckets=SECONDS,
            registry=own,
        )
        self._requests = Histogram(
            "retreg_request_seconds",
            "Time to answer a request.",
            ("method", "route", "status"),
            buckets=SECONDS,
            registry=own,
        )
        self.reused = Counter(
            "retreg_results_reused", "Requests that were answered before.", registry=own
        )
        self.restarts = Counter(
            "retreg_worker_restarts", "Worker processes that died.", registry=own
        )
        self._device_memory = Gauge(
            "retreg_device_memory_bytes", "In use after the last registration.", registry=own
        )

    def follow_queue(self, queued: Callable[[], int], running: Callable[[], int]) -> None:
        """Show the length of the queue, asked for when it is read."""
        self._follow("retreg_jobs_queued", "Registrations that wait.", queued)
        self._follow("retreg_jobs_running", "Registrations that run.", running)

    def follow_images(self, kept: Callable[[], int], claimed: Callable[[], int]) -> None:
        """Show the memory of the images that are kept, and of all images."""
        self._follow("retreg_image_store_bytes", "Images that are kept in memory.", kept)
        self._follow("retreg_image_bytes_claimed", "All images, whatever their state.", claimed)

    def follow_store(self, unwritten: Callable[[], int]) -> None:
        """Show how many registrations the disk has not taken."""
        meaning = "Registrations that are kept in memory because the disk does not take them."
        self._follow("retreg_results_unwritten", meaning, unwritten)

    def follow_workers(self, ready: Callable[[], int]) -> None:
        """Show how many workers are warm."""
        self._follow("retreg_workers_ready", "Worker processes that are warm.", ready)

    def follow_loop(self, longest_s: Callable[[], float]) -> None:
        """Show the longest step of the event loop since the numbers were read last."""
        meaning = "Longest step of the event loop since the last reading, processor time."
        self._follow("retreg_loop_step_seconds", meaning, longest_s)

    def ended(self, model: str, state: str, seconds: float) -> None:
        """Count a registration that has ended."""
        self._jobs.labels(model, state).inc()
        self._job_seconds.labels(model).observe(seconds)

    def worked(self, model: str, outcome: Outcome) -> None:
        """Enter what a worker tells."""
        for stage, seconds in outcome.seconds.items():
            self._stage_seconds.labels(model, stage).observe(seconds)
        self._device_memory.set(outcome.device_memory)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        known = method if method in METHODS else "other"
        self._requests.labels(known, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """All numbers in the text format of Prometheus."""
        return generate_latest(self._registry)

    def _follow(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        Gauge(name, meaning, registry=self._registry).set_function(read)
