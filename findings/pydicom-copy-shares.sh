#!/usr/bin/env bash
# A derived object is often begun as a copy of the header of the image that it was made from.
# Expected: copy.copy(dataset) is shallow: values are shared, but setting an element of the copy
# anew leaves the original alone, as with a dict or any object with attributes.
# What happens: the copy shares the very table of elements, so that setting one changes both, and
# deleting one deletes it in both. So does Dataset(dataset), where dict(mapping) would not; only
# copy.deepcopy leaves the original alone. And Dataset.update shares the elements themselves: a value set in place on one shows in the other.
# Versions: pydicom 3.0.2.
# Why it matters: giving a derived image its own SOP Instance UID renames the source in memory, and
# the references of the derived image to its source then point at the derived image itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pydicom==3.0.2
venv/bin/python - <<'PYTHON'
import copy

import pydicom
from pydicom.dataset import Dataset

print("pydicom", pydicom.__version__)


def source():
    header = Dataset()
    header.SOPInstanceUID, header.Modality = "1.2.3", "MR"
    return header


for name, copied in (("copy.copy", copy.copy), ("Dataset(...)", Dataset)):
    first = source()
    other = copied(first)
    other.SOPInstanceUID = "1.2.3.4"
    del other.Modality
    print(f"after a change of {name} the original is", first.SOPInstanceUID, "Modality" in first)
    assert first.SOPInstanceUID == "1.2.3.4" and "Modality" not in first

second = source()
copy.deepcopy(second).SOPInstanceUID = "1.2.3.4"
print("deepcopy leaves the original", second.SOPInstanceUID)
assert second.SOPInstanceUID == "1.2.3"

third, updated = source(), Dataset()
updated.update(third)
updated["Modality"].value = "CT"
print("after update, a value set in place shows in the original:", third.Modality)
assert third.Modality == "CT"
print("As stated")
PYTHON
