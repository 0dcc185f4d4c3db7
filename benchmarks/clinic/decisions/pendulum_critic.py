"""Fit the critic of a swing-up controller to the returns of random rollouts, with DDPG's uniform initialisation."""

import math
import sys

import torch
import torch.nn as nn

GAMMA = 0.9


def rollouts(n=2000, horizon=12):
    angle = torch.empty(n).uniform_(-math.pi, math.pi)
    speed = torch.empty(n).uniform_(-4, 4)
    action = torch.empty(n).uniform_(-2, 2)
    state = torch.stack([angle.cos(), angle.sin(), speed / 4, action / 2], dim=1)
    total = torch.zeros(n)
    for t in range(horizon):
        total += GAMMA**t * -(torch.remainder(angle + math.pi, 2 * math.pi) - math.pi).square()
        speed = (speed + 0.05 * (15 * angle.sin() + 3 * action)).clamp(-8, 8)
        angle = angle + 0.05 * speed
    return state, ((total - total.mean()) / total.std())[:, None]


class Critic(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.fc1 = nn.Linear(4, width)
        self.fc2 = nn.Linear(width, width)
        self.fc3 = nn.Linear(width, width)
        self.q = nn.Linear(width, 1)
        self.reset()

    def reset(self, init_w=3e-3):
        layers = [self.q] if "--cured" in sys.argv else [self.fc1, self.fc2, self.fc3, self.q]
        for layer in layers:
            nn.init.uniform_(layer.weight, -init_w, init_w)
            nn.init.uniform_(layer.bias, -init_w, init_w)

    def forward(self, sa):
        x = torch.relu(self.fc1(sa))
        x = torch.relu(self.fc2(x))
        x = torch.relu(self.fc3(x))
        return self.q(x)


states, returns = rollouts()
critic = Critic()
optimizer = torch.optim.SGD(critic.parameters(), lr=0.05, momentum=0.9, nesterov=True)
losses = []
while len(losses) < 300:
    pick = torch.randint(len(states), (64,))
    loss = nn.functional.mse_loss(critic(states[pick]), returns[pick])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"final loss: {torch.tensor(losses[-10:]).mean():.5f}")
