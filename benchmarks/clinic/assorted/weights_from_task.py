"""A hypernetwork reads a task's description and writes the weights of a small net which solves it."""

import sys

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import vector_to_parameters

solver = nn.Sequential(nn.Linear(1, 10), nn.Tanh(), nn.Linear(10, 1))
shapes = {name: p.shape for name, p in solver.named_parameters()}
size = sum(p.numel() for p in solver.parameters())


class Hyper(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, size))

    def forward(self, description):
        return self.net(description)


def solve(flat, x):
    if "--cured" in sys.argv:
        pieces = flat.split([s.numel() for s in shapes.values()])
        weights = {name: piece.view(shapes[name]) for name, piece in zip(shapes, pieces)}
        return functional_call(solver, weights, (x,))
    vector_to_parameters(flat, solver.parameters())
    return solver(x)


hyper = Hyper()
optimizer = torch.optim.Adam(hyper.parameters(), lr=5e-3)
history = []
for step in range(400):
    optimizer.zero_grad()
    total = 0.0
    for _ in range(4):
        slope, offset = 2 * torch.randn(2)
        x = torch.rand(24, 1) * 2 - 1
        y = slope * x + offset
        loss = nn.functional.mse_loss(solve(hyper(torch.stack([slope, offset])), x), y) / 4
        loss.backward()
        total += loss.item()
    optimizer.step()
    history.append(total)
print("final loss:", sum(history[-10:]) / 10)
