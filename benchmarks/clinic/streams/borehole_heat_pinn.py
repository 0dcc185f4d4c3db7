"""PINN: u_t = kappa u_zz in the soil under a field; depth, time and temperature are already without units."""
import sys
from math import pi

import torch
import torch.nn as nn

KAPPA = 0.05


def init(m):
    if isinstance(m, nn.Linear):
        if "--cured" in sys.argv:
            nn.init.xavier_normal_(m.weight)
        else:
            nn.init.normal_(m.weight, std=0.01)
        nn.init.zeros_(m.bias)


def mlp(*sizes):
    layers = []
    for a, b in zip(sizes[:-1], sizes[1:]):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Soil(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp(2, 24, 24, 24, 1)
        self.apply(init)

    def forward(self, z, t):
        return self.net(torch.cat([2 * z - 1, 2 * t - 1], dim=1))


def residual(u, n=64):
    z, t = torch.rand(n, 1, requires_grad=True), torch.rand(n, 1, requires_grad=True)
    out = u(z, t)
    u_t, u_z = torch.autograd.grad(out.sum(), (t, z), create_graph=True)
    u_zz = torch.autograd.grad(u_z.sum(), z, create_graph=True)[0]
    return u_t - KAPPA * u_zz


u = Soil()
opt = torch.optim.SGD(u.parameters(), lr=0.02, momentum=0.9)
hist = []
for it in range(400):
    z0 = torch.rand(64, 1)
    start = u(z0, torch.zeros(64, 1)) - torch.cos(pi * z0)
    loss = 2 * start.square().mean() + residual(u).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    hist.append(loss.item())
    if it % 100 == 0:
        print(f"{it:5d} {loss.item():.5f}")
print("final loss:", sum(hist[-10:]) / 10)
