"""Modules that treatments put into a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import handle_torch_function, has_torch_function

_KEEPS_SHAPE = "a skip can only go around a block that keeps the shape"


def _lent(wrapper: nn.Module, part: str, name: str) -> Any:
    """An attribute that a wrapper has not, from the part that it stands for: scripts ask for model.fc1.weight."""
    inner = wrapper.__dict__.get("_modules", {}).get(part)
    if inner is None or name.startswith("__"):
        raise AttributeError(f"{type(wrapper).__name__!r} object has no attribute {name!r}")
    return getattr(inner, name)


class Joined(nn.Sequential):
    """Modules that stand in the place of one of them, the one at index `main`: its attributes are theirs, too."""

    def __init__(self, *parts: nn.Module, main: int = 0) -> None:
        """Run the parts in order."""
        super().__init__(*parts)
        self.main = main

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return _lent(self, str(self.__dict__.get("main", 0)), name)


class Preceded(nn.Module):
    """A module with another one in front, which changes the first of the values that go in."""

    def __init__(self, front: nn.Module, body: nn.Module) -> None:
        """Hold both."""
        super().__init__()
        self.front = front
        self.body = body

    def forward(self, x: Any, *rest: Any, **named: Any) -> Any:
        """body(front(x), ...)."""
        return self.body(self.front(x), *rest, **named)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return _lent(self, "body", name)


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

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return _lent(self, "body", name)

    def extra_repr(self) -> str:
        """Show the scale where there is one."""
        return "" if self.scale == 1.0 else f"scale={self.scale:g}"


def add_back(y: torch.Tensor, x: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
    """x + scale * y for a block that keeps the shape; y alone where another layer at this place changes it."""
    if has_torch_function((y, x)):  # a symbolic trace has no shapes to compare
        made: torch.Tensor = handle_torch_function(add_back, (y, x), y, x, scale=scale)
        return made
    if y.shape != x.shape:
        return y
    return x + (y if scale == 1.0 else scale * y)
