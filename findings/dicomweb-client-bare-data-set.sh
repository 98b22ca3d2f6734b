#!/usr/bin/env bash
# STOW-RS sends DICOM files (PS3.18, 8.7.3.2): a preamble, "DICM", file meta information, data set.
# Expected: DICOMwebClient.store_instances sends such files, whatever made the data sets.
# What happens: a data set that was made in memory, with file meta information but without the
# attribute preamble, leaves as a bare data set behind its file meta information. There is neither
# preamble nor "DICM", and pydicom itself refuses to read the part. One that was read from a file
# leaves as it came, since reading sets the preamble.
# Versions: dicomweb-client 0.61.2, pydicom 3.0.2, requests 2.34.2.
# Why it matters: a program that makes new objects (a derived series, a report) and stores them has
# no failure of its own to see; archives refuse the object or keep something that is no file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check dicomweb-client==0.61.2 pydicom==3.0.2 requests==2.34.2
venv/bin/python - <<'PYTHON'
from importlib.metadata import version
from io import BytesIO
from threading import Thread
from http.server import BaseHTTPRequestHandler, HTTPServer

import pydicom
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

print("dicomweb-client", version("dicomweb-client"), "pydicom", pydicom.__version__)
parts = []


class Archive(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts.append(body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0])
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Archive)
Thread(target=server.serve_forever, daemon=True).start()
client = DICOMwebClient(f"http://127.0.0.1:{server.server_port}")

made = Dataset()
made.file_meta = FileMetaDataset()
made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
client.store_instances([made])

made.preamble = b"\0" * 128
client.store_instances([made])
print("made in memory begins with", parts[0][:4], "and has DICM at 128:", parts[0][128:132] == b"DICM")
print("with a preamble, DICM at 128:", parts[1][128:132] == b"DICM")
assert parts[0][128:132] != b"DICM" and parts[1][128:132] == b"DICM"
assert pydicom.dcmread(BytesIO(parts[1])).SOPInstanceUID == made.SOPInstanceUID
try:
    pydicom.dcmread(BytesIO(parts[0]))
except InvalidDicomError:
    print("pydicom refuses to read the first")
else:
    raise SystemExit("differs: the part is read")
print("As stated")
PYTHON
