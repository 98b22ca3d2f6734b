"""Objects sent by C-STORE (PS3.4, B) to an application entity that the settings name."""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from retreg.errors import ServerError
from retreg.progress import Progress, no_progress
from retreg_server.dicom.peers import Destination

_KEPT = (0x0000, 0xB000, 0xB006, 0xB007)  # success, and the warnings with which it is stored


def send_files(
    destination: Destination,
    our_title: str,
    files: Sequence[Path],
    idle_s: float,
    progress: Progress = no_progress,
) -> None:
    """Send DICOM files in one association; each is deleted when the other side has stored it.

    So what was begun can go on later. Raises ServerError when some are not taken.
    """
    if not files:
        return
    association = _established(destination, our_title, {_kind(path) for path in files}, idle_s)
    try:
        for number, path in enumerate(files):
            progress("sending", number / len(files))
            if _status(association, path) not in _KEPT:
                raise ServerError(
                    f"The destination {destination.name} has taken {number} of {len(files)} "
                    "objects and refused or lost the next; ask its administrator."
                )
            path.unlink()
    finally:
        association.release()


def _established(
    destination: Destination, our_title: str, kinds: Collection[tuple[str, str]], idle_s: float
) -> Any:
    """An association for these SOP classes and transfer syntaxes. Raises ServerError."""
    from pydicom.uid import ImplicitVRLittleEndian
    from pynetdicom import AE, evt

    entity = AE(our_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = idle_s
    entity.connection_timeout = idle_s
    for kind, syntax in kinds:
        entity.add_requested_context(kind, [syntax, ImplicitVRLittleEndian])
    association = entity.associate(
        destination.host,
        destination.port,
        ae_title=destination.title,
        evt_handlers=[(evt.EVT_CONN_OPEN, _without_delay)],
    )
    if not association.is_established:
        raise ServerError(_unreached(destination, association.is_rejected))
    return association


def _status(association: Any, path: Path) -> int | None:
    """What the other side says of an object; None when it says nothing."""
    from pydicom import dcmread

    try:
        answer = association.send_c_store(dcmread(path))
    except (ValueError, RuntimeError):  # no context for it, or the association is gone
        return None
    return answer.Status if "Status" in answer else None


def _without_delay(event: Any) -> None:
    """Switch off Nagle's algorithm, with which each object takes 40 ms at least."""
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _kind(path: Path) -> tuple[str, str]:
    """(SOP class, transfer syntax) of a file."""
    from pydicom.filereader import read_file_meta_info

    meta = read_file_meta_info(path)
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


def _unreached(destination: Destination, is_rejected: bool) -> str:
    if is_rejected:
        return (
            f"The destination {destination.name} rejects the association; check the titles of both "
            "sides in its settings and here."
        )
    return (
        f"The destination {destination.name} cannot be reached; check that it runs, and its host "
        "and port in the settings."
    )
