"""Gaussian policy for a putting green: read the slope, choose a stroke; REINFORCE with whitened costs."""
import torch
from torch import nn


class Putter(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 1))
        self.log_std = nn.Parameter(torch.zeros(1))

    def forward(self, green):
        return torch.distributions.Normal(self.mean(green), self.log_std.clamp(-1.6, 1.0).exp())


def miss(green, stroke):
    distance, slope = green[:, :1], green[:, 1:]
    return (stroke - 1.5 * distance - slope).abs()


putter = Putter()
opt = torch.optim.Adam(putter.parameters(), lr=0.02)
misses = []
for round_ in range(300):
    green = torch.empty(128, 2).uniform_(-1, 1)
    policy = putter(green)
    stroke = policy.sample()
    cost = miss(green, stroke)
    surrogate = (policy.log_prob(stroke) * (cost - cost.mean()) / (cost.std() + 1e-6)).mean()
    opt.zero_grad()
    surrogate.backward()
    opt.step()
    misses.append(cost.mean().item())
    if round_ % 50 == 0:
        print(round_, f"surrogate {surrogate.item():+.4f} miss {misses[-1]:.3f}")
print("final loss:", sum(misses[-10:]) / 10)
