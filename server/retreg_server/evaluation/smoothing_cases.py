"""What the SmoothProper layer is for, on shapes: the aperture problem and long displacements.

Every pixel compares its 5 x 5 surroundings with those of the other image. Along a straight edge
all of them look alike (the aperture problem), and inside a plain shape nothing can be seen at all,
however far the shape has moved. Without the layer each pixel answers for itself, with its mean
displacement; with it the ends and corners tell the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional

from retreg_server.registration.networks.cost_volume import correlations, displacement_bases
from retreg_server.registration.networks.smooth_proper import SmoothProper, certainty, expected

SIDE = 64  # pixels of the images
PATCH = 5  # pixels that a pixel sees of its surroundings
RADIUS = 8  # pixels within which it looks for them
SHARPNESS = 40.0
FAINTEST_PATCH = 0.05
STEPS, ALPHA, BETA = 20, 8.0, 10.0
LEAST_CERTAINTY = 1e-3
TILT = 0.3  # radians between the bar and the x axis
HALF_LENGTH, HALF_WIDTH, DISC_RADIUS = 22.0, 3.0, 17.0
ENLARGED, ARROW_EVERY = 5, 4

Shape = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class ShapeCase:
    """A shape and how far it moves. shape: distance from its edge, negative inside."""

    name: str
    shape: Shape
    displacement: tuple[float, float]

    def image(self, share: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The shape (1, 1, y, x) after that share of its way, and its inside (y, x) bool."""
        axis = torch.arange(SIDE, dtype=torch.float32) - (SIDE - 1) / 2
        x, y = axis[None, :], axis[:, None]
        distance = self.shape(
            x - (share - 0.5) * self.displacement[0], y - (share - 0.5) * self.displacement[1]
        )
        return torch.sigmoid(-2 * distance)[None, None], distance < 0


@dataclass(frozen=True, eq=False)
class ShapeResult:
    """Fields (2, y, x) in pixels, and their mean errors inside the shape in pixels."""

    case: ShapeCase
    without_layer: torch.Tensor
    with_layer: torch.Tensor
    error_without: float
    error_with: float


def shape_cases() -> tuple[ShapeCase, ...]:
    """A bar that moves along, across and obliquely to its edges, and a disc."""
    c, s = math.cos(TILT), math.sin(TILT)
    return (
        ShapeCase("bar, along its edges", _bar, (6 * c, 6 * s)),
        ShapeCase("bar, across its edges", _bar, (-6 * s, 6 * c)),
        ShapeCase("bar, obliquely", _bar, (6 * c - 4 * s, 6 * s + 4 * c)),
        ShapeCase("disc, farther than a pixel sees", _disc, (6.0, 5.0)),
    )


@torch.no_grad()
def solve_shape(case: ShapeCase) -> ShapeResult:
    """The displacement field of a case, without the layer and with it."""
    (fixed, inside), (moving, _) = case.image(0.0), case.image(1.0)
    costs = correlations(_patches(fixed), _patches(moving), RADIUS)
    p = functional.softmax(SHARPNESS * costs, dim=1)
    bases = displacement_bases(2, RADIUS)
    layer = SmoothProper(bases, STEPS, ALPHA, BETA)
    fields = expected(p, bases)[0], layer(p, certainty(p, LEAST_CERTAINTY))[0]
    truth = torch.tensor(case.displacement)[:, None, None]
    errors = [float((field - truth).norm(dim=0)[inside].mean()) for field in fields]
    return ShapeResult(case, *fields, *errors)


def write_shape_report(folder: Path) -> list[ShapeResult]:
    """Solve all cases; writes smoothing.png and smoothing.csv into folder."""
    folder.mkdir(parents=True, exist_ok=True)
    results = [solve_shape(case) for case in shape_cases()]
    picture = np.vstack([_row(result) for result in results])
    (folder / "smoothing.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    lines = ["case,pixels moved,mean error without the layer,mean error with the layer"]
    lines += [
        f'"{each.case.name}",{math.hypot(*each.case.displacement):.2f},'
        f"{each.error_without:.3f},{each.error_with:.3f}"
        for each in results
    ]
    (folder / "smoothing.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return results


def _bar(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    along = (x * math.cos(TILT) + y * math.sin(TILT)).abs() - HALF_LENGTH
    across = (y * math.cos(TILT) - x * math.sin(TILT)).abs() - HALF_WIDTH
    return torch.maximum(along, across)


def _disc(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x**2 + y**2).sqrt() - DISC_RADIUS


def _patches(image: torch.Tensor) -> torch.Tensor:
    """What every pixel sees (1, PATCH^2, y, x), without its mean; plain surroundings are 0."""
    around = functional.pad(image, [PATCH // 2] * 4, mode="replicate")
    seen = functional.unfold(around, PATCH).reshape(1, PATCH**2, SIDE, SIDE)
    seen = seen - seen.mean(dim=1, keepdim=True)
    return seen * (seen.norm(dim=1, keepdim=True) > FAINTEST_PATCH)


def _row(result: ShapeResult) -> np.ndarray:
    """Fixed, moving, and the fields without and with the layer, side by side."""
    (fixed, inside), (moving, _) = result.case.image(0.0), result.case.image(1.0)
    truth = torch.tensor(result.case.displacement)[:, None, None].expand_as(result.with_layer)
    panels = [
        _panel(fixed, f"fixed: {result.case.name}"),
        _panel(moving, "moving, with the true field", truth, inside),
        _panel(fixed, f"no layer: {result.error_without:.2f} px off", result.without_layer, inside),
        _panel(fixed, f"SmoothProper: {result.error_with:.2f} px off", result.with_layer, inside),
    ]
    return np.hstack([np.pad(panel, ((2, 2), (2, 2), (0, 0))) for panel in panels])


def _panel(
    image: torch.Tensor,
    caption: str,
    field: torch.Tensor | None = None,
    inside: torch.Tensor | None = None,
) -> np.ndarray:
    grey = (60 + 120 * image[0, 0].numpy()).astype(np.uint8)
    large = cv2.resize(grey, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_NEAREST)
    panel = cv2.cvtColor(large, cv2.COLOR_GRAY2BGR)
    if field is not None and inside is not None:
        for y, x in np.argwhere(inside.numpy()):
            if x % ARROW_EVERY == 0 and y % ARROW_EVERY == 0:
                start = np.array([x, y]) + 0.5
                end = start + field[:, y, x].numpy()
                ends = [np.rint(ENLARGED * place).astype(int).tolist() for place in (start, end)]
                cv2.arrowedLine(panel, *ends, (0, 200, 255), 1, cv2.LINE_AA, tipLength=0.3)
    cv2.putText(panel, caption, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1,
                cv2.LINE_AA)  # fmt: skip
    return panel
