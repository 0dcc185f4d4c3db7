"""The model lives in another file."""

from dataclasses import dataclass

import torch
from net import build
from torch.nn import functional as F


@dataclass
class Config:
    rate: float = 0.2
    width: int = 9
    steps: int = 20


def run(cfg):
    model = build(cfg.width)
    optimizer = torch.optim.SGD(model.parameters(), lr=cfg.rate)
    for _ in range(cfg.steps):
        x = torch.randn(12, 9)
        loss = F.mse_loss(model(x), x[:, :2])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


cfg = Config()
run(cfg)
