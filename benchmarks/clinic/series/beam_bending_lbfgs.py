"""Deflection of a clamped cable, w'' = q(x), w(0) = w(1) = 0, in newtons: a physics-informed net with L-BFGS."""

import math

import torch
from torch import nn

LOAD = 400.0
x = torch.linspace(0, 1, 41)[:, None].requires_grad_()
ends = torch.tensor([[0.0], [1.0]])
load = LOAD * torch.sin(2 * math.pi * x.detach())

net = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 1))
optimizer = torch.optim.LBFGS(net.parameters(), lr=1.0, max_iter=5, history_size=30, line_search_fn="strong_wolfe")


def derivative(y):
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def closure():
    optimizer.zero_grad()
    curvature = derivative(derivative(net(x)))
    loss = (curvature - load).square().mean() + 1000 * net(ends).square().mean()
    loss.backward()
    return loss


losses = [float(optimizer.step(closure)) for _ in range(100)]
print("first loss:", losses[0])
print("final loss:", sum(losses[-10:]) / 10)
