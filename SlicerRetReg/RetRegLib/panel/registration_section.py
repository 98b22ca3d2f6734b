"""The part of the panel where a registration is ordered: images, model, transform, outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from html import escape
from typing import Any

import qt
from slicer.i18n import tr as _

from retreg.messages import ImageKind, ModelInfo, Scalar
from RetRegLib.panel.message_line import MessageLine
from RetRegLib.panel.options_form import OptionsForm
from RetRegLib.panel.smoothing_scale import position_of, smoothing_at, smoothing_text
from RetRegLib.scene.output_nodes import OutputNodes
from RetRegLib.scene.parameters import Parameters

_MODEL_TIP = _("How the images are registered. The list comes from the server.")
OWN_CONTROLS = ("transform", "smoothing")
"""Options of models that have a place of their own in the panel."""


class RegistrationSection:
    """Shows Parameters and changes them; on_changed() is called after each change by the user.

    What the scene asks for is kept while the server, and so its models, are not known.
    """

    def __init__(self, ui: Any, line: MessageLine, on_changed: Callable[[], None]) -> None:
        self._ui = ui
        self._on_changed = on_changed
        self._models: tuple[ModelInfo, ...] = ()
        self._drawn: ModelInfo | None = None
        self._options = OptionsForm(ui.optionsBox, line.guarded(self._options_edited))
        self.parameters = Parameters()
        self._selectors = {
            "fixed": ui.fixedSelector,
            "moving": ui.movingSelector,
            "transform": ui.transformSelector,
            "warped": ui.warpedSelector,
            "fixed_keypoints": ui.fixedKeypointsSelector,
            "moving_keypoints": ui.movingKeypointsSelector,
            "fixed_mask": ui.fixedMaskSelector,
            "moving_mask": ui.movingMaskSelector,
            "initial": ui.initialSelector,
        }
        for selector in self._selectors.values():
            selector.connect("currentNodeChanged(vtkMRMLNode*)", line.guarded(self._node_chosen))
        self._lists = {"more": ui.moreSelector, "also": ui.alsoSelector}
        for checked in self._lists.values():
            checked.connect("checkedNodesChanged()", line.guarded(self._nodes_checked))
        ui.swapButton.connect("clicked()", line.guarded(self._swap))
        ui.keepCheckBox.connect("clicked()", line.guarded(self._outputs_chosen))
        ui.onTopCheckBox.connect("clicked()", line.guarded(self._outputs_chosen))
        ui.modelSelector.connect("currentIndexChanged(int)", line.guarded(self._model_chosen))
        ui.familySelector.connect("currentIndexChanged(int)", line.guarded(self._family_chosen))
        ui.smoothingSlider.connect("valueChanged(double)", line.guarded(self._smoothing_moved))
        self._draw()

    @property
    def model(self) -> ModelInfo | None:
        """The model that will be used: the chosen one, else the first that suits the image."""
        suitable = self._suitable()
        chosen = [model for model in suitable if model.name == self.parameters.model]
        return (chosen or suitable or (None,))[0]

    @property
    def family(self) -> str:
        """The family of the transform that will be asked for; empty without a model."""
        families = self.model.produces if self.model else ("",)
        return self.parameters.family if self.parameters.family in families else families[0]

    def show(self, parameters: Parameters) -> None:
        """Show what the scene asks for."""
        self.parameters = parameters
        self._drawn = None
        self._draw()

    def take(
        self, model: str, family: str, smoothing: float, options: Mapping[str, Scalar]
    ) -> None:
        """Show another way of registering, for the same images."""
        self.show(
            replace(
                self.parameters, model=model, family=family, smoothing=smoothing, options=options
            )
        )

    def show_models(self, models: tuple[ModelInfo, ...]) -> None:
        """Offer the models of a server; none when there is no server."""
        self._models = models
        self._drawn = None
        self._draw()

    def missing(self) -> str:
        """What is still needed before it can be registered; empty when nothing is."""
        fixed, moving = self.parameters.fixed, self.parameters.moving
        if not self._models:
            return _("Connect to a server first: see the section Server.")
        if fixed is None:
            return _("Choose the fixed image.")
        if moving is None:
            return _("Choose the moving image.")
        if fixed is moving:
            return _("The fixed and the moving image are the same; choose two.")
        if self.model is None:
            return _("The server has no model for such images.")
        return ""

    def options(self) -> dict[str, Scalar]:
        """The options of the model that do something in the family, for Registration.register."""
        known = {
            option.name
            for option in (self.model.options if self.model else ())
            if not option.families or self.family in option.families
        }
        own: Mapping[str, Scalar] = {
            "transform": self.family,
            "smoothing": self.parameters.smoothing,
        }
        given = {**self._options.values(), **own}
        return {name: value for name, value in given.items() if name in known}

    def wanted(self) -> OutputNodes:
        """The nodes that take the result."""
        chosen = {f.name: getattr(self.parameters, f.name) for f in fields(OutputNodes)}
        return OutputNodes(**chosen)

    def _suitable(self) -> tuple[ModelInfo, ...]:
        kind = image_kind(self.parameters.fixed)
        return tuple(m for m in self._models if kind is None or kind in m.kinds)

    def _edit(self, **changes: Any) -> None:
        self.parameters = replace(self.parameters, **changes)
        self._draw()
        self._on_changed()

    def _node_chosen(self, _node: Any) -> None:
        self._edit(**{name: each.currentNode() for name, each in self._selectors.items()})

    def _nodes_checked(self) -> None:
        self._edit(**{name: tuple(each.checkedNodes()) for name, each in self._lists.items()})

    def _swap(self) -> None:
        now = self.parameters
        masks = {"fixed_mask": now.moving_mask, "moving_mask": now.fixed_mask}
        self._edit(fixed=now.moving, moving=now.fixed, **masks, initial=None)

    def _outputs_chosen(self) -> None:
        self._edit(keep=self._ui.keepCheckBox.checked, on_top=self._ui.onTopCheckBox.checked)

    def _model_chosen(self, index: int) -> None:
        self._edit(model=self._suitable()[index].name, family="", options={})

    def _family_chosen(self, index: int) -> None:
        if self.model is not None:
            self._edit(family=self.model.produces[index])

    def _smoothing_moved(self, position: float) -> None:
        self._edit(smoothing=smoothing_at(position))

    def _options_edited(self) -> None:
        self._edit(options=self._options.values())

    def _draw(self) -> None:
        """Bring every control in line with the parameters and the models."""
        ui, model = self._ui, self.model
        for name, selector in self._selectors.items():
            quietly(selector, selector.setCurrentNode, getattr(self.parameters, name))
        for name, checked in self._lists.items():
            check_only(checked, getattr(self.parameters, name))
        ui.keepCheckBox.checked = self.parameters.keep
        ui.onTopCheckBox.checked = self.parameters.on_top
        suitable = self._suitable()
        titles = [each.title for each in suitable]
        refill(ui.modelSelector, titles, suitable.index(model) if model else -1)
        families = model.produces if model else ()
        names = [family_title(family) for family in families]
        refill(ui.familySelector, names, families.index(self.family) if families else -1)
        ui.modelSelector.enabled, ui.familySelector.enabled = bool(model), bool(model)
        ui.modelDescription.text = describe(model) if model else ""
        ui.modelDescription.visible = model is not None
        citation = model.citation if model else ""
        ui.modelSelector.toolTip = f"{_MODEL_TIP} {citation}".strip()
        ui.modelDescription.toolTip = citation
        smooth = self.family == "tps" and "smoothing" in self.options()
        ui.smoothingSlider.enabled, ui.smoothingLabel.enabled = smooth, smooth
        slider = ui.smoothingSlider
        quietly(slider, slider.setValue, position_of(self.parameters.smoothing))
        ui.smoothingLabel.text = smoothing_text(self.parameters.smoothing)
        if model is not self._drawn or model is None:
            self._drawn = model
            rest = [o for o in model.options if o.name not in OWN_CONTROLS] if model else []
            self._options.draw(rest, self.parameters.options)


def image_kind(volume: Any) -> ImageKind | None:
    """Whether a volume node holds a picture; None when it holds nothing."""
    data = volume.GetImageData() if volume is not None else None
    if data is None:
        return None
    return "picture" if data.GetDimensions()[2] == 1 else "volume"


def describe(model: ModelInfo) -> str:
    """What a person wants to know of a model before choosing it."""
    what = {"picture": _("pictures"), "volume": _("volumes")}
    kinds = _(" and ").join(what[kind] for kind in model.kinds)
    trained = _("trained") if model.weights_sha256 else _("needs no training")
    text = _("{name}: for {kinds}, {trained}.")
    text = text.format(name=model.name, kinds=kinds, trained=trained)
    return f"<small>{escape(text)}</small>"


def family_title(family: str) -> str:
    """A family of transforms in words; its own name when it is not known here."""
    titles = {
        "rigid": _("Rigid (turn and shift)"),
        "similarity": _("Similarity (and scale)"),
        "affine": _("Affine (and shear)"),
        "quadratic": _("Quadratic (curved retina)"),
        "tps": _("Thin-plate spline (bend)"),
        "deformable": _("Deformable (bend everywhere)"),
    }
    return str(titles.get(family, family))


def refill(selector: Any, texts: list[str], index: int) -> None:
    """Replace the entries of a list without telling anybody."""
    selector.blockSignals(True)
    selector.clear()
    for text in texts:
        selector.addItem(text)
    selector.setCurrentIndex(index)
    selector.blockSignals(False)


def check_only(selector: Any, nodes: tuple[Any, ...]) -> None:
    """Check these nodes of a list, and no others, without telling anybody."""
    blocked = selector.blockSignals(True)
    for node in {*selector.checkedNodes(), *nodes}:
        selector.setCheckState(node, qt.Qt.Checked if node in nodes else qt.Qt.Unchecked)
    selector.blockSignals(blocked)


def quietly(widget: Any, setter: Callable[[Any], None], value: Any) -> None:
    """Set a value without telling anybody."""
    blocked = widget.blockSignals(True)
    setter(value)
    widget.blockSignals(blocked)
