"""Questions to an HTTP server that may do anything: be silent, drip, never end, send a bomb.

Each question is asked on a thread of its own, so that whoever asks can stop waiting at any moment;
a thread that is left alone ends with the next byte it hears, or with its time.
"""

from __future__ import annotations

import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from retreg.addresses import is_loopback
from retreg.errors import InputError, ServerError
from retreg.uploads import Pieces

if TYPE_CHECKING:
    import requests

LOOK_S = 0.1
PART_BYTES = 2**16
LONGEST_LINE = 2**20
LARGEST_ANSWER = 2**24
Found = TypeVar("Found")
Look = Callable[[], None]
"""Called ten times a second while there is nothing to hear; what it raises ends the waiting."""


class ConnectionLost(ServerError):
    """The connection failed, which may be different at the next try."""


@dataclass(frozen=True)
class Answer:
    """What a server answered, whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class Timeouts:
    """Seconds for a connection, for the next bytes, and for a whole answer after the last byte
    that was sent."""

    connect_s: float
    read_s: float
    answer_s: float


class Exchange:
    """The way to one server; used by one thread. See retreg.Client for the arguments.

    was_heard: whether the server has answered anything.

    Raises InputError for an address or a file of certificates that cannot be used, and
    ServerError, often a ConnectionLost, afterwards.
    """

    def __init__(
        self, url: str, token: str | None, ca_file: str | Path | None, timeouts: Timeouts
    ) -> None:
        self._parts = _split(url)
        self.url = url.rstrip("/")
        self._token = token
        self._ca_file = ca_file
        self._timeouts = timeouts
        self._session = self._new_session()
        self.was_heard = False

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def ask(
        self,
        method: str,
        path: str,
        look: Look,
        *,
        body: bytes | Pieces | None = None,
        headers: Mapping[str, str] | None = None,
        largest: int = LARGEST_ANSWER,
    ) -> Answer:
        """The answer to a request. largest: bytes of the answer."""
        left = threading.Event()

        def work() -> Answer:
            try:
                with self._sent(method, path, body, headers) as answer:
                    content = _whole(answer, largest, left)
                    return Answer(answer.status_code, answer.headers, content)
            except Exception as error:
                raise self._translated(error) from error

        pieces = body if isinstance(body, Pieces) else None
        outcome = _begun(work)
        sent, since = 0, time.monotonic()
        try:
            while not wait([outcome], LOOK_S).done:
                look()
                if pieces is not None and pieces.sent != sent:
                    sent, since = pieces.sent, time.monotonic()
                self._hurry(since, self._timeouts.answer_s)
            answer = outcome.result()
            self.was_heard = True
            return answer
        except BaseException:
            left.set()
            if pieces is not None:
                pieces.stop()
            self._session = self._new_session()  # the thread may still use the other one
            raise

    def lines(self, path: str, look: Look) -> Iterator[bytes]:
        """The lines of an answer as they come. Raises Refused when it has another status."""
        left = threading.Event()
        heard: queue.Queue[bytes | Exception | None] = queue.Queue(64)

        def tell(what: bytes | Exception | None) -> None:
            while not left.is_set():
                with suppress(queue.Full):
                    heard.put(what, timeout=LOOK_S)
                    return
            raise EOFError

        def work() -> None:
            try:
                with self._sent("GET", path, None, None) as answer:
                    if answer.status_code >= 300:
                        content = _whole(answer, LARGEST_ANSWER, left)
                        raise Refused(Answer(answer.status_code, answer.headers, content))
                    for line in _lines(answer):
                        tell(line)
                tell(None)
            except Exception as error:
                tell(self._translated(error))

        _begun(work)
        try:
            while (line := self._next(heard, look)) is not None:
                yield line
        finally:
            left.set()
            self._session = self._new_session()

    def _next(self, heard: queue.Queue[bytes | Exception | None], look: Look) -> bytes | None:
        since = time.monotonic()
        while True:
            try:
                line = heard.get(timeout=LOOK_S)
            except queue.Empty:
                look()
                self._hurry(since, self._timeouts.read_s)
                continue
            if isinstance(line, Exception):
                raise line
            return line

    def _hurry(self, since: float, seconds: float) -> None:
        """Raise ConnectionLost when that time has passed, and that for a connection."""
        if time.monotonic() - since > self._timeouts.connect_s + seconds:
            raise ConnectionLost(
                f"{self.url} did not end its answer within {seconds:g} s; it may be overloaded."
            )

    def _sent(
        self,
        method: str,
        path: str,
        body: bytes | Pieces | None,
        headers: Mapping[str, str] | None,
    ) -> requests.Response:
        return self._session.request(
            method,
            self.url + path,
            data=body,
            headers=headers,
            timeout=(self._timeouts.connect_s, self._timeouts.read_s),
            allow_redirects=False,
            stream=True,
        )

    def _translated(self, error: Exception) -> Exception:
        """What goes wrong on the way, in a sentence."""
        import requests
        import urllib3

        if isinstance(error, requests.exceptions.SSLError):
            return ServerError(
                f"The TLS certificate of {self.url} could not be verified; give the certificate of "
                "its authority (--ca-file), install it, or correct the address."
            )
        if isinstance(error, requests.exceptions.ConnectTimeout):
            return ConnectionLost(
                f"{self.url} did not answer within {self._timeouts.connect_s:g} s; check the "
                "address and the firewall."
            )
        if isinstance(error, (requests.exceptions.ReadTimeout, urllib3.exceptions.TimeoutError)):
            return ConnectionLost(
                f"{self.url} sent nothing for {self._timeouts.read_s:g} s; it may be overloaded."
            )
        inflating = (requests.exceptions.ContentDecodingError, urllib3.exceptions.DecodeError)
        if isinstance(error, inflating):
            return ServerError(
                f"{self.url} sent an answer that cannot be inflated; is it a RetReg server?"
            )
        if isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError, OSError)):
            return ConnectionLost(
                f"The connection to {self.url} failed; check that the server runs and can be "
                "reached."
            )
        return error

    def _new_session(self) -> requests.Session:
        import requests

        session = requests.Session()
        session.trust_env = not is_loopback(self._parts.hostname or "")  # no proxy leads back here
        session.auth = _bearer(self._token)
        if self._parts.scheme == "https":
            session.mount("https://", _verifying_adapter(self._ca_file))
        return session


class Refused(Exception):
    """The server answered with another status than was hoped for."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def trusting(ca_file: str | Path | None) -> ssl.SSLContext:
    """Trusts what the system trusts, and the authorities in the file. Raises InputError."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ValueError):  # an ssl.SSLError is an OSError
            raise InputError(
                f"The file {Path(ca_file).name} holds no certificates of authorities; give one in "
                "the PEM format."
            ) from None
    return context


def _begun(work: Callable[[], Found]) -> Future[Found]:
    """The future result of work on a thread that nobody needs to wait for."""
    outcome: Future[Found] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome


def _parts(answer: requests.Response) -> Iterator[bytes]:
    """The body as it comes, inflated."""
    if not hasattr(answer.raw, "read1"):  # urllib3 before 2.2
        yield from answer.iter_content(None)
        return
    while part := answer.raw.read1(PART_BYTES, decode_content=True):
        yield part


def _whole(answer: requests.Response, largest: int, left: threading.Event) -> bytes:
    content = bytearray()
    for part in _parts(answer):
        content += part
        if len(content) > largest or left.is_set():
            raise ServerError(
                f"The server sent more than the {largest} bytes that are expected; is it a RetReg "
                "server?"
            )
    return bytes(content)


def _lines(answer: requests.Response) -> Iterator[bytes]:
    rest = b""
    for part in _parts(answer):
        *lines, rest = (rest + part).split(b"\n")
        yield from lines
        if len(rest) > LONGEST_LINE:
            raise ServerError(
                f"The server sent a line of more than {LONGEST_LINE} bytes; is it a RetReg server?"
            )
    yield rest


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


def _verifying_adapter(ca_file: str | Path | None) -> Any:
    """Trusts what the system trusts too, such as the authority of a hospital; never less."""
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **more: Any) -> None:
            super().init_poolmanager(*args, ssl_context=trusting(ca_file), **more)

        def proxy_manager_for(self, *args: Any, **more: Any) -> Any:
            more["ssl_context"] = trusting(ca_file)
            return super().proxy_manager_for(*args, **more)

    return Adapter()
