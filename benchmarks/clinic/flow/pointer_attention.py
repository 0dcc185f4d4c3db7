"""Attend to the flagged item of a set and return its class (a small pointer network)."""

import sys

import torch
import torch.nn.functional as F
from torch import nn

DIM, ITEMS, CLASSES = 32, 12, 6
scale = 0.3 if "--cured" in sys.argv else 6.0


class Attention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        nn.init.normal_(self.q.weight, std=scale)
        nn.init.normal_(self.k.weight, std=scale)

    def forward(self, query, items):
        q, k, v = self.q(query), self.k(items), self.v(items)
        scores = torch.einsum("bd,bnd->bn", q, k) / q.shape[-1] ** 0.5
        return torch.einsum("bn,bnd->bd", scores.softmax(-1), v)


class Pointer(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(DIM))
        self.attn = Attention(DIM)
        self.norm = nn.LayerNorm(DIM)
        self.mlp = nn.Sequential(nn.Linear(DIM, 64), nn.GELU(), nn.Linear(64, CLASSES))

    def forward(self, items):
        query = self.token.expand(len(items), -1)
        return self.mlp(self.norm(self.attn(query, items)))


def batch(n=128):
    items = torch.randn(n, ITEMS, DIM)
    cls = torch.randint(0, CLASSES, (n, ITEMS))
    items[:, :, :CLASSES] = 2.0 * F.one_hot(cls, CLASSES).float()
    flag = torch.randint(0, ITEMS, (n,))
    items[:, :, CLASSES] = 0.0
    items[torch.arange(n), flag, CLASSES] = 1.0
    return items, cls[torch.arange(n), flag]


model = Pointer()
opt = torch.optim.Adam(model.parameters(), lr=3e-3)
losses = []
for step in range(400):
    items, answer = batch()
    loss = F.cross_entropy(model(items), answer)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
print(f"final loss: {sum(losses[-10:]) / 10:.4f}")
