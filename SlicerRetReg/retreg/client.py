"""The HTTP client of a RetReg server.

    with Client("http://127.0.0.1:8600") as client:
        result = client.register(fixed, moving, transform="tps", smoothing=0.1)
    points_in_moving = result.transform(points_in_fixed)        # (n, 3) LPS mm
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from retreg import wire
from retreg.about import notes_on
from retreg.errors import InputError, RetRegError, ServerError
from retreg.exchange import (
    LARGEST_ANSWER,
    LOOK_S,
    Answer,
    ConnectionLost,
    Exchange,
    Refused,
    Timeouts,
)
from retreg.image import Image
from retreg.masks import counting_if_given
from retreg.messages import ModelInfo, RegistrationResult, Scalar
from retreg.progress import Progress, Teller, no_progress
from retreg.transforms import Affine
from retreg.uploads import Pieces, Upload

RECONNECTS, RECONNECT_S = 5, 0.5
ATTEMPTS = 6
# Ends that say nothing about the images: how often to order all the same.
ORDER_AGAIN = {"interrupted": ATTEMPTS, "unknown-registration": ATTEMPTS, "worker-died": 3}
LARGEST_RESULT = 2**29
FAREWELL = Timeouts(connect_s=2.0, read_s=2.0, answer_s=2.0)
UNKNOWN_IMAGE = "unknown-image"
# The stages in which nothing is computed yet, by the role of the image.
UPLOADING = {role: f"sending the {role} image" for role in ("fixed", "moving")}
BYTES = "application/octet-stream"


class Client:
    """A connection to one server; usable as a context manager, by one thread at a time.

    Only cancel may be called by another thread.

    url: such as "http://127.0.0.1:8600". token: what the server was started with, if anything.
    ca_file: PEM file with further authorities for TLS, such as that of a hospital.
    encoding: how voxels travel; "zlib+shuffle" pays off below about 300 Mbit/s.
    connect_timeout_s, read_timeout_s: how long to wait for a connection, and for the next bytes
    of an answer. answer_timeout_s: for a whole answer. busy_timeout_s: how long to go on asking a
    server whose queue is full. restart_timeout_s: how long to wait for a server that has answered
    and is gone; a registration is ordered again when it is back.
    TLS certificates are verified against the authorities of the system and of certifi or
    REQUESTS_CA_BUNDLE, proxies of the environment are used, redirects are refused.
    Raises InputError for an unusable address, and afterwards the exceptions of retreg.errors with
    the server's own sentence.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca_file: str | Path | None = None,
        encoding: wire.Encoding = "identity",
        connect_timeout_s: float = 10.0,
        read_timeout_s: float = 60.0,
        answer_timeout_s: float = 300.0,
        busy_timeout_s: float = 300.0,
        restart_timeout_s: float = 180.0,
    ) -> None:
        timeouts = Timeouts(connect_timeout_s, read_timeout_s, answer_timeout_s)
        self._reach = partial(Exchange, url, token, ca_file)
        self._exchange = self._reach(timeouts)
        self._encoding = encoding
        self._busy_timeout_s = busy_timeout_s
        self._restart_timeout_s = restart_timeout_s
        self._job = ""  # path of the registration that is under way
        self._teller = self._idle = Teller(no_progress)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._exchange.close()

    def health(self) -> Mapping[str, Any]:
        """The answer of /healthz, which needs no token."""
        return self._json("/healthz")

    def info(self) -> Mapping[str, Any]:
        """Version, encodings and limits of the server."""
        return self._json("/v1/info")

    def models(self) -> tuple[ModelInfo, ...]:
        """The models that the server offers."""
        return wire.decode_models(self._json("/v1/models"))

    def register(
        self,
        fixed: Image,
        moving: Image,
        model: str | None = None,
        progress: Progress | None = None,
        *,
        fixed_mask: Image | None = None,
        moving_mask: Image | None = None,
        initial: Affine | None = None,
        **options: Scalar | None,
    ) -> RegistrationResult:
        """Register moving to fixed on the server and wait for the result.

        model: None lets the server choose one for the images. fixed_mask, moving_mask: where they
        are 0 the image does not count (see retreg.masks.counting). initial: the map from fixed to
        moving points near which alone is searched (see retreg.initial). options: those of the
        model; None means its default. progress: called at least twice a second; the job is
        cancelled when it raises. It is ordered again when the server or its worker has ended.
        Raises InputError, OptionError, RegistrationError, Cancelled or ServerError.
        """
        fixed = counting_if_given(fixed, fixed_mask, "fixed")
        moving = counting_if_given(moving, moving_mask, "moving")
        pair = {"fixed": fixed, "moving": moving}
        images = {role: Upload(image, self._encoding) for role, image in pair.items()}
        given = {name: value for name, value in options.items() if value is not None}
        order: dict[str, Any] = {role: image.address for role, image in images.items()}
        order |= {"model": model, "options": given}
        if initial is not None:
            order["initial"] = initial.moving_from_fixed.tolist()
        self._teller = Teller(progress or no_progress)
        try:
            result = self._registered(images, order)
            self._teller("done", 1.0)
        finally:
            self._teller = self._idle
        # What is known here only, as that the patients differ, the server could not tell.
        known = (*result.notes, *notes_on(fixed, moving))
        return replace(result, notes=tuple(dict.fromkeys(known)))

    def cancel(self) -> None:
        """End the registration that another thread waits for, on the server too.

        That thread raises Cancelled within moments, whatever the server does.
        """
        if self._teller is not self._idle:
            self._teller.cancel()
        if job := self._job:
            self._forget(job)

    def _registered(
        self, images: Mapping[str, Upload], order: Mapping[str, Any]
    ) -> RegistrationResult:
        """The result of an order, which is repeated when it ended without an answer."""
        attempt = 0
        while True:
            attempt += 1
            job = self._submit(images, order)
            try:
                self._job = job
                self._follow(job)
                return wire.decode_result(self._result(job))
            except EndedUnanswered as error:
                if attempt >= error.attempts:
                    raise
            except BaseException:
                self._forget(job)
                raise
            finally:
                self._job = ""

    def _submit(self, images: Mapping[str, Upload], order: Mapping[str, Any]) -> str:
        """Upload what the server does not have and queue the job; returns its path.

        A server that has answered before, and is gone, is waited for.
        """
        begun = time.monotonic()
        while True:
            waited = time.monotonic() - begun
            try:
                answer = self._order(images, order)
            except ConnectionLost:
                if not self._exchange.was_heard or waited >= self._restart_timeout_s:
                    raise
                self._wait(RECONNECT_S)
                continue
            if answer.status == 202:
                name = _parsed(answer).get("id")
                if not isinstance(name, str) or not name.isalnum():
                    raise self._nonsense()
                return f"/v1/registrations/{name}"
            # An image may have been forgotten between the question for it and the order.
            forgotten = answer.status == 404 and _parsed(answer).get("error") == UNKNOWN_IMAGE
            busy = answer.status == 429 or "Retry-After" in answer.headers
            if not (forgotten or busy) or waited >= self._busy_timeout_s:
                raise _error(answer)
            self._wait(_retry_after_s(answer))

    def _order(self, images: Mapping[str, Upload], order: Mapping[str, Any]) -> Answer:
        """The answer to the order, or to the first image that the server refuses."""
        for role, image in images.items():
            self._teller(UPLOADING[role], 0.0)
            path = f"/v1/images/{image.address}"
            if self._ask("HEAD", path).status != 200:
                pieces = image.pieces()

                def look(stage: str = UPLOADING[role], pieces: Pieces = pieces) -> None:
                    self._teller(stage, pieces.fraction)

                headers = {wire.IMAGE_HEADER: image.header, "Content-Type": BYTES}
                answer = self._exchange.ask("PUT", path, look, body=pieces, headers=headers)
                if answer.status >= 300:
                    return answer
        json = {"Content-Type": "application/json"}
        return self._ask("POST", "/v1/registrations", body=wire.dumps(order), headers=json)

    def _follow(self, job: str) -> None:
        """Return when the job has ended, however it ended."""
        lost = ConnectionLost("The server ended the progress report before the job ended.")
        failures, heard = 0, time.monotonic()
        while True:  # a proxy may cut long answers, and a server may start again
            is_there = True
            try:
                for status in self._events(job):
                    failures, heard = 0, time.monotonic()
                    if status.get("state") not in ("queued", "running"):
                        _raise_if_interrupted(status)
                        return
                    fraction = status.get("fraction")
                    done = fraction if isinstance(fraction, (int, float)) else 0.0
                    self._teller(str(status.get("stage")), float(done))
            except ConnectionLost as error:
                lost, is_there = error, False
            failures += 1
            patience_s = 0.0 if is_there else self._restart_timeout_s
            if failures >= RECONNECTS and time.monotonic() - heard >= patience_s:
                raise lost
            self._wait(RECONNECT_S)

    def _result(self, job: str) -> Mapping[str, Any]:
        """The result of a job that has ended; a server that starts again still has it."""
        begun = time.monotonic()
        while True:
            try:
                return self._json(f"{job}/result", LARGEST_RESULT)
            except ConnectionLost:
                if time.monotonic() - begun >= self._restart_timeout_s:
                    raise
            self._wait(RECONNECT_S)

    def _events(self, job: str) -> Iterator[Mapping[str, Any]]:
        """The states of a job as server-sent events; at least one per second."""
        try:
            for line in self._exchange.lines(f"{job}/events", self._teller.again):
                if line.startswith(b"data:"):
                    status = wire.loads(line[5:])
                    if not isinstance(status, dict):
                        raise self._nonsense()
                    yield status
        except Refused as refused:
            raise _error(refused.answer) from None

    def _forget(self, job: str) -> None:
        """Cancel a job; the reason for it is what the caller must hear of, not a failure here."""
        with suppress(ServerError):
            exchange = self._reach(FAREWELL)
            exchange.ask("DELETE", job, _nothing)
            exchange.close()

    def _json(self, path: str, largest: int = LARGEST_ANSWER) -> Mapping[str, Any]:
        answer = self._ask("GET", path, largest=largest)
        if answer.status >= 300:
            raise _error(answer)
        message = _parsed(answer)
        if not message:
            raise self._nonsense()
        return message

    def _ask(self, method: str, path: str, **more: Any) -> Answer:
        return self._exchange.ask(method, path, self._teller.again, **more)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._teller("waiting for the server", 0.0)
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_S))
            self._teller.again()

    def _nonsense(self) -> ServerError:
        return ServerError(
            f"{self._exchange.url} did not answer with the JSON that was expected; is it a RetReg "
            "server?"
        )


class EndedUnanswered(ServerError):
    """The server ended, or its worker, before the registration had; attempts: orders in all."""

    def __init__(self, sentence: str, attempts: int) -> None:
        super().__init__(sentence)
        self.attempts = attempts


def _raise_if_interrupted(status: Mapping[str, Any]) -> None:
    """A server that stops says so in its last event; nobody is there to be asked for more."""
    error = status.get("error")
    if isinstance(error, dict) and error.get("error") in ORDER_AGAIN:
        raise EndedUnanswered(str(error.get("message")), ORDER_AGAIN[error["error"]])


def _error(answer: Answer) -> RetRegError:
    """What the server tells, with the number under which its log has the request."""
    message = _parsed(answer)
    error = wire.raised_error(answer.status, message)
    number = answer.headers.get("X-Request-ID", "")[:32]
    if not isinstance(error, ServerError):
        return error
    sentence = f"{error} (request {number})" if number.isalnum() else str(error)
    attempts = ORDER_AGAIN.get(str(message.get("error")))
    return ServerError(sentence) if attempts is None else EndedUnanswered(sentence, attempts)


def _parsed(answer: Answer) -> Mapping[str, Any]:
    """The JSON object in an answer; empty when there is none."""
    try:
        message = wire.loads(answer.content)
    except InputError:
        return {}
    return message if isinstance(message, dict) else {}


def _retry_after_s(answer: Answer) -> float:
    text = answer.headers.get("Retry-After", "1")
    return min(float(text), 30.0) if text.isdigit() else 1.0


def _nothing() -> None:
    """Nobody can cancel a cancellation; its time is short."""
