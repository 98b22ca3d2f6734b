"""A small DICOMweb archive on a free port of this machine, which can also misbehave."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pydicom
from pydicom.uid import generate_uid

USER, PASSWORD = "retreg", "a-secret-of-the-archive"
BASIC = "Basic cmV0cmVnOmEtc2VjcmV0LW9mLXRoZS1hcmNoaXZl"


class FakeArchive:
    """kept: bytes by (study, series, instance). mood: how it behaves; see Handler."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/dicom-web"
        self.kept, self.asked, self.mood = {}, [], "good"

    def take(self, content):
        data = pydicom.dcmread(BytesIO(content), stop_before_pixels=True)
        key = (data.StudyInstanceUID, data.SeriesInstanceUID, data.SOPInstanceUID)
        self.kept[tuple(map(str, key))] = content
        return data

    def put_folder(self, folder):
        """Take every file of a folder; study and series of the last one."""
        for path in [folder] if folder.is_file() else sorted(folder.iterdir()):
            data = self.take(path.read_bytes())
        return str(data.StudyInstanceUID), str(data.SeriesInstanceUID)

    def put_series(self, folder, write_dicom, seed):
        """Take a series of five noisy slices, which are written to a folder."""
        frame, series = generate_uid(), generate_uid()
        pixels = np.random.default_rng(seed).integers(0, 999, (5, 20, 24), dtype=np.int16)
        for n in range(5):
            write_dicom(
                folder / f"{n}.dcm", pixels[n], Modality="MR", StudyInstanceUID="1.2.3",
                SeriesInstanceUID=series, FrameOfReferenceUID=frame, PixelSpacing=[1, 1],
                SliceThickness=2, ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                ImagePositionPatient=[0, 0, 2 * n], PatientID="P-1",
            )  # fmt: skip
        return self.put_folder(folder)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Silent."""

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def allowed(self):
        archive = self.server.archive
        archive.asked.append((self.command, self.path))
        if self.headers.get("Authorization") != BASIC:
            self.answer(401)
        elif archive.mood == "error":
            self.answer(500, b"a secret stack of calls")
        elif archive.mood == "redirect":
            self.answer(302, Location="http://127.0.0.1:1/inside")
        elif archive.mood == "stall":
            time.sleep(3)
            self.close_connection = True
        else:
            return True
        return False

    def do_GET(self):
        if not self.allowed():
            return
        archive, parts = self.server.archive, self.path.split("?")[0].split("/")[2:]
        study, series = parts[1], parts[3] if len(parts) > 3 else ""
        found = {k: v for k, v in archive.kept.items() if k[:2] == (study, series)}
        if len(parts) == 3:  # a search for series
            wanted = parse_qs(urlsplit(self.path).query).get("SeriesInstanceUID", [""])[0]
            count = len([key for key in archive.kept if key[:2] == (study, wanted)])
            row = {"0020000E": {"vr": "UI", "Value": [wanted]}}
            row["00201209"] = {"vr": "IS", "Value": [count - (archive.mood == "forgetful")]}
            body = json.dumps([{} if archive.mood == "counts nothing" else row]).encode()
            self.answer(200, body, Content_Type="application/dicom+json")
        elif not found:
            self.answer(404)
        elif len(parts) == 5:  # a search for instances
            if archive.mood == "forgetful":
                found = dict(list(found.items())[1:])
            found = dict(list(found.items())[self.offset() : self.offset() + 3])
            rows = [{"00080018": {"vr": "UI", "Value": [key[2]]}} for key in found]
            self.answer(200, json.dumps(rows).encode(), Content_Type="application/dicom+json")
        else:
            self.send_series(list(found.values()))

    def offset(self):
        return int(parse_qs(urlsplit(self.path).query).get("offset", ["0"])[0])

    def send_series(self, contents):
        mood = self.server.archive.mood
        if mood == "garbage":
            contents = [b"garbage" * 100]
        if mood == "cut":
            contents = [each[: len(each) // 2] for each in contents]
        if mood == "gaps":
            contents = contents[:2] + contents[3:]
        part = b"\r\n--xx\r\nContent-Type: application/dicom\r\n\r\n"
        body = part.join([b"", *contents])[2:] + b"\r\n--xx--"
        kind = 'multipart/related; type="application/dicom"; boundary=xx'
        if mood == "broken":
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.answer(200, body, Content_Type=kind)

    def do_POST(self):
        body = self.body()
        if not self.allowed():
            return
        boundary = self.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
        for part in body.split(b"--" + boundary)[1:-1]:
            self.server.archive.take(part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))
        self.answer(200, b"{}", Content_Type="application/dicom+json")

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)


@contextmanager
def fake_archive():
    """The archive, while it runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.archive = FakeArchive(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
