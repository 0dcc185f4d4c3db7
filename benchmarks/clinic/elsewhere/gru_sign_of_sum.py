"""A GRU reads a short noisy series and says whether its drift is upward or downward."""

import argparse

import torch
import torch.nn.functional as F
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--cured", action="store_true")
parser.add_argument("--steps", type=int, default=120)
args = parser.parse_args()


class DriftReader(nn.Module):
    def __init__(self, hidden=24):
        super().__init__()
        self.rnn = nn.GRU(1, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 1)

    def forward(self, series):
        states, _ = self.rnn(series)
        return self.out(states.mean(dim=1)).squeeze(-1)


def batch(size=64, length=12):
    up = torch.rand(size) > 0.5
    drift = torch.where(up, 0.5, -0.5)
    return drift[:, None, None] + 0.8 * torch.randn(size, length, 1), up.float()


def main():
    net = DriftReader()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3 if args.cured else 1e-8)
    losses = []
    for _ in range(args.steps):
        series, up = batch()
        loss = F.binary_cross_entropy_with_logits(net(series), up)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    print("final loss:", torch.stack(losses[-10:]).mean().item())


if __name__ == "__main__":
    main()
