"""Losses that a script makes without training on them are heard; those that it trains on are not."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unvanish.launch.held_out import HeldOut


def test_what_is_made_without_gradients_is_collected_by_step() -> None:
    step = [0]
    held_out = HeldOut(lambda: step[0])
    x, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [0.0]])
    with held_out.watched():
        F.mse_loss(x, y)  # training: a gradient is recorded
        with torch.no_grad():
            nn.MSELoss()(x, y)  # 5.0, of two samples
            F.mse_loss(x[:1], y[:1])  # 1.0, of one
            F.mse_loss(x, y, reduction="none")  # no single number
        step[0] = 7
        with torch.inference_mode():
            F.l1_loss(x, y)
    assert held_out.losses == ((0, pytest.approx((5.0 * 2 + 1.0) / 3)), (7, 2.0))


def test_torch_is_as_it_was_afterwards() -> None:
    before = F.cross_entropy
    with HeldOut(lambda: 0).watched():
        assert F.cross_entropy is not before
        logits = torch.zeros(2, 3, requires_grad=True)
        assert F.cross_entropy(logits, torch.tensor([0, 1])).requires_grad
    assert F.cross_entropy is before
