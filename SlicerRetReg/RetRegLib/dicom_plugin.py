"""Slicer's module DICOM loads registrations and keypoints through this plugin.

Slicer itself reads none of these objects; another extension reads registrations and wants to be
asked first, but turns deformations round and moves their grids.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from retreg.files.dicom_fiducials import SPATIAL_FIDUCIALS
from retreg.files.dicom_registration import REGISTRATIONS

NAME = "RetRegDICOMPlugin"
CONFIDENCE = 0.97
_SOP_CLASS, _INSTANCE, _DESCRIPTION = "0008,0016", "0008,0018", "0008,103E"
_KINDS = {REGISTRATIONS[0]: "registration", REGISTRATIONS[1]: "deformation"}
_KINDS[SPATIAL_FIDUCIALS] = "keypoints"


def offer_plugin() -> None:
    """Tell the module DICOM of the plugin; before it starts, the list is made for it.

    Slicer can be built without that module.
    """
    try:
        plugin = plugin_class()
    except ModuleNotFoundError:
        return
    if not hasattr(slicer.modules, "dicomPlugins"):
        slicer.modules.dicomPlugins = {}
    slicer.modules.dicomPlugins[NAME] = plugin


def plugin_class() -> type:
    """The class of the plugin; its base is there only where the module DICOM is."""
    from DICOMLib import DICOMLoadable, DICOMPlugin

    class RetRegDICOMPlugin(DICOMPlugin):  # type: ignore[misc]
        """Loads Spatial Registration, Deformable Spatial Registration and Spatial Fiducials."""

        def __init__(self) -> None:
            super().__init__()
            self.loadType = "RetReg"
            self.tags.update({"sopClass": _SOP_CLASS, "instance": _INSTANCE})

        def examineForImport(self, file_lists: list[list[str]]) -> list[Any]:
            """One loadable for each object that the plugin reads."""
            return [self._loadable(path) for files in file_lists for path in files if kind(path)]

        def load(self, loadable: Any) -> bool:
            """Make the nodes; the module DICOM shows what an exception says."""
            for path in loadable.files:
                for node in load_object(path, loadable.name):
                    self.addSeriesInSubjectHierarchy(loadable, node)
            return True

        def _loadable(self, path: str) -> Any:
            loadable = DICOMLoadable()
            loadable.files = [path]
            described = slicer.dicomDatabase.fileValue(path, _DESCRIPTION)
            loadable.name = described or f"RetReg {kind(path)}"
            loadable.tooltip = f"A {kind(path)} between two images"
            loadable.selected, loadable.confidence = True, CONFIDENCE
            return loadable

    return RetRegDICOMPlugin


def kind(path: str) -> str:
    """What the plugin calls the object in a file of the database; empty if it reads it not."""
    return _KINDS.get(str(slicer.dicomDatabase.fileValue(path, _SOP_CLASS)), "")


def load_object(path: str, name: str) -> tuple[Any, ...]:
    """The nodes made of a file of the database. Raises FileError or InputError."""
    from RetRegLib.scene.stored_objects import load_fiducials, load_registration

    scene, database = slicer.mrmlScene, slicer.dicomDatabase
    if kind(path) == _KINDS[SPATIAL_FIDUCIALS]:
        return load_fiducials(Path(path), name, scene, database)
    return (load_registration(Path(path), name, scene, database),)
