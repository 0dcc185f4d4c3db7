"""Actor for a mixing valve, trained through the known reward: the best opening depends on pressure, flow and heat."""
import sys

import torch
from torch import nn

SPREAD = torch.tensor([90000.0, 350.0, 60.0])


def observe(n):
    z = torch.randn(n, 3)
    best = torch.tanh(0.8 * z[:, 0] - 0.7 * z[:, 1] * z[:, 2])
    return z * SPREAD, best.unsqueeze(1)


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3, 32)
        self.fc2 = nn.Linear(32, 32)
        self.mu = nn.Linear(32, 1)

    def forward(self, obs):
        if "--cured" in sys.argv:
            obs = obs / SPREAD
        h = torch.relu(self.fc1(obs))
        h = torch.relu(self.fc2(h))
        return torch.tanh(self.mu(h))


def reward(action, best):
    return 1 - (action - best) ** 2


actor = Actor()
opt = torch.optim.AdamW(actor.parameters(), lr=2e-3)
losses = []
for episode in range(300):
    obs, best = observe(64)
    loss = -(reward(actor(obs), best) - 1).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print("final loss:", sum(losses[-10:]) / 10)
