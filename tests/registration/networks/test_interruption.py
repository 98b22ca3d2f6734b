"""Networks that are stopped in the middle of a pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retreg.errors import Cancelled
from retreg_server.registration.networks.devices import interruptible


def test_a_pass_ends_before_the_layer_at_which_it_is_cancelled():
    ran = []

    class Layer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ran.append(x)
            return x

    def check() -> None:
        if len(ran) == 3:
            raise Cancelled("Not wanted any more.")

    net = nn.Sequential(*(Layer() for _ in range(5)))
    with pytest.raises(Cancelled), interruptible(check):
        net(torch.zeros(1))
    assert len(ran) == 3
    net(torch.zeros(1))  # nobody asks any longer
    assert len(ran) == 8
