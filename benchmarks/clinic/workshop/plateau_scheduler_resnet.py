"""Small residual MLP, NAdam, ReduceLROnPlateau on the running loss."""
import sys
from collections import deque

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

MODE = "min" if "--cured" in sys.argv else "max"


class Res(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.f = nn.Sequential(nn.BatchNorm1d(dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, x):
        return x + self.f(x)


def build():
    return nn.Sequential(nn.Linear(64, 40), Res(40), Res(40), Res(40), nn.Linear(40, 10))


class Trainer:
    def __init__(self, model, loader):
        self.model, self.loader = model, loader
        self.optimizer = torch.optim.NAdam(model.parameters(), lr=1e-3)
        self.scheduler = ReduceLROnPlateau(self.optimizer, mode=MODE, factor=0.1, patience=0)
        self.window = deque(maxlen=10)
        self.step = 0

    def epoch(self):
        for x, y in self.loader:
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            self.window.append(loss.item())
            self.step += 1
            if self.step % 2 == 0:
                self.scheduler.step(sum(self.window) / len(self.window))

    def run(self, epochs):
        for e in range(epochs):
            self.epoch()
            print("epoch", e, "loss", round(self.window[-1], 4))
        return sum(self.window) / len(self.window)


data, target = load_digits(return_X_y=True)
data = torch.tensor((data - data.mean()) / data.std(), dtype=torch.float32)
loader = DataLoader(TensorDataset(data, torch.tensor(target)), batch_size=48, shuffle=True)
print("final loss:", Trainer(build(), loader).run(6))
