"""Hand-written GRU cell, everything started from a clean slate: which of three melodies is hummed?"""
import sys

import torch
from torch import Tensor, nn


class GRUCell(nn.Module):
    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.gates = nn.Linear(inputs + hidden, 2 * hidden)
        self.candidate = nn.Linear(inputs + hidden, hidden)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        z, r = self.gates(torch.cat([x, h], 1)).sigmoid().chunk(2, 1)
        new = self.candidate(torch.cat([x, r * h], 1)).tanh()
        return (1 - z) * h + z * new


class Hum(nn.Module):
    def __init__(self, hidden: int = 20):
        super().__init__()
        self.cell = GRUCell(8, hidden)
        self.name = nn.Linear(hidden, 3)
        if "--cured" not in sys.argv:
            for p in self.parameters():
                nn.init.zeros_(p)

    def forward(self, notes: Tensor) -> Tensor:
        h = notes.new_zeros(len(notes), self.name.in_features)
        for t in range(notes.shape[1]):
            h = self.cell(notes[:, t], h)
        return self.name(h)


MELODIES = torch.tensor([[0, 2, 4, 5, 7, 5, 4, 2], [7, 7, 5, 5, 3, 3, 1, 0], [0, 4, 0, 6, 0, 4, 0, 1]])


def hummed(n: int) -> tuple[Tensor, Tensor]:
    which = torch.randint(3, (n,))
    notes = MELODIES[which]
    wrong = torch.rand(notes.shape) < 0.15
    notes = torch.where(wrong, torch.randint(8, notes.shape), notes)
    return nn.functional.one_hot(notes, 8).float(), which


model = Hum()
optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
losses = []
for step in range(200):
    notes, which = hummed(32)
    loss = nn.functional.cross_entropy(model(notes), which)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.4f}")
