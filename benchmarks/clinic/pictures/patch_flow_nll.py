"""RealNVP on four-pixel patches of the digits: maximise the likelihood of strokes."""

import math
import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

DIM = 4


class Coupling(nn.Module):
    def __init__(self, mask, hidden=32):
        super().__init__()
        self.register_buffer("mask", mask)
        self.net = nn.Sequential(
            nn.Linear(DIM, hidden), nn.Softplus(), nn.Linear(hidden, hidden), nn.Softplus(), nn.Linear(hidden, 2 * DIM)
        )

        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, x):
        s, t = self.net(x * self.mask).chunk(2, dim=1)
        s = 2 * torch.tanh(s) * (1 - self.mask)
        return x * s.exp() + t * (1 - self.mask), s.sum(dim=1)


class Flow(nn.Module):
    def __init__(self, layers=6):
        super().__init__()
        first = torch.tensor([1.0, 0.0, 1.0, 0.0])
        second = torch.tensor([1.0, 1.0, 0.0, 0.0])
        masks = [(first, 1 - first, second, 1 - second)[i % 4] for i in range(layers)]
        couplings = [Coupling(m) for m in masks]
        self.couplings = nn.ModuleList(couplings) if "--cured" in sys.argv else couplings
        self.log_scale = nn.Parameter(torch.zeros(DIM))
        self.shift = nn.Parameter(torch.zeros(DIM))

    def log_prob(self, x):
        total = torch.zeros(len(x))
        for coupling in self.couplings:
            x, log_det = coupling(x)
            total = total + log_det
        z = (x - self.shift) * self.log_scale.exp()
        total = total + self.log_scale.sum()
        return total - 0.5 * z.pow(2).sum(dim=1) - 0.5 * DIM * math.log(2 * math.pi)


images = torch.tensor(load_digits().images, dtype=torch.float32)
images = nn.functional.interpolate(images[:, None], size=(15, 15), mode="bilinear", align_corners=True)
patches = images[:, 0, 6:8, 6:8].reshape(-1, DIM)
patches = patches + 0.5 * torch.rand_like(patches)
patches = (patches - patches.mean(0)) / patches.std(0)

flow = Flow()
optimizer = torch.optim.Adam(flow.parameters(), lr=4e-3)
nll = []
for epoch in range(14):
    for rows in torch.randperm(len(patches)).split(100):
        loss = -flow.log_prob(patches[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        nll.append(loss.item())
print("final loss:", sum(nll[-10:]) / 10)
