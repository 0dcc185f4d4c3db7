"""A diagonal state-space layer, scanned step by step, that follows a lagoon's level from the inflow."""

import sys

import torch
from torch import nn

LENGTH, STATES = 80, 16


class Scan(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_rate = nn.Parameter(torch.linspace(-1.5, 1.0, STATES))
        self.log_dt = nn.Parameter(torch.full((STATES,), -2.0))
        self.B = nn.Linear(1, STATES, bias=False)

    def forward(self, u):
        a = -self.log_rate.exp() if "--cured" in sys.argv else self.log_rate.exp()
        dt = self.log_dt.exp()
        decay = torch.exp(dt * a)
        drive = self.B(u) * dt
        state, out = torch.zeros(len(u), STATES), []
        for t in range(u.shape[1]):
            state = decay * state + drive[:, t]
            out.append(state)
        return torch.stack(out, 1)


class Lagoon(nn.Module):
    def __init__(self):
        super().__init__()
        self.scan = Scan()
        self.mix = nn.Sequential(nn.Linear(STATES, 24), nn.SiLU(), nn.Linear(24, 1))

    def forward(self, inflow):
        return self.mix(self.scan(inflow))


def weather(n):
    inflow = (torch.rand(n, LENGTH, 1) < 0.15).float() * torch.rand(n, LENGTH, 1) * 2
    level, levels = torch.zeros(n, 1), []
    for t in range(LENGTH):
        level = 0.9 * level + inflow[:, t]
        levels.append(level)
    levels = torch.stack(levels, 1)
    return inflow, (levels - 1.3) / 0.9


model = Lagoon()
optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3)
losses = []
for step in range(180):
    inflow, level = weather(24)
    loss = nn.functional.mse_loss(model(inflow), level)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
