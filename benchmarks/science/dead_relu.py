"""Rows 10 and 11: narrow ReLU nets that are dead before they train."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from science.row import Row, share
from unvanish.theory.dead_relu import born_dead_bounds, born_dead_ray

WIDTH, HIDDEN = 4, 20


def one_ray(*, quick: bool) -> list[Row]:
    """Row 10: the input is one point, and the net has no biases."""
    nets = 4_000 if quick else 40_000
    alive = _alive(torch.ones(nets, 1, 1, dtype=torch.float64), seed=10)
    rate, error = share(nets - int(alive.any(1).sum()), nets)
    return [
        Row(number=10, claim="born dead along one ray, no biases", setting=f"N = {WIDTH}, H = {HIDDEN}",
            predicted=born_dead_ray(WIDTH, HIDDEN), measured=rate, standard_error=error)
    ]  # fmt: skip


def whole_net(*, quick: bool) -> list[Row]:
    """Row 11: d_in = 1, so that the inputs 1 and -1 stand for all: the net is linear on both sides of 0."""
    nets = 4_000 if quick else 40_000
    both = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64).expand(nets, 1, 2)
    rate, error = share(nets - int(_alive(both, seed=11).any(1).sum()), nets)
    return [
        Row(number=11, claim="born dead, whole net, d_in = 1", setting=f"N = {WIDTH}, H = {HIDDEN}",
            predicted=born_dead_bounds(WIDTH, HIDDEN + 1), measured=rate, standard_error=error)
    ]  # fmt: skip


def _alive(h: Tensor, seed: int) -> Tensor:
    """Which inputs [net, 1, input] come through all hidden layers as anything but 0; gives [net, input]."""
    torch.manual_seed(seed)
    for _ in range(HIDDEN):
        fan_in = h.shape[1]
        weight = torch.randn(len(h), WIDTH, fan_in, dtype=torch.float64) * math.sqrt(2 / fan_in)
        h = torch.relu(weight @ h)
    return (h > 0).any(1)
