"""C-STORE and C-ECHO accepted (PS3.4, A and B) from application entities that the settings name.

Who calls from elsewhere is not listened to; who calls by another title is rejected. What a caller
may send is bounded before it is there: by bytes and seconds for each object.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from retreg.errors import InputError
from retreg.files.dicom_header import read_object
from retreg_server.dicom.peers import Sender
from retreg_server.dicom.rules import facts_of

NO_ROOM, WRONG_CLASS, NOT_UNDERSTOOD = 0xA700, 0xA900, 0xC000
MOST_ASSOCIATIONS = 16
_REQUEST_BYTES = 1 << 18  # before an association stands
_VERIFICATION = "1.2.840.10008.1.1"
_IMAGES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{number}"
    for number in ("2", "2.1", "2.2", "4", "4.1", "4.4", "77.1.5.1", "77.1.5.2")
)  # CT, MR and photographs of the eye: what objects can be made of
_SYNTAXES = [
    f"1.2.840.10008.1.2{ending}"
    for ending in (".1", "", ".5", ".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81", ".4.90",
                   ".4.91")
]  # fmt: skip
_QUICK = getattr(socket, "TCP_QUICKACK", None)  # of Linux
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Rows")


@dataclass(frozen=True, eq=False)
class Arrived:
    """An object that was sent: its file, what a rule asks of it, and in which association."""

    association: str
    sender: str
    study: str
    instance: str
    facts: dict[str, Any]
    content: bytes


@dataclass(frozen=True, eq=False)
class Door:
    """Who may send, and who hears of it; take and tell are called on threads.

    take: keeps an object, and answers with a status of PS3.4, table B.2-1. tell: hears of an
    association that has ended ("ended", its name), of a caller who was refused ("refused", the
    title, the address, why), and of an object ("unusable", the title, the status). object_bytes,
    object_s: what one object may take; idle_s: without a byte. scratch: a folder in which an object
    lies while it is looked at.
    """

    title: str
    senders: Sequence[Sender]
    take: Callable[[Arrived], int]
    tell: Callable[..., None]
    object_bytes: int
    object_s: float
    idle_s: float
    scratch: Path

    def titles_at(self, address: str) -> list[str]:
        """The titles by which one may call from there."""
        return [each.title for each in self.senders if each.may_call_from(address)]


class _BoundedSocket(socket.socket):
    """A connection that ends when more bytes or seconds are taken than are allowed."""

    def __init__(self, plain: socket.socket, idle_s: float) -> None:
        super().__init__(fileno=plain.detach())
        self.settimeout(idle_s)
        self.allow(_REQUEST_BYTES, idle_s)

    def allow(self, nbytes: int, seconds: float) -> None:
        """That much from now on."""
        self._left, self._end = nbytes, time.monotonic() + seconds

    def recv(self, nbytes: int, flags: int = 0) -> bytes:
        """As of any socket; OSError when no more is allowed."""
        data = super().recv(nbytes, flags)
        if _QUICK is not None:  # else senders that leave Nagle on wait 40 ms with each object
            self.setsockopt(socket.IPPROTO_TCP, _QUICK, 1)
        self._left -= len(data)
        if self._left < 0 or time.monotonic() > self._end:
            raise OSError("more than is allowed")
        return data


class _Caller(RequestHandler):
    """One connection, with the titles that are allowed at its address."""

    @property
    def ae(self) -> Any:
        """Our side of this association."""
        assert isinstance(self.server, _Listener)
        door = self.server.door
        entity = AE(door.title)
        entity.require_called_aet = True
        entity.require_calling_aet = door.titles_at(self.client_address[0])
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = door.idle_s
        return entity


class _Listener(ThreadedAssociationServer):
    """Our port."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], door: Door) -> None:
        self.door = door
        handlers: list[Any] = [
            (evt.EVT_ACCEPTED, self._next),
            (evt.EVT_REJECTED, self._refused),
            (evt.EVT_C_STORE, self._stored),
            (evt.EVT_CONN_CLOSE, self._ended),
        ]
        entity = AE(door.title)
        entity.network_timeout = None  # of the listening socket itself
        super().__init__(
            entity, address, door.title, _contexts(), evt_handlers=handlers,
            request_handler=_Caller,
        )  # fmt: skip

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection, bounded."""
        plain, address = super().get_request()
        return _BoundedSocket(plain, self.door.idle_s), address

    def verify_request(self, _request: Any, client_address: Any) -> bool:
        """Whether anybody may call from there, and there is room for one more."""
        address = client_address[0]
        if not self.door.titles_at(address):
            why = "no sender of the settings is there"
        elif len(self.active_associations) >= MOST_ASSOCIATIONS:
            why = f"there are {MOST_ASSOCIATIONS} associations already"
        else:
            return True
        self.door.tell("refused", "", address, why)
        return False

    def _next(self, event: Any) -> None:
        """Let one object come."""
        connection = event.assoc.dul.socket.socket
        if isinstance(connection, _BoundedSocket):
            connection.allow(self.door.object_bytes + _REQUEST_BYTES, self.door.object_s)

    def _refused(self, event: Any) -> None:
        caller = event.assoc.requestor
        why = f"no sender there has that title, or it called another than {self.door.title}"
        self.door.tell("refused", str(caller.ae_title), str(caller.address), why)

    def _ended(self, event: Any) -> None:
        self.door.tell("ended", _name(event.assoc))

    def _stored(self, event: Any) -> int:
        try:
            return self.door.take(_arrived(event, self.door.scratch))
        except _Unusable as error:
            self.door.tell("unusable", str(event.assoc.requestor.ae_title), f"{error.status:04X}")
            return error.status
        except MemoryError:
            return NO_ROOM
        finally:
            self._next(event)


class _Unusable(Exception):
    """What cannot be stored, and the status that says so."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def listen(address: tuple[str, int], door: Door) -> int:
    """Accept associations on threads for as long as this process lives; the port.

    Raises InputError when the address cannot be used.
    """
    try:
        listener = _Listener(address, door)
    except OSError:
        raise InputError(
            f"The address {address[0]} with the port {address[1]} cannot be used for DICOM; it is "
            "taken or not one of this machine."
        ) from None
    Thread(target=listener.serve_forever, daemon=True).start()
    return int(listener.server_address[1])


def _contexts() -> list[PresentationContext]:
    return [build_context(_VERIFICATION), *(build_context(kind, _SYNTAXES) for kind in _IMAGES)]


def _name(association: Any) -> str:
    """The same for all objects of an association, and for no other one."""
    return f"{id(association)} {association.requestor.port}"


def _arrived(event: Any, scratch: Path) -> Arrived:
    """The object of an event. Raises _Unusable for what is damaged, or another than was said."""
    content, caller = event.encoded_dataset(), event.assoc.requestor
    with TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder, "object.dcm")
        path.write_bytes(content)
        header = _read(path)
    said = (event.request.AffectedSOPClassUID, event.request.AffectedSOPInstanceUID)
    if (header.SOPClassUID, header.SOPInstanceUID) != said:
        raise _Unusable(WRONG_CLASS)
    names = (_name(event.assoc), str(caller.ae_title))
    uids = (str(header.StudyInstanceUID), str(header.SOPInstanceUID))
    return Arrived(*names, *uids, facts_of(header), content)


def _read(path: Path) -> Any:
    """The data set of a file that is whole, and an image. Raises _Unusable, and MemoryError."""
    from pydicom.encaps import generate_frames
    from pydicom.pixels.utils import get_expected_length

    try:
        data = read_object(path)
        is_whole = all(data.get(name) for name in _NEEDED)
        if data.file_meta.TransferSyntaxUID.is_encapsulated:
            count = int(data.get("NumberOfFrames") or 1)
            frames = generate_frames(data.PixelData, number_of_frames=count)
            is_whole &= sum(1 for frame in frames if frame) == count
        else:
            is_whole &= len(data.PixelData) >= get_expected_length(data)
    except MemoryError:
        raise
    except Exception:  # FileError, and whatever pydicom raises on damaged ones
        raise _Unusable(NOT_UNDERSTOOD) from None
    if not is_whole:
        raise _Unusable(NOT_UNDERSTOOD)
    return data
