#!/usr/bin/env bash
# A C-STORE request leaves as several small segments: command, then data set (PS3.7, 9.3.1; PS3.8, 9.3.5).
# Expected: an object of 8 kB is stored within a few milliseconds on one machine.
# What happens: pynetdicom leaves Nagle's algorithm on. The last segment of a data set waits until the
# other side acknowledges what came before, which it delays by 40 ms (Linux): each object takes 45 to
# 50 ms, however fast the network is. With TCP_NODELAY, set in a handler of EVT_CONN_OPEN, it takes 5.
# Versions: pynetdicom 3.0.4, pydicom 3.0.2, Linux.
# Why it matters: a series of 200 slices takes 10 s instead of 1. A receiver that is written otherwise
# can spare slow senders the wait (TCP_QUICKACK).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pynetdicom==3.0.4 pydicom==3.0.2
venv/bin/python - <<'PYTHON'
import socket
import time
from statistics import median

import pydicom
import pynetdicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom import AE, evt

print("pynetdicom", pynetdicom.__version__, "pydicom", pydicom.__version__)


def an_image():
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, generate_uid()
    data.add_new("PixelData", "OW", bytes(8192))
    return data


def without_delay(event):
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def milliseconds(port, handlers):
    sender = AE()
    sender.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    association = sender.associate("127.0.0.1", port, evt_handlers=handlers)
    taken = []
    for image in [an_image() for _ in range(20)]:
        begun = time.perf_counter()
        assert association.send_c_store(image).Status == 0
        taken.append(1e3 * (time.perf_counter() - begun))
    association.release()
    return median(taken)


archive = AE()
archive.add_supported_context(MRImageStorage)
server = archive.start_server(
    ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: 0)]
)
port = server.server_address[1]
plain = milliseconds(port, [])
quick = milliseconds(port, [(evt.EVT_CONN_OPEN, without_delay)])
server.shutdown()
print(f"{plain:.1f} ms an object as it is, {quick:.1f} ms with TCP_NODELAY")
assert plain > 35 and plain > 3 * quick, "differs"
print("As stated")
PYTHON
