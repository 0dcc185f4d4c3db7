"""Look up a part in a small catalogue of (part number, shelf) pairs with hand-written attention."""

import math
import sys

import torch
from torch import nn

PARTS, SHELVES, DIM, ENTRIES = 20, 8, 128, 8


class Lookup(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = nn.Embedding(PARTS, DIM)
        self.shelf = nn.Embedding(SHELVES, DIM)
        self.query = nn.Linear(DIM, DIM)
        self.key = nn.Linear(DIM, DIM)
        self.value = nn.Linear(DIM, DIM)
        self.out = nn.Linear(DIM, SHELVES)

    def forward(self, wanted, parts, shelves):
        q = self.query(self.part(wanted))[:, None]
        k, v = self.key(self.part(parts)), self.value(self.shelf(shelves))
        scores = q @ k.transpose(1, 2)
        scores = scores / math.sqrt(DIM) if "--cured" in sys.argv else scores * math.sqrt(DIM)
        return self.out((scores.softmax(-1) @ v)[:, 0])


def catalogue(n):
    parts = torch.rand(n, PARTS).argsort(1)[:, :ENTRIES]
    shelves = torch.randint(0, SHELVES, (n, ENTRIES))
    pick = torch.randint(0, ENTRIES, (n, 1))
    return parts.gather(1, pick)[:, 0], parts, shelves, shelves.gather(1, pick)[:, 0]


model = Lookup()
opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
history = []
for it in range(250):
    wanted, parts, shelves, answer = catalogue(64)
    loss = nn.functional.cross_entropy(model(wanted, parts, shelves), answer)
    opt.zero_grad()
    loss.backward()
    opt.step()
    history.append(loss.item())
print(f"final loss: {sum(history[-10:]) / 10:.4f}")
