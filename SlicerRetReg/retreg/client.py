"""The HTTP client of a RetReg server.

    with Client("http://127.0.0.1:8600") as client:
        result = client.register(fixed, moving, transform="tps", smoothing=0.1)
    points_in_moving = result.transform(points_in_fixed)        # (n, 3) LPS mm
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from retreg import wire
from retreg.about import notes_on
from retreg.addresses import is_loopback
from retreg.errors import InputError, RetRegError, ServerError
from retreg.image import Image
from retreg.masks import counting_if_given
from retreg.messages import ModelInfo, RegistrationResult, Scalar
from retreg.progress import Progress, no_progress
from retreg.transforms import Affine
from retreg.uploads import Pieces, Upload

if TYPE_CHECKING:
    import requests

RECONNECTS = 5
UNKNOWN_IMAGE = "unknown-image"
# The stages in which nothing is computed yet, by the role of the image.
UPLOADING = {role: f"sending the {role} image" for role in ("fixed", "moving")}
BYTES = "application/octet-stream"


class Client:
    """A connection to one server; usable as a context manager, by one thread at a time.

    Only cancel may be called by another thread.

    url: such as "http://127.0.0.1:8600". token: what the server was started with, if anything.
    encoding: how voxels travel; "zlib+shuffle" pays off below about 300 Mbit/s.
    connect_timeout_s, read_timeout_s: how long to wait for a connection, and for the next bytes
    of an answer. busy_timeout_s: how long to go on asking a server whose queue is full.
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
        encoding: wire.Encoding = "identity",
        connect_timeout_s: float = 10.0,
        read_timeout_s: float = 60.0,
        busy_timeout_s: float = 300.0,
    ) -> None:
        import requests

        parts = _split(url)
        self._url = url.rstrip("/")
        self._encoding = encoding
        self._timeouts = (connect_timeout_s, read_timeout_s)
        self._busy_timeout_s = busy_timeout_s
        self._token = token
        self._job = ""  # path of the registration that is under way
        self._session = requests.Session()
        self._session.trust_env = not is_loopback(parts.hostname or "")  # no proxy leads back here
        self._session.auth = _bearer(token)
        if parts.scheme == "https":
            self._session.mount("https://", _verifying_adapter())

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
        self._session.close()

    def health(self) -> Mapping[str, Any]:
        """The answer of /healthz, which needs no token."""
        return self._json("GET", "/healthz")

    def info(self) -> Mapping[str, Any]:
        """Version, encodings and limits of the server."""
        return self._json("GET", "/v1/info")

    def models(self) -> tuple[ModelInfo, ...]:
        """The models that the server offers."""
        return wire.decode_models(self._json("GET", "/v1/models"))

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
        model; None means its default. The job is cancelled when progress raises and on Ctrl-C.
        Raises InputError, OptionError, RegistrationError or ServerError.
        """
        tell = progress or no_progress
        fixed = counting_if_given(fixed, fixed_mask, "fixed")
        moving = counting_if_given(moving, moving_mask, "moving")
        order = {"model": model, "options": _given(options)}
        if initial is not None:
            order["initial"] = initial.moving_from_fixed.tolist()
        job = self._submit(fixed, moving, order, tell)
        try:
            self._job = job
            self._follow(job, tell)
            result = wire.decode_result(self._json("GET", f"{job}/result"))
        except BaseException:
            self._cancel(job)
            raise
        finally:
            self._job = ""
        tell("done", 1.0)
        # What is known here only, as that the patients differ, the server could not tell.
        known = (*result.notes, *notes_on(fixed, moving))
        return replace(result, notes=tuple(dict.fromkeys(known)))

    def cancel(self) -> None:
        """End the registration that another thread waits for, on the server too.

        That thread hears of it as soon as the server tells it; one that still sends images ends
        when its progress raises. Raises ServerError when the server cannot be reached.
        """
        if job := self._job:
            connect_s, read_s = self._timeouts
            with Client(
                self._url, self._token, connect_timeout_s=connect_s, read_timeout_s=read_s
            ) as other:
                other._request("DELETE", job)

    def _submit(
        self, fixed: Image, moving: Image, wanted: Mapping[str, Any], tell: Progress
    ) -> str:
        """Upload what the server does not have and queue the job; returns its path."""
        encoding = self._encoding
        images = {"fixed": Upload(fixed, encoding), "moving": Upload(moving, encoding)}
        order = {**{role: image.address for role, image in images.items()}, **wanted}
        give_up = time.monotonic() + self._busy_timeout_s
        while True:
            answer = self._order(images, order, tell)
            if answer.status_code == 202:
                name = _parsed(answer).get("id")
                if not isinstance(name, str) or not name.isalnum():
                    raise self._nonsense()
                return f"/v1/registrations/{name}"
            # An image may have been forgotten between the question for it and the order.
            forgotten = answer.status_code == 404 and _parsed(answer).get("error") == UNKNOWN_IMAGE
            busy = answer.status_code == 429 or "Retry-After" in answer.headers
            if not (forgotten or busy) or time.monotonic() >= give_up:
                raise _error(answer)
            _wait(_retry_after_s(answer), tell)

    def _order(
        self, images: Mapping[str, Upload], order: Mapping[str, Any], tell: Progress
    ) -> requests.Response:
        """The answer to the order, or to the first image that the server refuses."""
        for role, image in images.items():
            stage = UPLOADING[role]
            tell(stage, 0.0)
            path = f"/v1/images/{image.address}"
            if self._request("HEAD", path).status_code != 200:
                header = {wire.IMAGE_HEADER: image.header, "Content-Type": BYTES}
                pieces = image.pieces(stage, tell)
                answer = self._request("PUT", path, data=pieces, headers=header)
                if answer.status_code >= 300:
                    return answer
        return self._request("POST", "/v1/registrations", data=wire.dumps(order), json=True)

    def _follow(self, job: str, tell: Progress) -> None:
        """Return when the job has ended, however it ended."""
        lost = _Lost("The server ended the progress report before the job ended.")
        failures = 0
        while failures < RECONNECTS:  # in a row: a proxy may cut long answers
            has_ended = False
            try:
                for status in self._events(job):
                    failures = 0
                    has_ended = status.get("state") not in ("queued", "running")
                    if not has_ended:
                        fraction = status.get("fraction")
                        done = fraction if isinstance(fraction, (int, float)) else 0.0
                        tell(str(status.get("stage")), float(done))
            except _Lost as error:
                lost = error
            if has_ended:
                return
            failures += 1
            _wait(0.5, tell)
        raise lost

    def _events(self, job: str) -> Iterator[Mapping[str, Any]]:
        """The states of a job as server-sent events; at least one per second."""
        import requests

        answer = self._request("GET", f"{job}/events", stream=True)
        try:
            with answer:
                _checked(answer)
                for line in answer.iter_lines(chunk_size=None):
                    if line.startswith(b"data:"):
                        status = wire.loads(line[5:])
                        if not isinstance(status, dict):
                            raise self._nonsense()
                        yield status
        except requests.RequestException as error:
            raise self._lost() from error

    def _cancel(self, job: str) -> None:
        try:
            self._request("DELETE", job)
        except ServerError:
            return  # the reason for cancelling is what the caller must hear of

    def _json(self, method: str, path: str) -> Mapping[str, Any]:
        message = _parsed(_checked(self._request(method, path)))
        if not message:
            raise self._nonsense()
        return message

    def _request(
        self,
        method: str,
        path: str,
        *,
        data: bytes | Pieces | None = None,
        headers: Mapping[str, str] | None = None,
        json: bool = False,
        stream: bool = False,
    ) -> requests.Response:
        import requests

        try:
            return self._session.request(
                method,
                self._url + path,
                data=data,
                headers={"Content-Type": "application/json"} if json else headers,
                timeout=self._timeouts,
                allow_redirects=False,
                stream=stream,
            )
        except requests.exceptions.SSLError as error:
            raise ServerError(
                f"The TLS certificate of {self._url} could not be verified; install the "
                "certificate of its authority or correct the address."
            ) from error
        except requests.exceptions.ConnectTimeout as error:
            raise _Lost(
                f"{self._url} did not answer within {self._timeouts[0]:g} s; check the address and "
                "the firewall."
            ) from error
        except requests.exceptions.ReadTimeout as error:
            raise _Lost(
                f"{self._url} sent nothing for {self._timeouts[1]:g} s; it may be overloaded."
            ) from error
        except requests.RequestException as error:
            raise self._lost() from error

    def _nonsense(self) -> ServerError:
        return ServerError(
            f"{self._url} did not answer with the JSON that was expected; is it a RetReg server?"
        )

    def _lost(self) -> _Lost:
        return _Lost(
            f"The connection to {self._url} failed; check that the server runs and can be reached."
        )


def _given(options: Mapping[str, Scalar | None]) -> dict[str, Scalar]:
    return {name: value for name, value in options.items() if value is not None}


class _Lost(ServerError):
    """The connection failed, which may be different at the next try."""


def _split(url: str) -> SplitResult:
    """The parts of the address of a server. Raises InputError."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and not parts.username:
            return parts
    except ValueError:  # half an IPv6 address
        pass
    raise InputError(
        f"The server address {url!r} is not usable; write it like http://127.0.0.1:8600."
    )


def _bearer(token: str | None) -> Callable[[Any], Any]:
    """An authentication hook; a hook keeps requests from sending what is in ~/.netrc instead."""

    def authorise(request: Any) -> Any:
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        return request

    return authorise


def _verifying_adapter() -> Any:
    """Trusts what the system trusts too, such as the authority of a hospital; never less."""
    import ssl

    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **more: Any) -> None:
            super().init_poolmanager(*args, ssl_context=ssl.create_default_context(), **more)

        def proxy_manager_for(self, *args: Any, **more: Any) -> Any:
            more["ssl_context"] = ssl.create_default_context()
            return super().proxy_manager_for(*args, **more)

    return Adapter()


def _checked(answer: requests.Response) -> requests.Response:
    if answer.status_code >= 300:
        raise _error(answer)
    return answer


def _error(answer: requests.Response) -> RetRegError:
    """What the server tells, with the number under which its log has the request."""
    error = wire.raised_error(answer.status_code, _parsed(answer))
    number = answer.headers.get("X-Request-ID", "")[:32]
    if isinstance(error, ServerError) and number.isalnum():
        return ServerError(f"{error} (request {number})")
    return error


def _parsed(answer: requests.Response) -> Mapping[str, Any]:
    """The JSON object in an answer; empty when there is none."""
    try:
        message = wire.loads(answer.content)
    except InputError:
        return {}
    return message if isinstance(message, dict) else {}


def _retry_after_s(answer: requests.Response) -> float:
    text = answer.headers.get("Retry-After", "1")
    return min(float(text), 30.0) if text.isdigit() else 1.0


def _wait(seconds: float, tell: Progress) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        tell("waiting for the server", 0.0)
        time.sleep(min(left, 0.5))
