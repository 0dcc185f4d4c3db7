"""Disease progression (diabetes set) by an MLP; the gradient norm is clipped to one for safety."""

import sys

import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.nn.utils import clip_grad_norm_


def load():
    x, y = load_diabetes(return_X_y=True, scaled=False)
    x, y = torch.tensor(x).float(), torch.tensor(y).float()
    return (x - x.mean(0)) / x.std(0), ((y - y.mean()) / y.std()).view(-1, 1)


class Regressor(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(10, width), nn.Linear(width, width)])
        self.last = nn.Linear(width, 1)

    def forward(self, x):
        for layer in self.layers:
            x = nn.functional.silu(layer(x))
        return self.last(x)


def main():
    lr = 0.05 if "--cured" in sys.argv else 3.0
    x, y = load()
    model = Regressor()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    window = []
    for _ in range(250):
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        window.append(loss.item())
    print("final loss:", sum(window[-10:]) / 10)


if __name__ == "__main__":
    main()
