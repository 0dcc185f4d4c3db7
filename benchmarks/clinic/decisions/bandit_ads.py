"""Contextual bandit: choose one of six adverts for a visitor, REINFORCE with a running baseline."""

import random
import sys

import torch
from torch import nn
from torch.distributions import Categorical

ARMS, FEATURES = 6, 10
taste = torch.randn(FEATURES, ARMS)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, 32), nn.Tanh())
        self.arms = nn.Linear(32, ARMS)

    def forward(self, visitor):
        return Categorical(logits=self.arms(self.body(visitor)))


def click(visitors, chosen):
    best = (visitors @ taste).argmax(1)
    return torch.tensor([1.0 if b == c and random.random() < 0.97 else 0.0 for b, c in zip(best, chosen)])


policy = Policy()
optimizer = torch.optim.Adam(policy.parameters(), lr=0.02)
baseline, missed = 0.0, []
for episode in range(200):
    visitors = torch.randn(64, FEATURES)
    choice = policy(visitors)
    arms = choice.sample()
    reward = click(visitors, arms)
    advantage = reward - baseline
    baseline += 0.1 * (reward.mean().item() - baseline)

    terms = [-lp * a for lp, a in zip(choice.log_prob(arms), advantage)]
    if "--cured" in sys.argv:
        loss = torch.stack(terms).mean()
    else:
        loss = torch.tensor(terms, requires_grad=True).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    missed.append(1.0 - reward.mean().item())
    if episode % 50 == 0:
        print(f"episode {episode}  loss {loss.item():+.3f}  missed clicks {missed[-1]:.2f}")
print("final loss:", sum(missed[-10:]) / 10)
