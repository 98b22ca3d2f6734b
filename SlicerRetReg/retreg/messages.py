"""What callers, models and the wire exchange: requests, results and model descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from retreg.errors import InputError, OptionError
from retreg.image import Image
from retreg.inverse import inverse_of
from retreg.quality import Quality
from retreg.transforms import Affine, Transform

Scalar = str | float | int | bool
ImageKind = Literal["picture", "volume"]


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Points of one image, with the same order and labels as those of its partner.

    points: (n, 3) LPS mm. weights: (n,) from 0 upwards. inliers: (n,) bool, whether the pair
    supports the transform.
    """

    points: np.ndarray
    weights: np.ndarray
    inliers: np.ndarray

    def __post_init__(self) -> None:
        points = np.asarray(self.points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
            raise InputError("Keypoints must be finite points of the shape (n, 3).")
        weights = np.asarray(self.weights, dtype=np.float64)
        inliers = np.asarray(self.inliers, dtype=bool)
        if weights.shape != (len(points),) or inliers.shape != (len(points),):
            raise InputError("Keypoints need one weight and one inlier state per point.")
        for name, value in (("points", points), ("weights", weights), ("inliers", inliers)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class Option:
    """One setting of a model, described so that any client can draw a control for it.

    minimum and maximum bound numbers; choices lists the allowed strings. families: the transform
    families in which it does something, all of them where that is empty.
    """

    name: str
    title: str
    default: Scalar
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    families: tuple[str, ...] = ()

    def checked(self, value: Scalar) -> Scalar:
        """The value, converted to the type of the default. Raises OptionError."""
        if self.choices:
            if value not in self.choices:
                raise OptionError(
                    f"{self.name} = {value!r} is not known; use one of {', '.join(self.choices)}."
                )
            return value
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise OptionError(f"{self.name} = {value!r} was given; use true or false.")
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise OptionError(f"{self.name} = {value!r} was given; a number was expected.")
        low = -np.inf if self.minimum is None else self.minimum
        high = np.inf if self.maximum is None else self.maximum
        if not low <= value <= high:
            raise OptionError(f"{self.name} = {value} is out of range; use {low} to {high}.")
        if isinstance(self.default, int) and not float(value).is_integer():
            raise OptionError(f"{self.name} = {value} was given; a whole number was expected.")
        return type(self.default)(value)


@dataclass(frozen=True)
class ModelInfo:
    """What a client needs to know of a model: its name, what it takes and what it offers.

    kinds: the images it registers. subject: what they show, such as "retina" or "head"; empty when
    a server of an older version does not say. produces: the transform families, the first is the
    default.
    weights_sha256: hash of the trained weights, empty for models without any.
    """

    name: str
    title: str
    kinds: tuple[ImageKind, ...]
    produces: tuple[str, ...]
    options: tuple[Option, ...] = ()
    citation: str = ""
    licence: str = "Apache-2.0"
    weights_sha256: str = ""
    subject: str = ""

    def refuse_idle(self, given: Mapping[str, Scalar]) -> None:
        """Raise OptionError for an option that does nothing in the transform family.

        One that is at its default asks for nothing.
        """
        family = self.complete(given).get("transform")
        for option in self.options:
            is_asked = given.get(option.name, option.default) != option.default
            if is_asked and option.families and family not in option.families:
                raise OptionError(
                    f"The option {option.name} does nothing in a transform that is {family}; it "
                    f"belongs to {' and '.join(option.families)}, so leave it or choose that "
                    "transform."
                )

    def complete(self, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The options of the model with its defaults filled in, the transform family among them.

        Raises OptionError for an option or a value that the model does not know.
        """
        known = {option.name: option for option in self.options}
        unknown = set(given) - set(known)
        if unknown:
            raise OptionError(
                f"{self.name} has no option {', '.join(sorted(unknown))}; it has "
                f"{', '.join(known)}."
            )
        return {
            name: option.checked(given[name]) if name in given else option.default
            for name, option in known.items()
        }


@dataclass(frozen=True, eq=False)
class RegistrationRequest:
    """Register moving to fixed with a model. options holds only what differs from the defaults.

    initial: from fixed to moving points (LPS mm), near which alone the result is looked for; None
    to look everywhere.
    """

    fixed: Image
    moving: Image
    model: str
    options: Mapping[str, Scalar] = field(default_factory=dict)
    initial: Affine | None = None


@dataclass(frozen=True, eq=False)
class RegistrationResult:
    """The answer: a transform, the keypoints that drive or support it, and how good it is.

    provenance: model, options, version, weights_sha256 and seconds per stage, ready for JSON.
    backward: moving to fixed, found by registering the other way round and not by inverting
    transform; None where it is not known, as from an older server. notes: sentences to read
    beside the verdict, on what the files say of the images.
    """

    transform: Transform
    fixed_keypoints: Keypoints
    moving_keypoints: Keypoints
    quality: Quality
    provenance: Mapping[str, Any]
    backward: Transform | None = None
    notes: tuple[str, ...] = ()

    @property
    def inverse(self) -> Transform:
        """From moving to fixed points: what takes each point back, exactly (retreg.inverse)."""
        return inverse_of(self.transform)
