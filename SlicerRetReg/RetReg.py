"""RetReg: registration of fundus pictures and brain volumes, as Slicer's loader wants it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

from RetRegLib.logic import Registration
from RetRegLib.settings import Settings


class RetReg(ScriptedLoadableModule):
    """What the list of modules shows."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("RetReg")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        parent.dependencies = []
        parent.contributors = ["The SlicerRetReg developers"]
        parent.helpText = _(
            "Registers fundus pictures and brain volumes turned by any angle and of different "
            "modality. The work is done by a server, on this computer or another one. Not for "
            "clinical use.<ol>"
            "<li><b>Server</b>: start the local one, or enter an address.</li>"
            "<li><b>Inputs</b>: choose the image that stays and the one that moves, and what else "
            "moves with it.</li>"
            "<li><b>Register</b>, or set points by hand.</li>"
            "<li><b>Result</b>: read the verdict, and look: fade, checkerboard, side by side. Flip "
            "between results that you kept.</li>"
            "<li><b>Refit</b>: drag a keypoint to where it belongs, or add one. The image follows "
            "around it, as far as the slider Reach says.</li></ol>"
            "Keys, while this panel is open: Ctrl+Shift+R register or cancel; Ctrl+Shift+S swap; "
            "Ctrl+Shift+1, 2, 3 fade, checkerboard, side by side; Ctrl+Shift+X flip; Ctrl+Shift+G "
            "grid; Ctrl+Shift+K keypoints; Ctrl+Shift+A add points; Ctrl+Shift+U update the warped "
            "image; Ctrl+Shift+Z reset."
        )
        parent.acknowledgementText = _("Licensed under Apache-2.0.")
        slicer.app.connect("startupCompleted()", self.register_sample_data)
        slicer.app.connect("startupCompleted()", self.offer_dicom_plugin)

    def register_sample_data(self) -> None:
        """Offer the demo pairs in the module Sample Data."""
        from RetRegLib.sample_data import register_sample_data

        register_sample_data(Path(__file__).parent / "Resources")


    def offer_dicom_plugin(self) -> None:
        """Let the module DICOM load registrations and keypoints."""
        from RetRegLib.dicom_plugin import offer_plugin

        offer_plugin()


class RetRegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The shell around RetRegLib.panel.panel.Panel."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self) -> None:
        from RetRegLib.panel.dialogs import ask
        from RetRegLib.panel.panel import Panel

        ScriptedLoadableModuleWidget.setup(self)
        top = slicer.util.loadUI(self.resourcePath("UI/RetReg.ui"))
        self.layout.addWidget(top)
        self.ui = slicer.util.childWidgetVariables(top)
        top.setMRMLScene(slicer.mrmlScene)
        self.logic = RetRegLogic()
        self.panel = Panel(self.ui, self.logic, slicer.mrmlScene, ask)
        scene, kinds = slicer.mrmlScene, slicer.vtkMRMLScene
        self.addObserver(scene, kinds.StartCloseEvent, lambda *_: self.panel.scene_closes())
        self.addObserver(scene, kinds.EndCloseEvent, lambda *_: self.panel.scene_opened())
        self.addObserver(scene, kinds.EndImportEvent, lambda *_: self.panel.scene_opened())
        self.addObserver(scene, kinds.NodeRemovedEvent, lambda *_: self.panel.node_removed())

    def enter(self) -> None:
        self.panel.enter()

    def exit(self) -> None:
        self.panel.exit()

    def cleanup(self) -> None:
        self.removeObservers()
        self.panel.close()


class RetRegLogic(Registration, ScriptedLoadableModuleLogic):
    """slicer.util.getModuleLogic("RetReg").register(fixed, moving): see RetRegLib.logic."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self, parent)
        Registration.__init__(self, Settings(slicer.app.userSettings()))
        slicer.app.connect("aboutToQuit()", self.local_server.stop)


class RetRegTest(ScriptedLoadableModuleTest):
    """Runs inside Slicer without a server and without a network: see RetRegLib.self_test."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_a_registration_without_a_server()

    def test_a_registration_without_a_server(self) -> None:
        from RetRegLib.self_test import register_without_a_server

        logic = RetRegLogic()
        self.delayDisplay(_("Registering a pair whose truth is known"))
        error_mm = register_without_a_server(logic, slicer.mrmlScene)
        assert error_mm < 1e-3
        self.delayDisplay(_("The moving image lies on the fixed one"))
