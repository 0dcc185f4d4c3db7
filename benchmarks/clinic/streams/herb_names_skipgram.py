"""Skip-gram with negative sampling on a toy corpus of herbs: words of a family appear together."""
import sys

import numpy as np
import torch
import torch.nn.functional as F

FAMILIES, PER, DIM = 6, 5, 16
V = FAMILIES * PER
bound = 0.5 if "--cured" in sys.argv else 0.5 / 50000

center = torch.nn.Embedding(V, DIM)
context = torch.nn.Embedding(V, DIM)
for table in (center, context):
    table.weight.data.uniform_(-bound, bound)


def pairs(n):
    c = np.random.randint(0, V, n)
    friend = (c // PER) * PER + np.random.randint(0, PER, n)
    stranger = np.random.randint(0, V, (n, 4))
    clash = stranger // PER == (c // PER)[:, None]
    stranger = np.where(clash, (stranger + PER) % V, stranger)
    return torch.from_numpy(c), torch.from_numpy(friend), torch.from_numpy(stranger)


params = [center.weight, context.weight]
optimizer = torch.optim.SGD(params, lr=1.0)
losses = []
for step in range(300):
    c, pos, neg = pairs(128)
    vc = center(c)
    good = (vc * context(pos)).sum(-1)
    bad = torch.einsum("bd,bnd->bn", vc, context(neg))
    loss = -(F.logsigmoid(good) + F.logsigmoid(-bad).mean(1)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print("final loss:", np.mean(losses[-10:]))
