"""The pictures of the gallery are made of the volumes that are credited, and of no others."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "draw_gallery.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("draw_gallery", SCRIPT)
    assert spec is not None
    sys.modules["draw_gallery"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The folder in which the script looks for the volumes first."""
    monkeypatch.setenv("RETREG_DATA", str(tmp_path))
    found = tmp_path / "brain" / "openms_longitudinal_raw"
    found.mkdir(parents=True)
    return found


@pytest.mark.usefixtures("retreg_data")
def test_the_credited_volumes_are_taken(script):
    names = [path.name for path in script.head_files()]
    assert names == ["p01_study1_FLAIR.nii.gz", "p01_study2_T1W.nii.gz"]


@pytest.mark.parametrize("content", [b"", b"another volume"])
def test_other_volumes_are_refused(script, folder, content):
    for name in script.HEAD:
        (folder / f"p01_{name}").write_bytes(content)
    with pytest.raises(ValueError, match="not the volume that was expected"):
        script.head_files()


def test_volumes_that_are_not_at_hand_are_downloaded(script, folder, monkeypatch):
    assert not any(folder.iterdir())
    asked = []

    def download(address, path):
        asked.append(address)
        Path(path).write_bytes(b"a damaged download")

    monkeypatch.setattr(script.urllib.request, "urlretrieve", download)
    with pytest.raises(ValueError, match="download it again"):
        script.head_files()
    assert asked == [script.BASE + next(iter(script.HEAD))]
