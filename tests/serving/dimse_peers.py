"""Both sides of C-STORE besides the server: one that sends, and one that is sent results."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager

import numpy as np
from pydicom import dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.presentation import StoragePresentationContexts

CAMERA = "CAMERA"
MR, OP = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.77.1.5.1"


def free_port():
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Destination:
    """kept: the data sets that were sent. answers: statuses of the next objects, else success."""

    def __init__(self):
        self.kept, self.answers, self.callers = [], [], set()

    def store(self, event):
        status = self.answers.pop(0) if self.answers else 0x0000
        if status == 0x0000:
            data = event.dataset
            data.file_meta = event.file_meta
            self.kept.append(data)
            self.callers.add(event.assoc.requestor.ae_title)
        return status


@contextmanager
def a_destination(port, title="PACS"):
    """An application entity that keeps everything, while it runs."""
    entity = AE(title)
    entity.require_called_aet = True
    entity.supported_contexts = StoragePresentationContexts
    destination = Destination()
    handlers = [(evt.EVT_C_STORE, destination.store)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield destination
    finally:
        server.shutdown()


@contextmanager
def association(port, title=CAMERA, called="RETREG", kinds=(MR, OP), syntax=None):
    """An association with the server, or what it made of the attempt."""
    entity = AE(title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
    entity.add_requested_context("1.2.840.10008.1.1")
    for kind in kinds:
        entity.add_requested_context(kind, syntax)
    made = entity.associate("127.0.0.1", port, ae_title=called)
    try:
        yield made
    finally:
        if made.is_established:
            made.release()


def sent(port, *folders, **names):
    """Send all files of folders, or single files, in one association; the statuses."""
    files = [f for each in folders for f in ([each] if each.is_file() else sorted(each.iterdir()))]
    with association(port, **names) as made:
        assert made.is_established
        return [made.send_c_store(dcmread(file)).get("Status") for file in files]


def until(is_so, seconds=30.0):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it has not come to be"
        time.sleep(0.02)


def a_volume_series(folder, write_dicom, study, description, seed, **attributes):
    """Write a series of five noisy slices."""
    folder.mkdir()
    frame, series = generate_uid(), generate_uid()
    pixels = np.random.default_rng(seed).integers(0, 999, (5, 20, 24), dtype=np.int16)
    more = {
        "Modality": "MR", "StudyInstanceUID": study, "SeriesInstanceUID": series,
        "FrameOfReferenceUID": frame, "PixelSpacing": [1, 1], "SliceThickness": 2,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PatientID": "P-1",
        "SeriesDescription": description, "SeriesNumber": seed, **attributes,
    }  # fmt: skip
    for n in range(5):
        place = {"ImagePositionPatient": [0, 0, 2 * n], "InstanceNumber": n + 1}
        write_dicom(folder / f"{n}.dcm", pixels[n], **more, **place)
    return folder


def a_photograph(path, write_dicom, study, seed, side="R", **attributes):
    """Write a picture of the eye."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    more = {
        "SOPClassUID": OP, "Modality": "OP", "StudyInstanceUID": study, "ImageLaterality": side,
        "SeriesInstanceUID": generate_uid(), "SeriesDescription": "Colour", "PatientID": "P-1",
        "AcquisitionDate": f"2026010{seed}", "SeriesNumber": 1, **attributes,
    }  # fmt: skip
    return write_dicom(path, pixels, **more)
