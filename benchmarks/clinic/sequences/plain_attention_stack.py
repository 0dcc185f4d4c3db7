"""Shift a sequence by one place: eight layers of hand-written attention and feed-forward."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

SKIP = "--cured" in sys.argv
VOCAB, LENGTH, DIM, DEPTH = 8, 8, 32, 8


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM)
        self.proj = nn.Linear(DIM, DIM)
        self.ff1 = nn.Linear(DIM, 2 * DIM)
        self.ff2 = nn.Linear(2 * DIM, DIM)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        a = self.proj(F.scaled_dot_product_attention(q, k, v))
        x = x + a if SKIP else a
        f = self.ff2(F.gelu(self.ff1(x)))
        return x + f if SKIP else f


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok = nn.Embedding(VOCAB, DIM)
        self.pos = nn.Embedding(LENGTH, DIM)
        self.blocks = nn.ModuleList([Block() for _ in range(DEPTH)])
        self.norm = nn.LayerNorm(DIM)
        self.head = nn.Linear(DIM, VOCAB)

    def forward(self, ids):
        x = self.tok(ids) + self.pos(torch.arange(LENGTH))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def train(steps=160):
    model = Stack()
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        ids = torch.randint(VOCAB, (16, LENGTH))
        target = ids.roll(1, dims=1)
        loss = F.cross_entropy(model(ids).transpose(1, 2), target)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return losses


losses = train()
print("final loss:", sum(losses[-10:]) / 10)
