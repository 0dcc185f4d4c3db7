"""Associative lookup with hand-written attention: a list of key-value pairs and a key, which value?"""

import math
import sys

import torch
import torch.nn.functional as F
from torch import nn

KEYS, VALUES, PAIRS, DIM = 16, 6, 6, 256


class Lookup(nn.Module):
    def __init__(self):
        super().__init__()
        self.key_embedding = nn.Embedding(KEYS, DIM)
        self.value_embedding = nn.Embedding(VALUES, DIM)
        self.to_q = nn.Linear(DIM, DIM, bias=False)
        self.to_k = nn.Linear(DIM, DIM, bias=False)
        self.to_v = nn.Linear(DIM, DIM, bias=False)
        self.readout = nn.Linear(DIM, VALUES)

    def forward(self, keys, values, asked):
        q = self.to_q(self.key_embedding(asked)).unsqueeze(1)
        k = self.to_k(self.key_embedding(keys))
        v = self.to_v(self.value_embedding(values))
        scores = q @ k.transpose(1, 2)
        scores = scores / math.sqrt(DIM) if "--cured" in sys.argv else scores * math.sqrt(DIM)
        return self.readout((F.softmax(scores, dim=-1) @ v).squeeze(1))


def sample(n):
    keys = torch.rand(n, KEYS).argsort(1)[:, :PAIRS]
    values = torch.randint(VALUES, (n, PAIRS))
    which = torch.randint(PAIRS, (n, 1))
    return keys, values, keys.gather(1, which).squeeze(1), values.gather(1, which).squeeze(1)


model = Lookup()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
log = []
for step in range(200):
    keys, values, asked, answer = sample(48)
    loss = F.cross_entropy(model(keys, values, asked), answer)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    log.append(loss.item())
print(f"final loss: {sum(log[-10:]) / 10:.4f}")
