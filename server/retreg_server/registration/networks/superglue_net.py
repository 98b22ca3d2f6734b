"""A small network that matches the points of two pictures (Sarlin et al. 2020, SuperGlue).

Points look at all points of their own picture and of the other in turn. What they then say of each
other are the scores of an assignment with a bin for points without partner. Places enter as turns
of queries and keys in a picture (rotary encoding, Su et al. 2021), which tell where points lie to
each other, and as waves over the picture (Tancik et al. 2020), so that points can learn where the
partners of their neighbours are. A fresh network changes nothing: its scores are the cosines of the
descriptors times a sharpness.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import nn

NO_PARTNER = 0.5  # the cosine that is as good as having no partner, at the start
FIRST_TURNS = 6.0  # radians per half side of a picture, standard deviation at the start
ROUNDS = 20
LARGEST = 300.0  # range of scores that counts
WAVES = 5  # over the picture, each half as long as the one before
KNOWN = 4 + 4 * WAVES  # what is known of the place of a point


class Points(NamedTuple):
    """descriptors: (n, d) of unit length. told: (n, 3): x and y from the middle of the picture in
    halves of its longer side, and how strong the point is, from 0 to 1."""

    descriptors: torch.Tensor
    told: torch.Tensor


@dataclass(frozen=True)
class GlueArchitecture:
    """All that is needed to build a network. width: of a descriptor. layers: of attention in a
    picture and to the other one, each. sharpness: what cosines are worth at the start."""

    width: int = 64
    heads: int = 4
    layers: int = 3
    sharpness: float = 23.0
    dimensions: int = 2

    def as_dict(self) -> dict[str, float]:
        """The values by name, as stored in metadata."""
        return asdict(self)

    def build(self) -> SuperGlueNet:
        """A network with fresh weights."""
        return SuperGlueNet(self)


class SuperGlueNet(nn.Module):
    """The points of two pictures, n and m, to scores (n, m) and the score of having no partner."""

    def __init__(self, architecture: GlueArchitecture) -> None:
        super().__init__()
        self.mixed_precision = False
        self.architecture = architecture
        width, heads = architecture.width, architecture.heads
        self.sharpness = nn.Parameter(torch.tensor(math.log(architecture.sharpness)))
        self.no_partner = nn.Parameter(torch.tensor(NO_PARTNER * architecture.sharpness))
        self.frequencies = nn.Parameter(FIRST_TURNS * torch.randn(2, width // heads // 2))
        self.within = nn.ModuleList(_Within(width, heads) for _ in range(architecture.layers))
        self.across = nn.ModuleList(_Across(width, heads) for _ in range(architecture.layers))
        self.last = nn.Linear(width + KNOWN, width)
        nn.init.eye_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, first: Points, second: Points) -> tuple[torch.Tensor, torch.Tensor]:
        scale = (self.sharpness / 2).exp()
        a, b = (scale * each.descriptors for each in (first, second))
        places = [_waves(each.told) for each in (first, second)]
        turns = [each.told[:, :2] @ self.frequencies for each in (first, second)]
        for within, across in zip(self.within, self.across, strict=True):
            a, b = (within(x, *each) for x, *each in zip((a, b), places, turns, strict=True))
            a, b = across(a, b, *places)
        a, b = (self.last(_beside(x, place)) for x, place in zip((a, b), places, strict=True))
        return a @ b.T, self.no_partner


class _Attention(nn.Module):
    """What points (n, width) at places (n, KNOWN) learn from others by attention of several heads
    (Vaswani et al. 2017).

    asked: (kinds * width) values of a point that others are compared by.
    """

    def __init__(self, width: int, heads: int, kinds: int) -> None:
        super().__init__()
        self.heads = heads
        self.asked = nn.Linear(width + KNOWN, kinds * width)
        self.told = nn.Linear(width + KNOWN, width)
        self.change = _perceptron(2 * width + KNOWN, 2 * width, width)

    def _by_head(self, values: torch.Tensor) -> torch.Tensor:
        """(n, width) to (heads, n, width / heads)."""
        return values.reshape(len(values), self.heads, -1).transpose(0, 1)

    def _changed(
        self, points: torch.Tensor, seen: torch.Tensor, learned: torch.Tensor
    ) -> torch.Tensor:
        flat = learned.transpose(0, 1).reshape(points.shape)
        changed: torch.Tensor = points + self.change(_beside(seen, flat))
        return changed


class _Within(_Attention):
    """Attention in a picture; a point asks and answers differently."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, 2)

    def forward(
        self, points: torch.Tensor, places: torch.Tensor, turns: torch.Tensor
    ) -> torch.Tensor:
        """The points after they looked at each other; turns: (n, width / heads / 2) radians."""
        seen = _beside(points, places)
        asking, asked = (
            _turned(self._by_head(each), turns) for each in self.asked(seen).chunk(2, dim=1)
        )
        shares = _likeness(asking, asked).softmax(dim=2)
        return self._changed(points, seen, shares @ self._by_head(self.told(seen)))


class _Across(_Attention):
    """Attention to the other picture; asking and answering are the same, so that both directions
    are one product."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, 1)

    def forward(
        self, a: torch.Tensor, b: torch.Tensor, at_a: torch.Tensor, at_b: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The points of two pictures after they looked at those of the other one."""
        seen_a, seen_b = _beside(a, at_a), _beside(b, at_b)
        likeness = _likeness(*(self._by_head(self.asked(seen)) for seen in (seen_a, seen_b)))
        from_b = likeness.softmax(dim=2) @ self._by_head(self.told(seen_b))
        from_a = likeness.softmax(dim=1).transpose(1, 2) @ self._by_head(self.told(seen_a))
        return self._changed(a, seen_a, from_b), self._changed(b, seen_b, from_a)


def log_assignment(
    scores: torch.Tensor, no_partner: torch.Tensor, rounds: int = ROUNDS
) -> torch.Tensor:
    """Logarithms (n + 1, m + 1) of the shares that numerics.sinkhorn.assignment gives, with
    gradients. Scores within LARGEST of each other need no logarithms inside the iterations, in
    double precision; lower ones count as that low."""
    n, m = scores.shape
    logits = no_partner.double().expand(n + 1, m + 1).clone()
    logits[:n, :m] = scores.double()
    kernel = (logits - logits.detach().amax()).clamp_min(-LARGEST).exp()
    rows, columns = (torch.ones(k + 1, dtype=kernel.dtype, device=kernel.device) for k in (n, m))
    rows[n], columns[m] = m, n
    right = torch.ones_like(columns)
    for _ in range(rounds):
        down = rows / (kernel @ right)
        right = columns / (down @ kernel)
    return (kernel.log() + down.log()[:, None] + right.log()).float()


def _likeness(asking: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    return asking @ asked.transpose(1, 2) / math.sqrt(asked.shape[2])


def _turned(values: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Values (heads, n, 2 k), as k pairs, turned by angles (n, k)."""
    real, imaginary = values.chunk(2, dim=2)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat(
        [real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=2
    )


def _waves(told: torch.Tensor) -> torch.Tensor:
    """(n, KNOWN): what is told, the distance from the middle, and waves along x and y."""
    lengths = math.pi / 2 * 2.0 ** torch.arange(WAVES, device=told.device)
    phases = (told[:, :2, None] * lengths).flatten(1)
    distance = told[:, :2].norm(dim=1, keepdim=True)
    return torch.cat([told, distance, phases.sin(), phases.cos()], dim=1)


def _beside(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.cat([first, second], dim=1)


def _perceptron(inside: int, between: int, outside: int) -> nn.Sequential:
    """Two layers; the last begins as 0."""
    last = nn.Linear(between, outside)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inside, between), nn.LayerNorm(between), nn.ReLU(), last)
