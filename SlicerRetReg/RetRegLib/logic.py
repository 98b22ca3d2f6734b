"""Registration of volume nodes, without any widget: what the panel and Python scripts call.

    logic = slicer.util.getModuleLogic("RetReg")
    outcome = logic.register(fixed, moving, transform="tps", smoothing=0.1)

Every call is made on the main thread. Images travel on another one, so the window stays alive.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import slicer

from retreg.errors import Cancelled, InputError, RetRegError, ServerError
from retreg.image import Image
from retreg.messages import ModelInfo, RegistrationResult, Scalar
from retreg.progress import Progress
from RetRegLib.jobs import Job, OnError, counted, in_a_sentence
from RetRegLib.scene.guides import NO_GUIDES, Guides
from RetRegLib.scene.input_pair import Pair
from RetRegLib.scene.outcome import Outcome, show_outcome
from RetRegLib.scene.output_nodes import OutputNodes, check_companions, check_output_nodes
from RetRegLib.scene.placement import disregarded
from RetRegLib.sequences import SequenceOutcome, register_frames
from RetRegLib.server.connection import Connection, load_connection, save_connection
from RetRegLib.server.consent import Consent
from RetRegLib.server.local_server import LocalServer
from RetRegLib.ticker import Ticker

T = TypeVar("T")
BREATH_S = 0.02
PYTHON_KEY = "serverPython"


@dataclass(frozen=True, eq=False)
class _Order:
    """Which nodes are registered, and into which; see Registration.register."""

    fixed: Any
    moving: Any
    wanted: OutputNodes = field(default_factory=OutputNodes)
    also: tuple[Any, ...] = ()
    on_top: bool = False
    guides: Guides = NO_GUIDES

    def pair(self) -> Pair:
        """The images, once it is certain that the result will find its nodes; else InputError."""
        pair = Pair(self.fixed, self.moving, self.wanted.transform, self.on_top, self.guides)
        below = disregarded(self.moving, self.wanted.transform, self.on_top)
        check_output_nodes(self.wanted, self.fixed, self.moving, below)
        check_companions(self.also, self.fixed)
        return pair


class Registration:
    """Registers volumes through a server and puts what comes back into the scene.

    settings: texts by name, such as the address of the server; kept by the caller.
    connection: the server to use; by default the one in the settings.
    ask: puts the question before the first upload to another machine to the user; without it such
    an upload is refused until consent.give(connection) was called.
    ticker: sees to it that a job is polled; by default a timer of Qt, where there is one.
    """

    def __init__(
        self,
        settings: MutableMapping[str, str] | None = None,
        connection: Connection | None = None,
        ask: Callable[[str], bool] | None = None,
    ) -> None:
        self.settings: MutableMapping[str, str] = {} if settings is None else settings
        self.connection = connection or load_connection(self.settings)
        self.consent = Consent(self.settings)
        self.ask = ask
        self.ticker: Callable[[Job[Any]], None] = Ticker()
        self.local_server = LocalServer(
            python=self.settings.get(PYTHON_KEY), environment=_startup_environment()
        )

    def connect(self, url: str, token: str = "", ca_file: str = "") -> None:
        """Use a server from now on, and remember it.

        ca_file: PEM file with the authority of its certificate, where the system does not know it.
        Raises InputError for an unusable address or file.
        """
        connection = Connection(url, token, ca_file)
        connection.client().close()
        self.connection = connection
        save_connection(self.settings, connection)

    def start_local_server(self, progress: Progress | None = None) -> Connection:
        """Start a server on this machine, wait until it is ready, and use it from now on.

        Raises InputError when it is not installed, ServerError when it does not start.
        """
        self.connection = self._awaited(self.local_server.start, progress)
        return self.connection

    def models(self) -> tuple[ModelInfo, ...]:
        """What the server offers. Raises InputError without a server, or ServerError."""
        connection = self._server()

        def work(_: Progress) -> tuple[ModelInfo, ...]:
            with connection.client() as client:
                return client.models()

        return self._awaited(work)

    def register(
        self,
        fixed: Any,
        moving: Any,
        model: str | None = None,
        *,
        wanted: OutputNodes | None = None,
        also: Sequence[Any] = (),
        on_top: bool = False,
        guides: Guides = NO_GUIDES,
        progress: Progress | None = None,
        **options: Scalar | None,
    ) -> Outcome:
        """Register moving to fixed and wait; the nodes of the result are in the scene.

        fixed, moving: scalar or colour volume nodes. model: None lets the server choose one for
        the images. wanted: nodes to fill instead of new ones. also: nodes that belong to the moving
        volume, such as segmentations, and go along. on_top: start from where an earlier result
        shows the moving volume, and add to that; else it is registered as it was before. guides:
        masks, and a transform node near which alone the result is looked for.
        progress(stage, fraction): what it raises cancels. options: those of the model, such as
        transform and smoothing.
        Raises InputError, OptionError, RegistrationError, ServerError or Cancelled; then the scene
        is as before.
        """
        order = _Order(fixed, moving, wanted or OutputNodes(), tuple(also), on_top, guides)
        return self._register(order, model, progress, options)

    def register_async(
        self,
        fixed: Any,
        moving: Any,
        model: str | None = None,
        *,
        wanted: OutputNodes | None = None,
        also: Sequence[Any] = (),
        on_top: bool = False,
        guides: Guides = NO_GUIDES,
        on_done: Callable[[Outcome], None],
        on_error: OnError | None = None,
        on_progress: Progress | None = None,
        on_cancelled: Callable[[], None] | None = None,
        **options: Scalar | None,
    ) -> Job[RegistrationResult]:
        """Begin to register moving to fixed; the job can be cancelled.

        Exactly one of on_done(outcome), on_error(RetRegError) and on_cancelled() is called later,
        on the main thread; without on_error the error is raised there. For the rest see register.
        """
        order = _Order(fixed, moving, wanted or OutputNodes(), tuple(also), on_top, guides)
        try:
            pair = order.pair()
            work, abort = self._order(*pair.images, model, {**options, **pair.known})
        except RetRegError as error:
            work, abort = _raising(error), None

        def finish(result: RegistrationResult) -> None:
            try:
                outcome = self._shown(result, pair, order)
            except RetRegError as error:
                if on_error is None:
                    raise
                on_error(error)
            else:
                on_done(outcome)

        return self.run(Job(work, on_progress, finish, on_error, on_cancelled, abort))

    def register_batch(
        self,
        pairs: Iterable[tuple[Any, Any]],
        model: str | None = None,
        *,
        progress: Progress | None = None,
        **options: Scalar | None,
    ) -> list[Outcome | RetRegError]:
        """Register many pairs (fixed, moving), one after the other.

        Gives for each pair what register returns or raises, in their order; an image that occurs
        in several pairs is sent once. Raises Cancelled when progress does, and leaves what is done.
        """
        every = list(pairs)
        outcomes: list[Outcome | RetRegError] = []
        for number, pair in enumerate(every, 1):
            tell = counted(progress, "pair", number, len(every))
            try:
                outcomes.append(self._register(_Order(*pair), model, tell, options))
            except Cancelled:
                raise
            except RetRegError as error:
                outcomes.append(error)
        return outcomes

    def register_sequence(
        self,
        fixed: Any,
        sequence: Any,
        model: str | None = None,
        *,
        progress: Progress | None = None,
        **options: Scalar | None,
    ) -> SequenceOutcome:
        """Register every volume of a vtkMRMLSequenceNode to one fixed volume.

        The transforms and the warped volumes come as sequences with the same index values, and
        play along in the browsers of the input. Raises as register does, but for a single volume
        only when all fail.
        """

        def register_one(fixed: Image, moving: Image, tell: Progress | None) -> RegistrationResult:
            return self._registered(fixed, moving, model, tell, options)

        return register_frames(fixed, sequence, register_one, progress)

    def run(self, job: Job[T]) -> Job[T]:
        """Start a job, which is handed back, and see to it that it is polled."""
        job.start()
        self.ticker(job)
        return job

    def pump(self) -> None:
        """Wait for a moment, in which other threads run and the window stays alive."""
        time.sleep(BREATH_S)  # also lets go of the interpreter's lock
        try:
            import qt
        except ImportError:  # not in Slicer
            return
        qt.QApplication.processEvents()

    def _register(
        self,
        order: _Order,
        model: str | None,
        progress: Progress | None,
        options: Mapping[str, Scalar | None],
    ) -> Outcome:
        pair = order.pair()
        result = self._registered(*pair.images, model, progress, {**options, **pair.known})
        return self._shown(result, pair, order)

    def _registered(
        self,
        fixed: Image,
        moving: Image,
        model: str | None,
        progress: Progress | None,
        options: Mapping[str, Any],
    ) -> RegistrationResult:
        work, abort = self._order(fixed, moving, model, options)
        return self._awaited(work, progress, abort)

    def _order(
        self,
        fixed: Image,
        moving: Image,
        model: str | None,
        options: Mapping[str, Any],
    ) -> tuple[Callable[[Progress], RegistrationResult], Callable[[], None]]:
        """What a job does to register two images, and what aborts it. Asks for consent."""
        connection = self._server()
        self._ask_for_consent(connection)
        client = connection.client()

        def work(tell: Progress) -> RegistrationResult:
            try:
                with client:
                    return client.register(fixed, moving, model, tell, **options)
            except ServerError:
                self.local_server.check(connection)  # its last words say more
                raise

        return work, client.cancel

    def _server(self) -> Connection:
        if self.connection is None:
            raise InputError(
                "No server is chosen; start the local one, or enter the address of another one."
            )
        return self.connection

    def _ask_for_consent(self, connection: Connection) -> None:
        if not self.consent.is_needed(connection):
            return
        if self.ask is None or not self.ask(self.consent.question(connection)):
            raise InputError(
                f"Nothing was sent: you have not agreed that volumes go to {connection.host}; "
                "agree when asked, or call consent.give(connection)."
            )
        self.consent.give(connection)

    def _awaited(
        self,
        work: Callable[[Progress], T],
        progress: Progress | None = None,
        abort: Callable[[], None] | None = None,
    ) -> T:
        """What work returns or raises, with the window alive in the meantime."""
        values: list[T] = []
        job = Job(work, progress, values.append, abort=abort)
        job.start()
        try:
            while not job.ended:
                self.pump()
                job.poll()
        except BaseException:
            job.cancel()
            raise
        return values[0]

    def _shown(self, result: RegistrationResult, pair: Pair, order: _Order) -> Outcome:
        pair.check()
        nodes = pair.fixed, pair.moving
        try:
            return show_outcome(result, *nodes, order.wanted, order.also, order.on_top)
        except Exception as error:
            raise in_a_sentence(error) from None


def _startup_environment() -> Mapping[str, str]:
    """The environment without what Slicer's launcher adds for Slicer's own libraries."""
    try:
        return slicer.util.startupEnvironment()
    except AttributeError:  # not the application
        return os.environ


def _raising(error: RetRegError) -> Callable[[Progress], RegistrationResult]:
    def work(_: Progress) -> RegistrationResult:
        raise error

    return work
