#!/usr/bin/env bash
# A process may have more than 1024 files and connections open, as its limit says (RLIMIT_NOFILE).
# Expected: an association in such a process is accepted and answered as in any other one.
# What happens: pynetdicom waits with select(), which cannot watch a descriptor of 1024 or more. The
# connection is taken and closed at once; the caller sees a connection that was lost, and nothing
# says why.
# Versions: pynetdicom 3.0.4, pydicom 3.0.2, Linux.
# Why it matters: a server with many connections or memory files drops every association from some
# load on. A process of its own for associations keeps their descriptors small.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pynetdicom==3.0.4 pydicom==3.0.2
venv/bin/python - <<'PYTHON'
import os
import resource
import subprocess
import sys

import pydicom
import pynetdicom
from pynetdicom import AE

print("pynetdicom", pynetdicom.__version__, "pydicom", pydicom.__version__)
VERIFICATION = "1.2.840.10008.1.1"
ECHO = f"""
import sys
from pynetdicom import AE
entity = AE()
entity.acse_timeout = 5
entity.add_requested_context("{VERIFICATION}")
association = entity.associate("127.0.0.1", int(sys.argv[1]))
print("answered" if association.is_established else "lost")
if association.is_established:
    association.release()
"""


def caller_says(port):
    said = subprocess.run([sys.executable, "-c", ECHO, str(port)], capture_output=True, text=True)
    return said.stdout.strip()


_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
entity = AE()
entity.add_supported_context(VERIFICATION)
server = entity.start_server(("127.0.0.1", 0), block=False)
port = server.server_address[1]
before = caller_says(port)
opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
after = caller_says(port)
for each in opened:
    os.close(each)
server.shutdown()
print(f"with few files open the caller is {before}, with {len(opened)} more {after}")
assert (before, after) == ("answered", "lost"), "differs"
print("As stated")
PYTHON
