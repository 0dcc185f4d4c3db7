"""The small nets that modes train, and the loops that many of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mode_base import Setting, Training
from torch import Tensor, nn
from torch.nn import functional as F

INPUTS, CLASSES = 8, 4


def mlp(s: Setting) -> nn.Sequential:
    """Three weight layers, three signals to compare and two activations."""
    w = s.width
    net = nn.Sequential(
        nn.Linear(INPUTS, w), nn.Tanh(), nn.Linear(w, w), nn.ReLU(), nn.Linear(w, CLASSES)
    )  # fmt: skip
    return net.to(s.dtype)


def batch(s: Setting) -> tuple[Tensor, Tensor]:
    """Numbers from the global generator: a probe that draws from it would be seen."""
    return s.randn(s.rows, INPUTS), torch.randint(CLASSES, (s.rows,))


def sgd(net: nn.Module, s: Setting) -> torch.optim.Optimizer:
    """SGD with momentum."""
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


def classify(
    net: Callable[[Setting], nn.Module] = mlp,
    optimizer: Callable[[nn.Module, Setting], torch.optim.Optimizer] = sgd,
    *,
    data: Callable[[Setting], tuple[Any, Tensor]] = batch,
    loss: Callable[[Any, Tensor], Tensor] = F.cross_entropy,
    keep_zeros: bool = False,
) -> Callable[[Setting], Training]:
    """The loop that everyone knows, around a net and an optimizer."""

    def make(s: Setting) -> Training:
        model = net(s)
        opt = optimizer(model, s)

        def step() -> None:
            x, y = data(s)
            opt.zero_grad(set_to_none=not keep_zeros)
            s.backward(loss(model(x), y))
            opt.step()

        return Training(models=[model], optimizers=[opt], step=step)

    return make


def adam(
    kind: Any = torch.optim.Adam, **options: Any
) -> Callable[[nn.Module, Setting], torch.optim.Optimizer]:
    """An optimizer of Adam's family; the twin leaves out how it is computed."""

    def build(net: nn.Module, s: Setting) -> torch.optim.Optimizer:
        how = {} if s.twin else options
        made: torch.optim.Optimizer = kind(net.parameters(), lr=0.01, **how)
        return made

    return build
