"""Controls drawn from what a server says of a model."""

from __future__ import annotations

import pytest

from retreg.messages import Option

OPTIONS = (
    Option("robust", "Mistrust outliers", True),
    Option("weights", "Weights", "variance", ("variance", "power", "none")),
    Option("looks", "Looks", 4, minimum=1, maximum=9),
    Option("step", "Step", 0.00025, minimum=0.0),
    Option("note", "Note", ""),
)


@pytest.fixture
def form(application):
    assert application
    import qt

    from RetRegLib.panel.options_form import OptionsForm

    parent = qt.QWidget()
    qt.QVBoxLayout(parent)
    heard = []
    form = OptionsForm(parent, lambda: heard.append(1))
    form.draw(OPTIONS, {})
    return form, heard, parent


def test_each_kind_of_option_has_its_kind_of_control(form):
    kinds = {name: control.className() for name, control in form[0].controls.items()}
    assert kinds == {
        "robust": "QCheckBox",
        "weights": "QComboBox",
        "looks": "QSpinBox",
        "step": "QDoubleSpinBox",
        "note": "QLineEdit",
    }


def test_nothing_is_sent_until_something_is_changed(form):
    assert form[0].values() == {}
    assert form[1] == []


def test_what_is_changed_is_told_and_given_in_its_type(form):
    controls = form[0].controls
    controls["robust"].click()
    controls["weights"].setCurrentIndex(2)
    controls["looks"].setValue(6)
    controls["step"].setValue(0.5)
    assert form[0].values() == {"robust": False, "weights": "none", "looks": 6, "step": 0.5}
    assert len(form[1]) == 4
    assert type(form[0].values()["looks"]) is int


def test_numbers_stay_within_the_limits_of_the_model(form):
    looks, step = form[0].controls["looks"], form[0].controls["step"]
    looks.setValue(100)
    step.setValue(-3)
    assert (looks.value, step.value) == (9, 0.0)


def test_a_small_default_is_not_rounded_away(form):
    assert form[0].controls["step"].value == 0.00025


def test_values_that_the_model_does_not_allow_become_its_default(form):
    form[0].draw(OPTIONS, {"looks": 77, "weights": "power", "robust": "yes"})
    assert form[0].values() == {"weights": "power"}


def test_a_new_model_replaces_the_controls_of_the_old_one(form):
    form[0].draw((), {})
    assert form[0].controls == {}
    assert form[2].layout().count() == 1
    assert form[0].values() == {}


def test_tool_tips_say_the_limits_and_the_default(form):
    assert form[0].controls["looks"].toolTip == "Looks. At least 1. At most 9. Default: 4."
