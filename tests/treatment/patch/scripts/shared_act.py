from collections import OrderedDict

import torch
from torch import nn, optim

STEPS, LEARNING_RATE = 20, 2e-2


class Regressor(nn.Module):
    """Layers as attributes, one activation module for all."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.inp = nn.Linear(3, width)
        self.mid = nn.Linear(width, width)
        self.act = nn.Softsign()
        self.tail = nn.Sequential(OrderedDict([("fc", nn.Linear(width, width)), ("act", nn.Softsign()), ("out", nn.Linear(width, 1))]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(
            self.act(
                self.mid(self.act(self.inp(x)))
            )
        )


class Trainer:
    def __init__(self, model, lr=LEARNING_RATE):
        self.model = model
        self.opt = optim.Adam(self.model.parameters(), lr=lr)

    def fit(self):
        for _ in range(STEPS):
            x = torch.randn(20, 3)
            loss = ((self.model(x) - x.prod(1, keepdim=True)) ** 2).mean()
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()


def main():
    Trainer(Regressor()).fit()


main()
