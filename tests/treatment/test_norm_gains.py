"""An init sets the gains of norms to 1 where they are far from it, and leaves them alone else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unvanish.treatment.candidate import of
from unvanish.treatment.operate import apply

XAVIER = (of("init", scheme="xavier"),)


def net(norm: nn.Module, gain: float) -> nn.Sequential:
    if isinstance(norm.weight, nn.Parameter):
        nn.init.constant_(norm.weight, gain)
    if isinstance(getattr(norm, "bias", None), nn.Parameter):
        nn.init.constant_(norm.bias, 0.3)
    return nn.Sequential(nn.Linear(8, 8), norm, nn.Tanh(), nn.Linear(8, 2))


NORMS = {
    "layer": lambda: nn.LayerNorm(8),
    "layer without bias": lambda: nn.LayerNorm(8, bias=False),
    "batch": lambda: nn.BatchNorm1d(8),
    "group": lambda: nn.GroupNorm(2, 8),
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("gain", [1e-3, 50.0, float("nan")])
def test_gains_far_from_one_are_set_to_one_and_biases_to_zero(name: str, gain: float) -> None:
    model = net(NORMS[name](), gain)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    done = apply(model, XAVIER)
    assert torch.equal(model[1].weight, torch.ones(8))
    assert getattr(model[1], "bias", None) is None or torch.equal(model[1].bias, torch.zeros(8))
    done.undo()
    for key, value in model.state_dict().items():
        assert torch.equal(value.nan_to_num(7.0), before[key].nan_to_num(7.0))


@pytest.mark.parametrize("gain", [0.0, 0.2, 1.0, 5.0])
def test_zero_is_meant_and_what_is_near_one_is_fine(gain: float) -> None:
    model = net(nn.LayerNorm(8), gain)
    apply(model, XAVIER)
    assert torch.equal(model[1].weight, torch.full((8,), gain))
    assert torch.equal(model[1].bias, torch.full((8,), 0.3))


def test_frozen_and_missing_gains_are_left() -> None:
    model = net(nn.LayerNorm(8), 1e-3)
    model[1].weight.requires_grad_(False)
    apply(model, XAVIER)
    assert torch.equal(model[1].weight, torch.full((8,), 1e-3))
    apply(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2)), XAVIER)


def test_small_gains_are_what_stopped_the_signal() -> None:
    def through(model: nn.Module) -> float:
        x = torch.randn(32, 8, requires_grad=True)
        model(x).sum().backward()
        assert x.grad is not None
        return float(x.grad.norm())

    torch.manual_seed(0)
    model = nn.Sequential(*[layer for _ in range(4) for layer in net(nn.LayerNorm(8), 1e-3)[:3]])
    before = through(model)
    apply(model, XAVIER)
    assert before < 1e-6
    assert through(model) > 1e-2
