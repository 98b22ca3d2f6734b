"""Names that are not valid text are refused at the door, before a library sees them."""

from __future__ import annotations

import io
import os
import sys

import numpy as np
import pytest

from retreg.errors import FileError
from retreg.files import (
    read_image,
    read_markups,
    read_transform,
    write_image,
    write_markups,
    write_transform,
)
from retreg.files.doors import existing_file
from retreg.files.names import usable_name
from retreg.geometry import Grid
from retreg.image import Image
from retreg.messages import Keypoints
from retreg.transforms import Affine
from retreg_server.cli import main

BAD = [b"auge-\xe4.png", b"\xff\xfe.nii.gz", b"k\xf6pfe/a.nrrd", b"a/\xe9t\xe9/b.tif"]


def in_folder(folder, name: bytes):
    return folder / os.fsdecode(name)


@pytest.mark.parametrize("name", BAD)
def test_an_image_is_not_read_from_such_a_name_nor_written_to_one(tmp_path, name):
    path = in_folder(tmp_path, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    for door in (read_image, read_transform, read_markups):
        with pytest.raises(FileError, match="not valid UTF-8"):
            door(path)
    image = Image(np.zeros((1, 1, 4, 4), np.uint8), Grid.of_picture(4, 4))
    with pytest.raises(FileError, match="not valid UTF-8"):
        write_image(path, image)
    with pytest.raises(FileError, match="not valid UTF-8"):
        write_transform(path, Affine.identity(), image.grid)
    with pytest.raises(FileError, match="not valid UTF-8"):
        write_markups(path, Keypoints(np.zeros((1, 3)), np.ones(1), np.ones(1, bool)))


def test_a_folder_of_such_a_name_is_refused_and_shown_with_question_marks(tmp_path):
    folder = in_folder(tmp_path, b"Serie-\xfc1")
    folder.mkdir()
    with pytest.raises(FileError) as refused:
        read_image(folder)
    assert "'Serie-?1'" in str(refused.value)
    str(refused.value).encode("utf-8")


@pytest.mark.parametrize("name", ["Auge-ä.png", "眼底.nii.gz", "a b (1).nrrd", "🧠.mha"])
def test_every_valid_name_may_be_used(tmp_path, name):
    assert usable_name(tmp_path / name) == tmp_path / name


@pytest.mark.parametrize("name", ["Auge-ä.nrrd", "眼底.nii.gz", "🧠.mha"])
def test_names_in_any_script_are_written_and_read(tmp_path, name):
    image = Image(np.arange(60, dtype=np.int16).reshape(1, 3, 4, 5), Grid((5, 4, 3), np.eye(4)))
    write_image(tmp_path / name, image)
    np.testing.assert_array_equal(read_image(tmp_path / name).array, image.array)


def too_long(folder):
    return folder / ("x" * 300 + ".nrrd")


def a_loop(folder):
    path = folder / "loop"
    path.symlink_to(path)
    return path


@pytest.mark.parametrize("named", [too_long, a_loop])
@pytest.mark.parametrize("door", [read_image, read_transform, read_markups, existing_file])
def test_a_name_that_the_system_never_opens_is_refused(tmp_path, named, door):
    path = named(tmp_path)
    with pytest.raises(FileError, match=r"of a file or folder (is longer|stands for a link)"):
        door(path)


@pytest.mark.parametrize("named", [too_long, a_loop])
def test_such_a_name_is_bad_input_of_every_command(tmp_path, capsys, named):
    bad, out = str(named(tmp_path)), str(tmp_path / "out")
    (tmp_path / "pairs.csv").write_text(f"fixed,moving\n{bad},{bad}\n")
    for arguments in (
        ["register", bad, bad, "-o", out],
        ["apply", bad, bad, "-o", out + ".nrrd"],
        ["groupwise", bad, bad, bad, "-o", out],
        ["batch", bad, "-o", out],
        ["evaluate", "retina", "--data", bad],
    ):
        assert main(arguments) == 2, arguments
        assert capsys.readouterr().err.count("\n") == 1


def test_a_name_that_cannot_be_printed_is_escaped(monkeypatch):
    bytes_out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(bytes_out, encoding="ascii"))
    monkeypatch.setattr(
        "retreg_server.commands.models.run", lambda _args: sys.stdout.write("Auge-ä\n") and 0
    )
    assert main(["models"]) == 0
    sys.stdout.flush()
    assert bytes_out.getvalue() == b"Auge-\\xe4\n"
