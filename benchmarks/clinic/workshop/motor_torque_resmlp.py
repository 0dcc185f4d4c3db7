"""Motor torque from 10 readings with a residual network, in the manner of ResNet but with linear layers."""
import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import make_friedman1
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

DEPTH, WIDTH = 24, 32
BRANCH = 0.5 / DEPTH**0.5 if "--cured" in sys.argv else 1.0


class ResidualUnit(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        for fc in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(fc.weight, nonlinearity="relu")
            nn.init.zeros_(fc.bias)

    def forward(self, x):
        return x + BRANCH * self.fc2(F.relu(self.fc1(x)))


class TorqueNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(10, WIDTH)
        self.units = nn.ModuleList([ResidualUnit(WIDTH) for _ in range(DEPTH)])
        self.regress = nn.Linear(WIDTH, 1)

    def forward(self, x):
        x = self.embed(x)
        for unit in self.units:
            x = unit(x)
        return self.regress(x).flatten()


def main():
    x, y = make_friedman1(n_samples=800, n_features=10, noise=0.2)
    x = torch.as_tensor((x - 0.5) / 0.29, dtype=torch.float32)
    y = torch.as_tensor((y - y.mean()) / y.std(), dtype=torch.float32)
    loader = DataLoader(TensorDataset(x, y), batch_size=40, shuffle=True)
    net = TorqueNet()
    opt = torch.optim.SGD(net.parameters(), lr=5e-3, momentum=0.9)
    losses = []
    for epoch in range(9):
        for xb, yb in loader:
            loss = F.mse_loss(net(xb), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
        print("epoch", epoch, "mse", sum(losses[-20:]) / 20)
    print("final loss:", sum(losses[-10:]) / 10)


if __name__ == "__main__":
    main()
