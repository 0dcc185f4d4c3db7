"""Modules that treatments put into a model."""

from __future__ import annotations

import torch
from torch import nn

from unvanish.errors import SurgeryError


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
        if y.shape != x.shape:
            raise SurgeryError(
                f"a skip can't go around a block that turns shape {tuple(x.shape)} into {tuple(y.shape)}",
                "leave this block out of the residual treatment",
            )
        return x + (y if self.scale == 1.0 else self.scale * y)

    def extra_repr(self) -> str:
        """Show the scale where there is one."""
        return "" if self.scale == 1.0 else f"scale={self.scale:g}"
