"""The module as Slicer loads it: its texts, its demo pairs, its own test."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pytest

from retreg import read_image

MODULE = Path(__file__).parents[3] / "SlicerRetReg"
TITLED_BY_THEIR_ROW = ("smoothingLabel", "refitSmoothingLabel")


def test_the_module_introduces_itself(module):
    parent = SimpleNamespace()
    module.RetReg(parent)
    assert parent.title == "RetReg"
    assert parent.categories == ["Registration"]
    assert "Not for clinical use" in parent.helpText


def test_the_modules_own_test_passes_without_a_server(module):
    test = module.RetRegTest()
    test.runTest()


def test_the_logic_needs_no_widget(module):
    from RetRegLib.logic import Registration

    logic = module.RetRegLogic()
    assert isinstance(logic, Registration)
    assert logic.connection is None


def test_every_control_says_what_it_does(window):
    kinds = ("QPushButton", "QCheckBox", "QComboBox", "QLineEdit", "ctkSliderWidget")
    kinds += ("qMRMLNodeComboBox",)
    named = {name: widget for name, widget in vars(window.ui).items() if not name.startswith("qt_")}
    controls = {n: w for n, w in named.items() if w.className() in kinds}
    assert len(controls) > 25
    assert not {name for name, widget in controls.items() if not widget.toolTip}


def test_the_sources_use_every_control_of_the_designer_file_and_no_other(window):
    sources = "".join(
        path.read_text("utf-8")
        for path in (*(MODULE / "RetRegLib").rglob("*.py"), MODULE / "RetReg.py")
    )
    found = re.findall(r"\bself\._ui\.(\w+)|\bui\.(\w+)", sources)
    used = {name for pair in found for name in pair if name}
    there = set(vars(window.ui)) - {"RetReg"}
    assert used <= there
    silent = {name for name in there - used if not re.search(r"(Label\d|Title)$", name)}
    assert not {name for name in silent if not name.startswith("qt_")}


def test_the_demo_pairs_are_offered_and_come_from_this_computer(module, application):
    module.RetReg(SimpleNamespace())
    application.emit("startupCompleted()")
    assert [each["sampleName"] for each in application.samples] == [
        "RetRegFundusPair",
        "RetRegHeadPair",
    ]
    for sample in application.samples:
        assert Path(sample["thumbnailFileName"]).is_file()
        assert len(sample["uris"]) == len(sample["fileNames"]) == len(sample["nodeNames"]) == 2
        for uri in sample["uris"]:
            parts = urlsplit(uri)
            assert parts.scheme == "file"
            image = read_image(Path(url2pathname(parts.path)))
            assert image.is_picture == ("Fundus" in sample["sampleName"])


@pytest.mark.parametrize("which", ["fundus", "head"])
def test_the_demo_pairs_are_those_of_the_generators(application, which):
    assert application
    import importlib.util

    path = Path(__file__).parents[1] / "resources.py"
    spec = importlib.util.spec_from_file_location("resources", path)
    resources = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(resources)
    pair = resources.fundus_pair() if which == "fundus" else resources.head_pair()
    names = {
        "fundus": ("fundus-colour.png", "fundus-angiogram.png"),
        "head": ("head-t1.nrrd", "head-t2.nrrd"),
    }
    for made, name in zip((pair.fixed, pair.moving), names[which], strict=True):
        kept = read_image(MODULE / "Resources" / "SampleData" / name)
        off = np.abs(kept.array.astype(float) - made.array.astype(float))
        assert np.mean(off) < 0.5  # other versions of NumPy and SciPy may round otherwise
        assert np.allclose(kept.grid.world_from_index, made.grid.world_from_index, atol=1e-4)


def test_settings_are_kept_under_one_name(application):
    from RetRegLib.settings import Settings

    store = application.userSettings()
    store.setValue("Other/key", "theirs")
    settings = Settings(store)
    settings["serverUrl"] = "http://here"
    assert store.value("RetReg/serverUrl") == "http://here"
    assert dict(settings) == {"serverUrl": "http://here"}
    del settings["serverUrl"]
    assert len(settings) == 0
    assert store.value("Other/key") == "theirs"
    with pytest.raises(KeyError):
        settings["missing"]


def test_the_module_dicom_is_told_of_the_plugin_when_there_is_one(
    module, application, monkeypatch
):
    import slicer

    module.RetReg(SimpleNamespace())
    application.emit("startupCompleted()")
    assert not hasattr(slicer.modules, "dicomPlugins")
    library = ModuleType("DICOMLib")
    library.DICOMPlugin, library.DICOMLoadable = object, SimpleNamespace
    monkeypatch.setitem(sys.modules, "DICOMLib", library)
    application.emit("startupCompleted()")
    assert list(slicer.modules.dicomPlugins) == ["RetRegDICOMPlugin"]
