"""What an order for an archive costs beside a plain client: python benchmarks/dicomweb.py [ROUNDS]

A pair of 256 x 256 x 256 voxels goes from an archive in memory through a server whose model does
nothing, and the registered series back. The plain client searches, fetches and stores the same
instances with dicomweb-client. Both take turns; archive, server and client are processes of their
own. Then the same for multi-frame objects. The table holds seconds; --profile prints where the
process for archives spends the time of its processor instead.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from cProfile import Profile
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from pstats import Stats
from typing import Any

import numpy as np
import pydicom
import requests
from null_engine import NullEngine
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

import server as bench
from retreg import wire
from retreg.messages import RegistrationRequest
from retreg.progress import no_progress
from retreg_server.dicom.archives import Archive
from retreg_server.serving.workers.archive_worker import ArchiveWorker
from retreg_server.serving.workers.messages import Message, SharedBuffer, SharedImage

SIDE = 256
LOOK_S = 0.1
MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
AS_STORED = (("application/dicom", "*"),)
HEADER = {
    "SpecificCharacterSet": "ISO_IR 192", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
    "StudyDate": "20260101", "SeriesDate": "20260101", "AcquisitionDate": "20260101",
    "ContentDate": "20260101", "StudyTime": "120000", "SeriesTime": "120000",
    "AcquisitionTime": "120000", "ContentTime": "120000", "AccessionNumber": "A-9",
    "Modality": "MR", "Manufacturer": "A maker", "InstitutionName": "A clinic",
    "ReferringPhysicianName": "A^Doctor", "StationName": "A station", "StudyDescription": "Head",
    "SeriesDescription": "T1", "ManufacturerModelName": "A model", "PatientName": "A^Patient",
    "PatientID": "P-1", "PatientBirthDate": "19700101", "PatientSex": "F", "PatientAge": "056Y",
    "PatientWeight": 70, "BodyPartExamined": "BRAIN", "ScanningSequence": "GR",
    "SequenceVariant": "SP", "ScanOptions": "PFP", "MRAcquisitionType": "3D",
    "SequenceName": "tfl3d1", "AngioFlag": "N", "RepetitionTime": 2300, "EchoTime": 2.98,
    "InversionTime": 900, "NumberOfAverages": 1, "ImagingFrequency": 123.25,
    "ImagedNucleus": "1H", "EchoNumbers": 1, "MagneticFieldStrength": 3, "EchoTrainLength": 1,
    "PercentSampling": 100, "PercentPhaseFieldOfView": 100, "PixelBandwidth": 240,
    "DeviceSerialNumber": "1", "SoftwareVersions": "1", "ProtocolName": "T1",
    "TransmitCoilName": "Body", "InPlanePhaseEncodingDirection": "ROW", "FlipAngle": 9,
    "VariableFlipAngleFlag": "N", "SAR": 0.05, "dBdt": 0, "PatientPosition": "HFS",
    "StudyID": "S-7", "SeriesNumber": 4, "AcquisitionNumber": 1, "PositionReferenceIndicator": "",
    "WindowCenter": 1000, "WindowWidth": 2000,
}  # fmt: skip
Pair = list[dict[str, str]]


def main() -> None:
    """Measure, and print a table for each form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--side", type=int, default=SIDE, help="slices, rows and columns")
    args = parser.parse_args()
    forms = {"single-frame": single_frames, "multi-frame": multi_frame}
    for name, make in forms.items():
        with in_process(keep_archive, make, args.side) as (archive, pair):
            bench.say(f"{name}, {args.side} x {args.side} x {args.side}, twice")
            if args.profile:
                profile(archive, pair)
            else:
                with in_process(serve, archive) as (url, pid):
                    compare(url, pid, archive, pair, args.rounds)


def compare(url: str, pid: int, archive: Archive, pair: Pair, rounds: int) -> None:
    """The server and the plain client in turns, and how they relate."""
    _, stored = order(url, pair)
    client = plain_client(archive)
    objects = [
        data
        for series in stored
        for data in client.retrieve_series(pair[0]["study"], series, media_types=AS_STORED)
    ]
    ours, plain, cpu = [], [], np.zeros(2)
    for _ in range(rounds):
        before = bench.processor_seconds(pid)
        ours.append(order(url, pair)[0])
        cpu[0] += bench.processor_seconds(pid) - before
        before = time.process_time()
        plain.append(plain_transfer(client, pair, objects))
        cpu[1] += time.process_time() - before
    for who, runs in (("server", ours), ("plain client", plain)):
        for stage in dict.fromkeys(stage for run in runs for stage in run):
            bench.say(f"  {who}: {stage:<32}{middle([run.get(stage, 0.0) for run in runs])}")
    ratios = [sum(a.values()) / sum(b.values()) for a, b in zip(ours, plain, strict=True)]
    bench.say(f"  server / plain client in each round: {', '.join(f'{r:.2f}' for r in ratios)}")
    bench.say(f"  median {np.median(ratios):.2f}")
    text = f"{cpu[0] / rounds:.2f} and {cpu[1] / rounds:.2f} s, ratio {cpu[0] / cpu[1]:.2f}"
    bench.say(f"  processor of all processes of the server and of the client: {text}")


def middle(seconds: list[float]) -> str:
    """The median and the range."""
    return f"{np.median(seconds):6.2f}  ({min(seconds):.2f} to {max(seconds):.2f})"


def order(url: str, pair: Pair) -> tuple[dict[str, float], list[str]]:
    """Seconds by stage of an order, as seen by the client that waits for it; the new series."""
    message = {"fixed": pair[0], "moving": pair[1], "model": "null"}
    message["options"] = {"nonce": time.monotonic_ns() % 2**40}
    seconds: dict[str, float] = {}
    with requests.Session() as session:
        begun = time.perf_counter()
        answer = session.post(f"{url}/v1/dicomweb/registrations", json=message, timeout=60)
        where, status = url + answer.headers["Location"], answer.json()
        while status["state"] in ("queued", "running"):
            time.sleep(LOOK_S)
            stage, status = status["stage"], session.get(where, timeout=60).json()
            now = time.perf_counter()
            seconds[stage] = seconds.get(stage, 0.0) + now - begun
            begun = now
    assert status["state"] == "done", status
    return seconds, list(status["stored"])


def plain_client(archive: Archive) -> Any:
    """A client without bounds."""
    from dicomweb_client import DICOMwebClient
    from dicomweb_client.session_utils import create_session_from_user_pass

    session = create_session_from_user_pass(archive.user, archive.password)
    return DICOMwebClient(archive.url, session=session)


def plain_transfer(client: Any, pair: Pair, objects: list[Any]) -> dict[str, float]:
    """Seconds by stage: search for each series and its instances, fetch them, store as many."""
    marks = [time.perf_counter()]
    for each in pair:
        wanted = {"SeriesInstanceUID": each["series"]}
        assert client.search_for_series(each["study"], search_filters=wanted)
        assert client.search_for_instances(each["study"], each["series"])
    marks.append(time.perf_counter())
    for each in pair:
        assert client.retrieve_series(each["study"], each["series"], media_types=AS_STORED)
    marks.append(time.perf_counter())
    client.store_instances(objects)
    marks.append(time.perf_counter())
    return dict(zip(("searching", "fetching", "storing"), np.diff(marks).tolist(), strict=True))


def profile(archive: Archive, pair: Pair) -> None:
    """What the process for archives does for an order, by time of the processor."""
    known = {archive.name: {k: v for k, v in asdict(archive).items() if k != "name"}}
    bounds = {"received_bytes": 2**30, "idle_s": 30.0, "total_s": 600.0}
    wanted = [
        {"task": "fetch", "archive": archive.name, "folder": str(n), **each, "most_bytes": 2**30}
        for n, each in enumerate(pair)
    ]
    with Profile(time.process_time) as measured:
        worker = ArchiveWorker(known, "00" * 32, bounds, {}, "RETREG")
        images = []
        for each in wanted:
            answer = worker.answer(Message(each), no_progress)
            images.append(SharedImage.received(answer.head["header"], answer.buffers[0]))
        request = RegistrationRequest(images[0].image, images[1].image, "null", {"seconds": 0.0})
        result = wire.dumps(wire.encode_result(NullEngine().register(request, no_progress)))
        head = {"task": "store", "archive": archive.name, "series": wanted}
        head |= {"headers": [i.header for i in images], "kinds": ["series", "registration"]}
        enclosed = (SharedBuffer.of(result), *(image.voxels for image in images))
        worker.answer(Message(head, enclosed), no_progress)
    Stats(measured).sort_stats("cumulative").print_stats(70)


@contextmanager
def in_process(work: Callable[..., None], *arguments: Any) -> Iterator[Any]:
    """What work says first through the pipe that it is handed, while its process runs."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there, *arguments))
    process.start()
    there.close()  # so that a process that died is noticed
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


def keep_archive(pipe: Any, make: Callable[[int, int], list[Any]], side: int) -> None:
    """An archive with two series of one patient; says which they are."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "dicom"))
    from fake_archive import PASSWORD, USER, fake_archive

    with fake_archive() as running:
        pair = []
        for seed in (1, 2):
            for data in make(seed, side):
                content = BytesIO()
                pydicom.dcmwrite(content, data, enforce_file_format=True)
                running.take(content.getvalue())
            pair.append({"study": data.StudyInstanceUID, "series": data.SeriesInstanceUID})
        pipe.send((Archive("hospital", running.url, USER, PASSWORD), pair))
        pipe.recv()


def serve(pipe: Any, archive: Archive) -> None:
    """A server that knows the archive, with the model that does nothing; says its address."""
    pid = os.getpid()
    bench.serve(lambda url: pipe.send((url, pid)), archives={archive.name: archive})


def single_frames(seed: int, side: int) -> list[Any]:
    """The slices of a noisy volume, 1 mm apart."""
    voxels = np.random.default_rng(seed).integers(0, 2000, (side, side, side), np.int16)
    series = generate_uid()
    return [slice_of(voxels[k : k + 1], series, k) for k in range(side)]


def multi_frame(seed: int, side: int) -> list[Any]:
    """The same as one enhanced object."""
    voxels = np.random.default_rng(seed).integers(0, 2000, (side, side, side), np.int16)
    data = a_scan(voxels, generate_uid(), ENHANCED_MR)
    data.NumberOfFrames = side
    data.PerFrameFunctionalGroupsSequence = [
        items(PlanePositionSequence=[items(ImagePositionPatient=[0, 0, k])]) for k in range(side)
    ]
    data.SharedFunctionalGroupsSequence = [
        items(
            PlaneOrientationSequence=[items(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[items(PixelSpacing=[1, 1], SliceThickness=1)],
        )
    ]
    return [data]


def slice_of(voxels: np.ndarray, series: str, k: int) -> Any:
    """The k-th slice, (1, rows, columns), of a series."""
    data = a_scan(voxels, series, MR)
    data.ImagePositionPatient, data.InstanceNumber = [0, 0, k], k + 1
    data.ImageOrientationPatient, data.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
    data.SliceThickness = data.SpacingBetweenSlices = 1
    return data


def a_scan(voxels: np.ndarray, series: str, sop_class: str) -> Any:
    """What both forms have in common: about as much as scanners say of public attributes."""
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", series
    data.FrameOfReferenceUID = f"{series}.1"[:64]
    for name, value in HEADER.items():
        setattr(data, name, value)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = voxels.shape[1:]
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    data.PixelData = voxels.tobytes()
    return data


def items(**attributes: Any) -> pydicom.Dataset:
    """An item of a sequence."""
    data = pydicom.Dataset()
    for name, value in attributes.items():
        setattr(data, name, value)
    return data


if __name__ == "__main__":
    main()
