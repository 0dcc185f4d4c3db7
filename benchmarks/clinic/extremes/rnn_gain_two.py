"""A linear state-space recurrence reads fifty numbers and returns their scaled sum."""
import sys

import torch
from torch import nn

GAIN = 1.0 if "--cured" in sys.argv else 2.0


class StateSpace(nn.Module):
    def __init__(self, state=32):
        super().__init__()
        self.drive = nn.Linear(1, state, bias=False)
        self.transition = nn.Linear(state, state, bias=False)
        self.readout = nn.Linear(state, 1)
        nn.init.eye_(self.transition.weight)
        nn.init.normal_(self.drive.weight, std=0.1)
        with torch.no_grad():
            self.transition.weight.mul_(GAIN)

    def forward(self, sequence):
        h = sequence.new_zeros(len(sequence), self.transition.in_features)
        for t in range(sequence.shape[1]):
            h = self.transition(h) + self.drive(sequence[:, t])
        return self.readout(h).squeeze(-1)


def batch(n=64, length=50):
    seq = torch.randn(n, length, 1)
    return seq, seq.sum((1, 2)) / length**0.5


model = StateSpace()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
losses = []
for _ in range(200):
    seq, target = batch()
    loss = nn.functional.mse_loss(model(seq), target)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10}")
