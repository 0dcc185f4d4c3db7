"""Nets without weights (the meta device): what torch's default initialisation would give them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from unvanish.probe.architecture import Weights

DEFAULT_SW2 = 1 / 3  # fan_in Var W of nn.Linear and of convolutions: uniform, bound sqrt(1 / fan_in)


def assumed_weights(found: Mapping[int, Weights]) -> dict[int, Weights]:
    """The same layers with the moments that torch's default init draws: [sw2, sb2, centring error, variety]."""
    return {
        place: Weights(
            w.fan_in,
            w.fan_out,
            torch.tensor([DEFAULT_SW2, DEFAULT_SW2 / w.fan_in, 1.0, 1.0], dtype=torch.float64),
        )
        for place, w in found.items()
    }
