"""Modules that treatments put into a model."""

from __future__ import annotations

import torch
from torch import nn

_KEEPS_SHAPE = "a skip can only go around a block that keeps the shape"


class Residual(nn.Module):
    """x + scale * F(x): the identity skip of He et al. 2016 around a block of equal shape."""

    def __init__(self, body: nn.Module, scale: float = 1.0) -> None:
        """Hold the block F."""
        super().__init__()
        self.body = body
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the block's output to its input; shapes [*, n] -> [*, n], never broadcast."""
        y: torch.Tensor = self.body(x)
        # a plain `if` on shapes would end a symbolic trace
        torch._assert(y.shape == x.shape, _KEEPS_SHAPE)
        return x + (y if self.scale == 1.0 else self.scale * y)

    def extra_repr(self) -> str:
        """Show the scale where there is one."""
        return "" if self.scale == 1.0 else f"scale={self.scale:g}"
