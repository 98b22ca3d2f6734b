"""Damaged, lying and exploding files: one sentence each, and bounded memory.

All of them are read by one child process that may take 600 MB beyond its libraries; what it
answers about each file is then asserted one by one.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import DeflatedExplicitVRLittleEndian

from retreg.errors import FileError, GeometryError
from retreg.files import read_image, write_image
from retreg.geometry import Grid
from retreg.image import Image

CHILD = """
import json, resource, sys, traceback
import SimpleITK, PIL.Image, pydicom, pydicom.pixels
from retreg.errors import RetRegError
from retreg.files import read_image
PIL.Image.init()
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 600_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    try:
        answer = ["read", str(read_image(path).array.shape)]
    except RetRegError as error:
        answer = [type(error).__name__, str(error)]
    except BaseException as error:
        answer = ["escaped", repr(error)[:300]]
    print(json.dumps([path, *answer]), flush=True)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps(int(peak.split()[1]) // 1000))
"""
HUGE = 20_000


def a_volume():
    array = np.random.default_rng(0).integers(0, 999, (1, 20, 20, 20), dtype=np.int16)
    return Image(array, Grid((20, 20, 20), np.diag([2.0, 2, 2, 1])))


def patched(path, *changes):
    """A copy with (offset, layout, values) packed into it."""
    content = bytearray(path.read_bytes())
    for offset, layout, *values in changes:
        struct.pack_into(layout, content, offset, *values)
    return bytes(content)


def zeros_deflated(megabytes, wbits):
    """A stream that inflates to so many MB: one deflated MB, repeated."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, wbits)
    out = [squeeze.compress(b""), squeeze.flush(zlib.Z_FULL_FLUSH)]
    block = squeeze.compress(bytes(1 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return b"".join(out) + block * megabytes + squeeze.flush()


def png_header(width, height):
    """A PNG that declares a size and holds one row of it."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(
            ">I", zlib.crc32(name + body)
        )  # fmt: skip

    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(3 * width + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(
        b"IEND", b""
    )  # fmt: skip


def cut_files(folder):
    """Every format without its last part."""
    sources = {}
    for ending in ("nii", "nii.gz", "nrrd", "mha"):
        write_image(folder / f"whole.{ending}", a_volume())
        sources[f"cut.{ending}"] = folder / f"whole.{ending}"
    raw = sitk.ReadImage(str(folder / "whole.mha"))
    for ending in ("nrrd", "mha"):
        sitk.WriteImage(raw, str(folder / f"raw.{ending}"), useCompression=False)
        sources[f"cut_raw.{ending}"] = folder / f"raw.{ending}"
    pixels = np.random.default_rng(0).integers(0, 255, (90, 80, 3), dtype=np.uint8)
    for ending in ("png", "jpg", "tif", "bmp"):
        PIL.Image.fromarray(pixels).save(folder / f"whole.{ending}")
        sources[f"cut.{ending}"] = folder / f"whole.{ending}"
    deep = sitk.GetImageFromArray(pixels.astype(np.uint16) * 257, isVector=True)
    for ending in ("png", "tif"):
        sitk.WriteImage(deep, str(folder / f"deep.{ending}"))
        sources[f"cut_deep.{ending}"] = folder / f"deep.{ending}"
    for name, source in sources.items():
        content = source.read_bytes()
        (folder / name).write_bytes(content[: len(content) * 2 // 3])
    return list(sources)


def lying_files(folder):
    """Headers that declare what is not there."""
    sizes = struct.pack("<8h", 3, HUGE, HUGE, HUGE, 1, 1, 1, 1)
    nii = patched(folder / "whole.nii", (40, "16s", sizes))
    nrrd = (folder / "raw.nrrd").read_bytes()
    mha = (folder / "raw.mha").read_bytes()
    wide = b"20000 20000 20000"
    files = {
        "huge.nii": nii[:1000],
        "huge.nii.gz": gzip.compress(nii[:1000]),
        "more.nii": patched(folder / "whole.nii", (46, "<h", 21)),
        "huge.nrrd": nrrd.replace(b"sizes: 20 20 20", b"sizes: " + wide),
        "more.nrrd": nrrd.replace(b"sizes: 20 20 20", b"sizes: 20 20 21"),
        "dimensions.nrrd": nrrd.replace(b"dimension: 3", b"dimension: 9"),
        "huge.mha": mha.replace(b"DimSize = 20 20 20", b"DimSize = " + wide),
        "more.mha": mha.replace(b"DimSize = 20 20 20", b"DimSize = 20 20 21"),
        "dimensions.mha": mha.replace(b"NDims = 3", b"NDims = 999"),
        "negative.nii": patched(folder / "whole.nii", (42, "<h", -5)),
        "offset.nii": patched(folder / "whole.nii", (108, "<f", float("nan"))),
        "type.nii": patched(folder / "whole.nii", (70, "<h", 4711)),
        "huge.png": png_header(30_000, 30_000),
        "large.png": png_header(10_000, 10_000),
        "endless.nrrd": b"NRRD0004\n" + b"#" * 3_000_000,
        "text.dat": b"hello",
        "noise.dat": np.random.default_rng(5).bytes(5000),
        "noise.gz": gzip.compress(b"hello"),
        "empty.nii.gz": b"",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return list(files)


def spoilt_files(folder):
    """Packed voxels of which one byte is wrong, as the checksum at their end tells."""
    for ending, checksum_at in (("nii.gz", -8), ("nrrd", -8), ("mha", -4)):  # RFC 1952, 1950
        content = bytearray((folder / f"whole.{ending}").read_bytes())
        content[checksum_at] ^= 0xFF
        (folder / f"spoilt.{ending}").write_bytes(content)
    return ["spoilt.nii.gz", "spoilt.nrrd", "spoilt.mha"]


def exploding_files(folder):
    """A few MB that inflate to 4 GB, with a header that says so or one that says 16 kB."""
    nii = (folder / "whole.nii").read_bytes()
    sizes = struct.pack("<8h", 3, 1250, 1250, 1250, 1, 1, 1, 1)
    large = nii[:40] + sizes + nii[56:]
    bomb, zipped = zeros_deflated(4000, -15), zeros_deflated(1500, 31)
    start = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    nrrd = (folder / "whole.nrrd").read_bytes().split(b"\n\n")[0] + b"\n\n"
    mha = (folder / "whole.mha").read_bytes().split(b"LOCAL\n")[0] + b"LOCAL\n"
    squeezed = zeros_deflated(1500, 15)
    old = next(line for line in mha.split(b"\n") if line.startswith(b"CompressedDataSize"))
    mha = mha.replace(old, b"CompressedDataSize = %d" % len(squeezed))
    files = {
        "honest_bomb.nii.gz": start + stored(large[:352]) + bomb,
        "quiet_bomb.nii.gz": start + stored(nii[:352]) + bomb,
        "honest_bomb.nrrd": nrrd.replace(b"sizes: 20 20 20", b"sizes: 1250 1250 1250") + zipped,
        "quiet_bomb.nrrd": nrrd + zipped,
        "quiet_bomb.mha": mha + squeezed,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return list(files)


def stored(content):
    """A deflate block that holds content as it is, and is not the last one (RFC 1951, 3.2.4)."""
    return b"\0" + struct.pack("<2H", len(content), len(content) ^ 0xFFFF) + content


def dicom_files(folder, write_dicom):
    """DICOM files that cost memory or recursion."""
    plain = write_dicom(folder / "whole.dcm", np.arange(3000, dtype=np.uint16).reshape(50, 60))
    content = plain.read_bytes()
    data = pydicom.dcmread(plain)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(folder / "deflated.dcm")
    at = content.index(b"Secret^Patient") - 8
    absurd = content[:at] + b"\x10\0\x10\0UN\0\0" + struct.pack("<I", 0xFFFFFFF0) + content[at:]
    endless = b"\xff\xff\xff\xff"
    sequence = b"\x10\0\x02\x10SQ\0\0" + endless + b"\xfe\xff\0\xe0" + endless
    items = b"\xfe\xff\0\xe0\0\0\0\0" * 3_000_000
    group = b"\0\x52\x30\x92SQ\0\0" + struct.pack("<I", len(items)) + items
    small = b"\0\x52\x30\x92SQ\0\0" + endless + items[: len(items) // 2]
    pixels_at = content.rindex(b"\xe0\x7f\x10\0")
    files = {
        "cut.dcm": content[: len(content) * 2 // 3],
        "cut_header.dcm": content[:300],
        "absurd.dcm": absurd,
        "nested.dcm": content[:at] + sequence * 20_000,
        "items.dcm": content[:pixels_at] + group + content[pixels_at:],
        "open_items.dcm": content[:pixels_at] + small,
    }
    for name, body in files.items():
        (folder / name).write_bytes(body)
    for name, size in (("rows.dcm", (60_000, 60_000)), ("taller.dcm", (51, 60))):
        write_dicom(folder / name, np.zeros((50, 60), np.uint16), Rows=size[0], Columns=size[1])
    write_dicom(folder / "frames.dcm", np.zeros((2, 50, 60), np.uint16), NumberOfFrames=2_000_000)
    jpeg = io.BytesIO()
    PIL.Image.new("L", (12_000, 7_000)).save(jpeg, "JPEG")
    lying = pydicom.dcmread(write_dicom(folder / "false.dcm", np.zeros((50, 60), np.uint8)))
    lying.PixelData = pydicom.encaps.encapsulate([jpeg.getvalue()])
    lying["PixelData"].is_undefined_length = True
    for name, syntax in (("false.dcm", "50"), ("false_lossless.dcm", "70")):
        lying.file_meta.TransferSyntaxUID = f"1.2.840.10008.1.2.4.{syntax}"
        lying.save_as(folder / name)
    return ["deflated.dcm", "rows.dcm", "taller.dcm", "frames.dcm", "false.dcm",
            "false_lossless.dcm", *files]  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory, write_dicom):
    """What read_image said about each file; the child's peak memory in MB; its complaints."""
    folder = tmp_path_factory.mktemp("hostile")
    names = cut_files(folder) + lying_files(folder) + exploding_files(folder)
    names += spoilt_files(folder)
    names += dicom_files(folder, write_dicom)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *(str(folder / name) for name in names)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    *lines, peak = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(names)
    return {Path(path).name: rest for path, *rest in lines}, peak, done.stderr


def test_every_bad_file_gets_one_sentence_of_ours(answers):
    said, _, stderr = answers
    for name, (kind, message) in said.items():
        if name.startswith("quiet_bomb"):
            continue
        assert kind in ("FileError", "TooLargeError", "GeometryError"), (name, message)
        assert message.startswith(name), message
        assert message.endswith("."), message
        assert "could not be read" not in message or not name.startswith(("huge", "large")), name
        assert "/" not in message, message
        assert "Secret" not in message, message
    assert stderr == ""


def test_memory_stays_bounded(answers):
    """Python, NumPy and the three libraries alone take about 150 MB."""
    _, peak_mb, _ = answers
    assert peak_mb < 700


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut.nii", "is cut off"),
        ("cut_raw.nrrd", "is cut off"),
        ("more.mha", "is cut off"),
        ("huge.nii.gz", "declares 16,000 GB"),
        ("huge.nrrd", "declares 16,000 GB"),
        ("huge.mha", "declares 16,000 GB"),
        ("honest_bomb.nii.gz", "declares 3.91 GB"),
        ("huge.png", "89 million"),
        ("large.png", "10000 x 10000"),
        ("rows.dcm", "declares 7.2 GB"),
        ("frames.dcm", "declares 12 GB"),
        ("deflated.dcm", "deflated"),
        ("false.dcm", "do not have the size"),
        ("false_lossless.dcm", "do not have the size"),
        ("noise.dat", "unknown format"),
        ("empty.nii.gz", "empty"),
    ],
)
def test_the_sentence_names_the_cause(answers, name, words):
    assert words in answers[0][name][1]


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
def test_what_follows_the_declared_voxels_is_never_inflated(answers, ending):
    assert answers[0][f"quiet_bomb.{ending}"] == ["read", "(1, 20, 20, 20)"]


def test_missing_files_and_odd_names_are_refused(tmp_path):
    with pytest.raises(FileError, match="no file 'a"):
        read_image(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="no file 'pipe'"):
        read_image(str(tmp_path / "pipe"))


@pytest.mark.parametrize("number", ["0", "nan", "inf", "1e30"])
@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_impossible_spacings_are_refused(tmp_path, ending, number):
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6), np.uint8)), str(path))
    content = path.read_bytes()
    content = content.replace(b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 1 " + number.encode())
    path.write_bytes(content.replace(b"(0,0,1)", b"(0,0," + number.encode() + b")"))
    with pytest.raises((FileError, GeometryError)):
        read_image(path)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("number", ["0", "nan", "inf", "1e30", "-1"])
def test_impossible_dicom_spacings_are_refused(tmp_path, write_dicom, number):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((5, 7), np.uint8), PixelSpacing=["1", number])
    with pytest.raises((FileError, GeometryError)):
        read_image(path)


@pytest.mark.parametrize("number", [float("nan"), 1e30])
def test_impossible_nifti_axes_are_refused(tmp_path, number):
    path = tmp_path / "a.nii"
    write_image(path, a_volume())
    path.write_bytes(patched(path, (280, "<f", number), (252, "<2h", 0, 1), (76, "<2f", 1, number)))
    with pytest.raises((FileError, GeometryError)):
        read_image(path)


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_axes_in_one_plane_are_refused(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6), np.uint8)), str(path))
    content = path.read_bytes().replace(b"(0,0,1)", b"(0,1,0)")
    path.write_bytes(content.replace(b"1 0 0 0 1 0 0 0 1", b"1 0 0 0 1 0 0 1 0"))
    with pytest.raises((FileError, GeometryError)):
        read_image(path)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("cosines", [[0, 0, 0, 0, 1, 0], [1, 0, 0, 1, 0, 0], ["nan"] * 6])
def test_impossible_dicom_directions_are_refused(tmp_path, write_dicom, cosines):
    path = write_dicom(
        tmp_path / "a.dcm", np.zeros((5, 7), np.uint8),
        ImageOrientationPatient=cosines, ImagePositionPatient=[0, 0, 0],
    )  # fmt: skip
    with pytest.raises((FileError, GeometryError)):
        read_image(path)
