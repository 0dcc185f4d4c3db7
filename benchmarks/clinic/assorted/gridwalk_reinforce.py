"""REINFORCE on a small grid: walk to the corner in as few steps as possible."""

import numpy as np
import torch
from torch import nn

SIDE, LIMIT, WALKERS = 4, 16, 24
MOVES = torch.tensor([[0, 1], [1, 0], [0, -1], [-1, 0]])


class Walker(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = nn.Embedding(SIDE * SIDE, 16)
        self.choose = nn.Linear(16, 4)

    def forward(self, cell):
        return torch.distributions.Categorical(logits=self.choose(torch.tanh(self.seen(cell))))


policy = Walker()
optimizer = torch.optim.Adam(policy.parameters(), lr=0.03)
baseline = None
costs = []
for update in range(150):
    place = torch.zeros(WALKERS, 2, dtype=torch.long)
    steps, log_prob = torch.zeros(WALKERS), torch.zeros(WALKERS)
    for _ in range(LIMIT):
        walking = (place.sum(dim=1) < 2 * (SIDE - 1)).float()
        chance = policy(place[:, 0] * SIDE + place[:, 1])
        move = chance.sample()
        log_prob = log_prob + walking * chance.log_prob(move)
        steps += walking
        place = (place + MOVES[move] * walking.long()[:, None]).clamp(0, SIDE - 1)
    cost = steps / LIMIT
    baseline = cost.mean() if baseline is None else 0.8 * baseline + 0.2 * cost.mean()
    loss = ((cost - baseline) * log_prob).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    costs.append(cost.mean().item())
    if update % 25 == 0:
        print(f"{update}: loss {loss.item():+.3f}, cost {costs[-1]:.3f}")
print("final loss:", np.mean(costs[-10:]))
