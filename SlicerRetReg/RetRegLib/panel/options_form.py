"""Controls for the options of a model, drawn from the description that the server sends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

import qt
from slicer.i18n import tr as _

from retreg.messages import Option, Scalar

LARGEST_INTEGER = 2**31 - 1  # of QSpinBox
LARGEST_NUMBER = 1e12


class OptionsForm:
    """A form inside parent, which has a layout; changed() is called when the user changes it."""

    def __init__(self, parent: Any, changed: Callable[[], None]) -> None:
        self._parent = parent
        self._changed = changed
        self._box: Any = None
        self._options: tuple[Option, ...] = ()
        self.controls: dict[str, Any] = {}

    def draw(self, options: Iterable[Option], values: Mapping[str, Scalar]) -> None:
        """Replace all controls; values that an option does not allow become its default."""
        if self._box is not None:  # removing single rows needs a newer Qt binding
            self._box.setParent(None)
            self._box.deleteLater()
        self._options, self.controls = tuple(options), {}
        self._box = qt.QWidget()
        rows = qt.QFormLayout(self._box)
        rows.setContentsMargins(0, 0, 0, 0)
        if not self._options:
            rows.addRow(qt.QLabel(_("This model has no further options.")))
        for option in self._options:
            control = _control(option, _allowed(option, values), self._changed)
            control.toolTip = _tool_tip(option)
            rows.addRow("" if isinstance(option.default, bool) else option.title + ":", control)
            self.controls[option.name] = control
        self._parent.layout().addWidget(self._box)

    def values(self) -> dict[str, Scalar]:
        """What differs from the defaults, by the name of the option."""
        shown = [(option, _value(option, self.controls[option.name])) for option in self._options]
        return {option.name: value for option, value in shown if value != option.default}


def _allowed(option: Option, values: Mapping[str, Scalar]) -> Scalar:
    from retreg.errors import OptionError

    try:
        return option.checked(values[option.name])
    except (KeyError, OptionError):
        return option.default


def _control(option: Option, value: Scalar, changed: Callable[[], None]) -> Any:
    """A check box, a list, a box for a number, or a line of text."""
    if isinstance(option.default, bool):
        box = qt.QCheckBox(option.title)
        box.checked = value
        box.connect("clicked()", changed)
        return box
    if option.choices:
        choice = qt.QComboBox()
        for each in option.choices:
            choice.addItem(each)
        choice.setCurrentIndex(option.choices.index(str(value)))
        choice.connect("currentIndexChanged(int)", partial(_told, changed))
        return choice
    if isinstance(option.default, (int, float)):
        return _number_box(option, option.default, value, changed)
    line = qt.QLineEdit(str(value))
    line.connect("textEdited(QString)", partial(_told, changed))
    return line


def _number_box(
    option: Option, default: float, value: Scalar, changed: Callable[[], None]
) -> Any:
    if isinstance(default, int):
        box, most = qt.QSpinBox(), LARGEST_INTEGER
        box.setRange(_bound(option.minimum, -most), _bound(option.maximum, most))
        box.connect("valueChanged(int)", partial(_told, changed))
    else:
        box = qt.QDoubleSpinBox()
        box.setDecimals(max(3, *map(_decimals, (default, option.minimum, option.maximum))))
        low = -LARGEST_NUMBER if option.minimum is None else option.minimum
        box.setRange(low, LARGEST_NUMBER if option.maximum is None else option.maximum)
        box.singleStep = max(abs(default) / 10, 10.0**-box.decimals)
        box.connect("valueChanged(double)", partial(_told, changed))
    box.blockSignals(True)
    box.setValue(value)
    box.blockSignals(False)
    return box


def _told(changed: Callable[[], None], _new_value: object) -> None:
    changed()


def _bound(limit: float | None, otherwise: int) -> int:
    if limit is None or math.isinf(limit):
        return otherwise
    return max(-LARGEST_INTEGER, min(int(limit), LARGEST_INTEGER))


def _decimals(number: float | None) -> int:
    """How many decimals it takes to write a number exactly as JSON does."""
    if number is None or not math.isfinite(number):
        return 0
    exponent = Decimal(repr(float(number))).normalize().as_tuple().exponent
    return max(0, -int(exponent))


def _value(option: Option, control: Any) -> Scalar:
    if isinstance(option.default, bool):
        return bool(control.checked)
    if option.choices:
        return str(control.currentText)
    if isinstance(option.default, int):
        return int(control.value)
    if isinstance(option.default, float):
        return float(control.value)
    return str(control.text)


def _tool_tip(option: Option) -> str:
    """What may be entered, and what is entered when nobody does."""
    parts = [option.title + "."]
    if option.minimum is not None:
        parts.append(_("At least {number:g}.").format(number=option.minimum))
    if option.maximum is not None:
        parts.append(_("At most {number:g}.").format(number=option.maximum))
    parts.append(_("Default: {value}.").format(value=option.default))
    return " ".join(parts)
