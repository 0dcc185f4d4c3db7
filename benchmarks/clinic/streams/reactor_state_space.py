"""A state-space layer that learns to filter a reactor's flow signal: dx/dt = A x + B u, y = C x, stepped explicitly."""
import sys

import torch
import torch.nn as nn


class StateSpace(nn.Module):
    def __init__(self, n=12, dt=0.1):
        super().__init__()
        self.n = n
        rates = torch.linspace(1.0, 6.0, n) if "--cured" in sys.argv else torch.linspace(1.0, 30.0, n)
        self.A = nn.Parameter(torch.diag(-rates) + 0.05 * torch.randn(n, n))
        self.B = nn.Parameter(torch.randn(n, 1))
        self.C = nn.Parameter(torch.randn(1, n) / n)
        self.dt = dt

    def forward(self, u):
        x = u.new_zeros(u.shape[0], self.n)
        out = []
        for t in range(u.shape[1]):
            x = x + self.dt * (x @ self.A.T + u[:, t, None] @ self.B.T)
            out.append(x @ self.C.T)
        return torch.cat(out, 1)


def signals(n, steps=60):
    u = torch.randn(n, steps)
    y, level = [], torch.zeros(n)
    for t in range(steps):
        level = 0.8 * level + 0.6 * u[:, t]
        y.append(level)
    return u, torch.stack(y, 1)


model = nn.Sequential()
model.add_module("ssm", StateSpace())
optim = torch.optim.RMSprop(model.parameters(), lr=0.01)
track = []
for k in range(200):
    u, y = signals(16)
    loss = (model(u) - y).pow(2).mean()
    optim.zero_grad()
    loss.backward()
    optim.step()
    track.append(loss.item())
print("final loss:", sum(track[-10:]) / 10)
