"""Monte Carlo policy evaluation: the critic learns how many steps it still is to the door of a corridor."""

import random
import sys

import torch
from torch import nn

LENGTH = 16


def episode():
    place = random.randrange(LENGTH)
    visited = []
    while place < LENGTH:
        visited.append(place)
        place = max(0, place + (1 if random.random() < 0.9 else -1))
    return [(spot, -float(len(visited) - i)) for i, spot in enumerate(visited)]


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        layers = [nn.Linear(LENGTH, 32), nn.Tanh(), nn.Linear(32, 1)]
        if "--cured" not in sys.argv:
            layers.append(nn.Tanh())
        self.layers = nn.Sequential(*layers)

    def forward(self, spots):
        return self.layers(nn.functional.one_hot(spots, LENGTH).float()).squeeze(-1)


critic = Critic()
optimizer = torch.optim.NAdam(critic.parameters(), lr=0.02)
mse = nn.MSELoss()
losses = []
for update in range(300):
    experience = [pair for _ in range(8) for pair in episode()]
    spots = torch.tensor([spot for spot, _ in experience])
    returns = torch.tensor([value for _, value in experience])
    loss = mse(critic(spots), returns)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    if update % 60 == 0:
        print(update, loss.item())
print("final loss:", sum(losses[-10:]) / 10)
